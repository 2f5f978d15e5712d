"""Clicks become lists: whatever order, however often, through failures; and every bad input has an answer."""

import itertools
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import redis

from nearline import click_worker
from nearline.candidates import StoreUnavailable
from nearline.click_config import NearlineConfig
from nearline.click_metrics import ClickMetrics, read_statuses
from nearline.click_scorer import ClickScorer
from nearline.click_source import ClickSource, open_click_source
from nearline.click_worker import LIST_NAME, ClickWorker, GaveUp
from nearline.clicks import Click
from nearline.served_scorer import ServedScorer
from nearline.store import OnlineStore, open_store
from tests.conftest import skip_or_fail
from tests.nearline.small_served import N_USERS, START, by_user, expected_list, publish, some_clicks
from tests.nearline.test_served_scorer import wait_for

K = 12
# Where nothing dies, no worker may claim what a slow one still has.
PATIENT = NearlineConfig(k=K, claim_after_seconds=60.0, batch_size=8)
CONFIG = NearlineConfig(k=K, claim_after_seconds=1.0, max_deliveries=3, patience_seconds=2.0, batch_size=8)


@dataclass
class World:
    """A release, a store and a source; workers as they are asked for."""

    root: Path
    store_url: str
    clicks_url: str
    source: ClickSource
    store: OnlineStore

    @staticmethod
    @contextmanager
    def open(root: Path, store_url: str, clicks_url: str) -> "Iterator[World]":
        """Open store and source for looking at them."""
        with (
            closing(open_store(store_url)) as store,
            closing(open_click_source(clicks_url, worker="test")) as source,
        ):
            yield World(root, store_url, clicks_url, source, store)

    @contextmanager
    def worker(self, name: str = "w", config: NearlineConfig = CONFIG) -> Iterator[ClickWorker]:
        """Build a worker that has its own connections."""
        with ExitStack() as stack:
            metrics = ClickMetrics(self.root / "workers", name)
            scorers = stack.enter_context(closing(ServedScorer(self.root, metrics.count)))
            store = stack.enter_context(closing(open_store(self.store_url)))
            source = stack.enter_context(
                closing(
                    open_click_source(
                        self.clicks_url, worker=name, claim_after_seconds=config.claim_after_seconds
                    )
                )
            )
            yield ClickWorker(source, store, scorers, config, metrics)

    def work(self, until: Callable[[], bool] | None = None, n_workers: int = 1, **given) -> dict[str, int]:
        """Let workers run until nothing is left, or ``until``; give the sum of their counts."""
        failures: list[BaseException] = []
        workers: list[ClickWorker] = []

        def run(name: str) -> None:
            try:
                with self.worker(name, **given) as worker:
                    workers.append(worker)
                    worker.run()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=[f"w{at}"]) for at in range(n_workers)]
        for thread in threads:
            thread.start()
        is_over = until or (lambda: self.source.backlog() == 0)
        wait_for(lambda: failures or (len(workers) == n_workers and is_over()))
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(60)
        if failures:
            raise failures[0]
        told = [status.counts for status in read_statuses(self.root / "workers")]
        return {name: sum(counts[name] for counts in told) for name in told[0]}

    def assert_lists(self, clicks: list[Click], seed: int = 0) -> None:
        """Check every user's list against the batch's for all of the clicks."""
        for user, own in by_user(clicks).items():
            found = self.store.read(LIST_NAME, user)
            assert found.item_ids.tolist() == expected_list(user, own, K, seed), user
            newest = max(click.event_time for click in own)
            assert np.datetime64(found.event_time, "us").astype(np.int64) == newest


@pytest.fixture
def world(tmp_path: Path, url: str, clicks_url: str) -> Iterator[World]:
    root = tmp_path / "releases"
    publish(root)
    with World.open(root, url, clicks_url) as world:
        yield world


def shuffled(clicks: list[Click], seed: int = 0) -> list[Click]:
    order = np.random.default_rng(seed).permutation(len(clicks))
    return [clicks[at] for at in order]


def test_clicks_become_the_lists_of_the_batch(world: World) -> None:
    clicks = some_clicks(150)
    world.source.send(clicks)
    counts = world.work()
    world.assert_lists(clicks)
    assert counts["clicks"] == 150
    assert counts["unknown_users"] == sum(click.user_id >= N_USERS for click in clicks)
    assert counts["unknown_items"] == sum(click.item_id >= 60 for click in clicks)
    assert counts["lists"] < 150
    assert (counts["put_aside"], counts["failed"], counts["outdated"]) == (0, 0, 0)


def test_clicks_out_of_order_and_repeated_leave_the_same_lists(world: World) -> None:
    clicks = some_clicks(120)
    world.source.send([*shuffled(clicks), *shuffled(clicks, seed=1), *clicks[:20]])
    counts = world.work()
    world.assert_lists(clicks)
    assert counts["clicks"] == 260
    assert counts["repeated"] >= 140


def test_late_click_changes_the_list_and_keeps_its_time(world: World) -> None:
    late, newer = Click(4, 10, START), Click(4, 30, START + 5_000_000)
    world.source.send([newer])
    world.work()
    before = world.store.read(LIST_NAME, 4)
    world.source.send([late])
    world.work()
    world.assert_lists([newer, late])
    assert world.store.read(LIST_NAME, 4).item_ids.tolist() != before.item_ids.tolist()


def test_click_with_no_known_trigger_gets_popular_items_and_is_counted(world: World) -> None:
    world.source.send([Click(0, 999, START), Click(N_USERS + 1, 998, START)])
    counts = world.work()
    assert world.store.read(LIST_NAME, 0).item_ids.tolist() == list(range(58, 58 - K, -1))
    assert (counts["fallbacks"], counts["unknown_items"], counts["unknown_users"]) == (2, 2, 1)


def test_malformed_events_are_put_aside_and_hold_nothing_up(world: World, kind: str) -> None:
    world.source.send([Click(3, 5, START)])
    future = Click(3, 6, int(1e6 * (time.time() + 3600)))
    if kind == "sqlite":
        path = Path(world.clicks_url.removeprefix("file://"))
        with path.open("a") as file:
            file.write("no click\n\n" + json.dumps({"user_id": 3}) + "\n")
    else:
        server, prefix = world.source._redis, world.source._stream
        for fields in ({"text": "no click"}, {"user_id": "x", "item_id": 1, "event_time": 1}, {"user_id": 3}):
            server.xadd(prefix, fields)
    world.source.send([future, Click(3, 7, START + 1)])
    counts = world.work()
    world.assert_lists([Click(3, 5, START), Click(3, 7, START + 1)])
    assert (counts["put_aside"], counts["clicks"]) == (4, 2)


def test_event_that_always_fails_is_put_aside_and_takes_no_others_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks = some_clicks(30, n_users=5)
    poison = Click(9, 1, START)
    answer = ClickScorer.answer

    def fail(self, user_id: int, *given):
        if user_id == 9:
            raise RuntimeError("a bug that this user alone meets")
        return answer(self, user_id, *given)

    monkeypatch.setattr(ClickScorer, "answer", fail)
    world.source.send([*clicks[:3], poison, *clicks[3:]])
    counts = world.work()
    world.assert_lists(clicks)
    assert world.store.read(LIST_NAME, 9) is None
    assert (counts["put_aside"], counts["failed"]) == (1, CONFIG.max_deliveries)


def test_new_release_is_taken_over_without_losing_a_click(world: World) -> None:
    clicks = some_clicks(200)
    sent = threading.Event()

    def send() -> None:
        for at in range(0, 200, 4):
            world.source.send(clicks[at : at + 4])
            time.sleep(0.02)
            if at == 80:
                publish(world.root, seed=1)
        sent.set()

    sender = threading.Thread(target=send)
    sender.start()
    counts = world.work(until=lambda: sent.is_set() and world.source.backlog() == 0)
    sender.join()
    assert (counts["clicks"], counts["release_exchanges"]) == (200, 1)
    last = max(clicks, key=lambda click: click.event_time).user_id
    found = world.store.read(LIST_NAME, last)
    assert found.item_ids.tolist() == expected_list(last, by_user(clicks)[last], K, seed=1)


def test_store_that_comes_back_in_time_costs_no_click(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    n_refused = itertools.count()
    with closing(open_store(world.store_url)) as probe:
        kind = type(probe)
    note = kind.note_clicks

    def refuse(self, *given, **named):
        if next(n_refused) < 2:
            raise StoreUnavailable("the online store is away")
        return note(self, *given, **named)

    monkeypatch.setattr(kind, "note_clicks", refuse)
    clicks = some_clicks(20)
    world.source.send(clicks)
    counts = world.work()
    world.assert_lists(clicks)
    assert counts["retries"] == 2


def take_away(patch: pytest.MonkeyPatch, world: World) -> None:
    """Let the store refuse every list."""

    def refuse(self, *given, **named):
        raise StoreUnavailable("the online store is away")

    with closing(open_store(world.store_url)) as probe:
        patch.setattr(type(probe), "write_many", refuse)


def test_store_that_stays_away_ends_the_worker_and_keeps_the_clicks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks = some_clicks(20)
    world.source.send(clicks)
    with monkeypatch.context() as patch:
        take_away(patch, world)
        with pytest.raises(GaveUp, match="is away; clicks wait where they are, none is lost"):
            world.work()
        assert world.source.backlog() == 20
    world.work()
    world.assert_lists(clicks)


def test_outages_of_the_store_put_no_click_aside(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    clicks = some_clicks(20)
    world.source.send(clicks)
    hasty = CONFIG.model_copy(update={"patience_seconds": 0.1, "max_deliveries": 1})
    with monkeypatch.context() as patch:
        take_away(patch, world)
        for _ in range(3):
            with pytest.raises(GaveUp):
                world.work(config=hasty)
    counts = world.work(config=hasty)
    world.assert_lists(clicks)
    assert (counts["put_aside"], counts["clicks"]) == (0, 20)


def test_several_workers_on_a_stream_leave_the_newest_list_of_every_user(
    tmp_path: Path, redis_url: str
) -> None:
    root = tmp_path / "releases"
    publish(root)
    clicks = some_clicks(300, n_users=4)
    with (
        closing(open_store(redis_url)) as store,
        closing(open_click_source(redis_url, worker="test")) as source,
    ):
        world = World(root, redis_url, redis_url, source, store)
        source.send(shuffled(clicks))
        counts = world.work(n_workers=3, config=PATIENT)
        world.assert_lists(clicks)
    assert counts["clicks"] == 300


def test_list_never_goes_back_in_time_while_workers_race(tmp_path: Path, redis_url: str) -> None:
    root = tmp_path / "releases"
    publish(root)
    clicks = some_clicks(200, n_users=2)
    seen: dict[int, list] = {0: [], 1: []}
    with (
        closing(open_store(redis_url)) as store,
        closing(open_click_source(redis_url, worker="test")) as source,
    ):
        world = World(root, redis_url, redis_url, source, store)

        def look() -> bool:
            for user, times in seen.items():
                if found := store.read(LIST_NAME, user):
                    times.append(found.event_time)
            return source.backlog() == 0

        source.send(clicks)
        world.work(until=look, n_workers=2)
    for times in seen.values():
        assert times == sorted(times)
        assert len(set(times)) > 3


def test_metrics_tell_release_latency_and_backlog_while_it_runs(world: World) -> None:
    world.source.send(some_clicks(10))
    folder = world.root / "workers"
    seen = []

    def told() -> bool:
        seen[:] = [status for status in read_statuses(folder) if status.state == "running"]
        return bool(seen) and seen[0].counts["clicks"] == 10

    world.work(until=told)
    (status,) = seen
    assert (status.backlog, status.day, len(status.release)) == (0, "2022-05-03", 64)
    assert status.quantile(0.99) is not None
    assert read_statuses(folder)[0].state == "stopped"


def test_list_is_called_as_documented() -> None:
    assert click_worker.LIST_NAME == "pi2i"


@contextmanager
def redis_server(folder: Path, port: int) -> Iterator[subprocess.Popen]:
    """Run a Redis that keeps every write."""
    keep = ["--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    server = subprocess.Popen(["redis-server", "--port", str(port), *keep], stdout=subprocess.DEVNULL)
    try:
        with closing(redis.Redis(port=port)) as client:
            wait_for(lambda: _answers(client))
        yield server
    finally:
        server.kill()
        server.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return client.ping()
    except redis.RedisError:
        return False


def test_redis_that_is_killed_and_comes_back_loses_no_click(tmp_path: Path) -> None:
    if not shutil.which("redis-server"):
        skip_or_fail("no redis-server: apt install redis-server")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    root, url = tmp_path / "releases", f"redis://127.0.0.1:{port}/0"
    publish(root)
    clicks = some_clicks(150, n_users=60)
    with redis_server(tmp_path, port) as server, World.open(root, url, url) as world:
        world.source.send(clicks)
        config = CONFIG.model_copy(update={"patience_seconds": 60.0})
        begun = threading.Event()

        def kill() -> None:
            begun.wait(60)
            server.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with ExitStack() as stack:

            def is_over() -> bool:
                try:
                    left = world.source.backlog()
                except StoreUnavailable:
                    server.wait()
                    stack.enter_context(redis_server(tmp_path, port))
                    return False
                if left < 140:
                    begun.set()
                return left == 0

            counts = world.work(until=is_over, config=config)
            world.assert_lists(clicks)
        killer.join()
    assert counts["retries"] >= 1
