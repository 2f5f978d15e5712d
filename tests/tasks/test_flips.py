"""Readers that poll while releases are published and rolled back never see a mixed or a missing one."""

import multiprocessing
import os
import time
from contextlib import closing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import redis

from lakehouse.releases import verify_release
from lakehouse.serving import open_served, read_serving
from nearline.store import open_store, read_served
from tasks import decide, publish, tracking
from tasks.settings import Settings
from tests.conftest import skip_or_fail
from tests.tasks.small_releases import DAY, USERS, small_contents, small_record, small_settings, write_small

REPOSITORY = Path(__file__).resolve().parents[2]
REDIS = "redis://127.0.0.1:6379/9"
VERSIONS = ("1", "2", "3")


def poll(
    settings: Settings, expected: dict[str, dict[int, list[int]]], stop: Event, answer: Connection
) -> None:
    """Read pointer and store until told to stop; answer with the number of reads and what was wrong."""
    n_reads, wrong, seen = 0, [], set()
    with closing(open_store(settings.online_store_url)) as store:
        while not stop.is_set():
            try:
                serving = read_serving(settings.release_root)
                release = open_served(settings.release_root)
                lists = release.candidates("merged")
                rows = dict(zip(lists.user_ids.tolist(), lists.item_ids.tolist(), strict=True))
                if rows != expected[release.manifest.digest] or serving.release_digest not in expected:
                    wrong.append(f"release {release.manifest.digest}")
                for user in USERS.tolist():
                    found = read_served(store, user)
                    if found is None or found.item_ids.tolist() != expected[found.release][user]:
                        wrong.append(f"store, user {user}: {found}")
                    else:
                        seen.add(found.release)
            except Exception as error:
                wrong.append(repr(error))
            n_reads += 1
            if n_reads == 1:
                answer.send("polling")
    answer.send((n_reads, wrong, len(seen)))


@pytest.fixture(params=["sqlite", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Three registered releases, the first published, on each kind of store."""
    changes = {}
    if request.param == "redis":
        changes = {"online_store_url": f"{REDIS}?prefix=flips-{os.getpid()}-{time.time_ns()}"}
        try:
            redis.Redis.from_url(REDIS).ping()
        except redis.RedisError as error:
            skip_or_fail(f"no Redis at {REDIS}: {error}")
    settings = small_settings(tmp_path / "var", **changes)
    for seed, version in enumerate(VERSIONS):
        folder = settings.staged_root / version
        write_small(folder, small_contents(seed), DAY)
        record = small_record(methods=(), verdict="passed", code_version=version)
        run = tracking.log_day(record, settings)
        assert tracking.register_version(folder, record, run.run_id, settings).version == version
    decide.approve(settings, "1")
    return settings


def flip(settings: Settings, n_flips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY)
    expected = {}
    for version in VERSIONS:
        folder = tracking.download_release(version, settings.release_root / "local", settings)
        lists = publish.open_release(folder).candidates("merged")
        rows = zip(lists.user_ids.tolist(), lists.item_ids.tolist(), strict=True)
        expected[verify_release(folder).digest] = dict(rows)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    readers = []
    for _ in range(2):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=poll, args=(settings, expected, stop, theirs))
        process.start()
        readers.append((process, ours))
    for _, ours in readers:
        assert ours.recv() == "polling"
    for number in range(n_flips):
        version = VERSIONS[(number + 1) % 3]
        is_back = version < read_serving(settings.release_root).version
        (decide.rollback if is_back else decide.approve)(settings, version)
        with closing(open_store(settings.online_store_url)) as store:
            assert store.serving()["version"] == read_serving(settings.release_root).version == version
    stop.set()
    for process, ours in readers:
        n_reads, wrong, n_seen = ours.recv()
        process.join()
        assert wrong == []
        assert n_reads > n_flips
        assert n_seen == len(VERSIONS)
        print(f"{n_flips} flips, {n_reads} polls, none mixed or missing")


def test_readers_see_whole_releases_during_flips(settings: Settings, monkeypatch) -> None:
    flip(settings, 12, monkeypatch)


@pytest.mark.slow
def test_readers_see_whole_releases_during_200_flips(settings: Settings, monkeypatch) -> None:
    flip(settings, 200, monkeypatch)
