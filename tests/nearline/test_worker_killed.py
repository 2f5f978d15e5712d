"""A worker is killed with -9 amid real clicks, and started again: none is lost, none applied out of order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from nearline.click_source import ClickSource, open_click_source
from nearline.click_worker import LIST_NAME
from nearline.clicks import Click
from nearline.replay_clicks import replay
from nearline.store import OnlineStore, open_store
from tests.conftest import REPOSITORY
from tests.nearline.small_served import by_user, expected_list, publish, some_clicks

K = 12
N_KILLS = 3
DEADLINE_SECONDS = 900
STOP_SECONDS = 120


@contextmanager
def worker(var: Path, store_url: str, clicks_url: str, name: str) -> Iterator[subprocess.Popen]:
    """Start the command behind `make nearline`; wait until it answers."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("TRIBUTARY_")},
        "TRIBUTARY_VAR": str(var),
        "TRIBUTARY_ONLINE_STORE_URL": store_url,
        "TRIBUTARY_NEARLINE__CLICKS_URL": clicks_url,
        "TRIBUTARY_NEARLINE__K": str(K),
        "TRIBUTARY_NEARLINE__CLAIM_AFTER_SECONDS": "2",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-m", "services.click_worker", "--name", name]
    with (var / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(STOP_SECONDS)


def wait_for_backlog(source: ClickSource, most: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + DEADLINE_SECONDS
    while source.backlog() > most:
        assert process.poll() is None, "the worker has ended"
        assert time.monotonic() < until, f"{source.backlog()} clicks are left"
        time.sleep(0.005)


def kill_amid(var: Path, store_url: str, clicks_url: str, clicks: list[Click], n_kills: int) -> OnlineStore:
    """Send all clicks; kill workers at places spread over them, and let a last one finish."""
    publish(var / "releases")
    with ExitStack() as stack:
        source = stack.enter_context(closing(open_click_source(clicks_url, worker="test")))
        replay(clicks, source)
        for kill in range(n_kills):
            with worker(var, store_url, clicks_url, f"w{kill}") as process:
                wait_for_backlog(source, len(clicks) * (n_kills - kill) // (n_kills + 1), process)
                process.send_signal(signal.SIGKILL)
                assert process.wait(10) == -signal.SIGKILL
        with worker(var, store_url, clicks_url, "last") as process:
            wait_for_backlog(source, 0, process)
            process.terminate()
            assert process.wait(STOP_SECONDS) == 0, (var / "last.log").read_text()
    return open_store(store_url)


def assert_none_lost_or_misplaced(store: OnlineStore, clicks: list[Click]) -> None:
    """Check that each user's clicked items and list are those of all clicks in the order of their times."""
    for user, own in by_user(clicks).items():
        newest = {click.item_id: click.event_time for click in sorted(own, key=lambda one: one.event_time)}
        held = store.note_clicks(user, [], keep=10_000, keep_seconds=60)
        kept = sorted((time, item) for item, time in newest.items())[-200:]
        assert list(zip(held.event_times.tolist(), held.item_ids.tolist(), strict=True)) == kept
        found = store.read(LIST_NAME, user)
        assert found.item_ids.tolist() == expected_list(user, own, K), user
        assert np.datetime64(found.event_time, "us").astype(np.int64) == kept[-1][0]


def shuffled_in_part(clicks: list[Click]) -> list[Click]:
    """Let every tenth click come up to 50 places late."""
    generator = np.random.default_rng(0)
    late = generator.random(len(clicks)) < 0.1
    places = np.arange(len(clicks)) + np.where(late, generator.integers(1, 50, len(clicks)), 0)
    return [clicks[at] for at in np.argsort(places, kind="stable")]


def test_no_click_is_lost_when_a_worker_is_killed(tmp_path: Path, redis_url: str) -> None:
    clicks = some_clicks(600)
    with closing(kill_amid(tmp_path, redis_url, redis_url, shuffled_in_part(clicks), 1)) as store:
        assert_none_lost_or_misplaced(store, clicks)


@pytest.mark.slow
def test_no_click_of_ten_thousand_is_lost_in_three_kills(tmp_path: Path, url: str, clicks_url: str) -> None:
    clicks = some_clicks(10_000, n_users=400)
    with closing(kill_amid(tmp_path, url, clicks_url, shuffled_in_part(clicks), N_KILLS)) as store:
        assert_none_lost_or_misplaced(store, clicks)
