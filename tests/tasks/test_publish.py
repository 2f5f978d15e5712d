"""Publishing: the world follows the alias, failures leave the old release serving, policy keeps its word."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from lakehouse.releases import ReleaseCorrupt, verify_release
from lakehouse.serving import open_served
from nearline.mnr_lists import list_name
from nearline.store import StoreUnavailable, open_store, read_served
from tasks import tracking
from tasks.approval import NotApproved
from tasks.promotions import BrokenLog, append_promotion, read_promotions
from tasks.publish import publish_release, served_release
from tasks.publish_lock import PublishLocked, publish_lock
from tasks.settings import Settings
from tests.tasks.registered import DAYS, logged, served, versions
from tests.tasks.small_releases import (
    DAY,
    USERS,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def start(function: Callable[..., None], *arguments: object) -> BaseProcess:
    """Run a function of this file in a process of its own, which has imported the tasks already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tasks.publish", "tests.tasks.small_releases"])
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def publish_and_note(settings: Settings, note: Path) -> None:
    note.write_text(publish_release(settings).status)


def publish_and_die_at(settings: Settings, where: str) -> None:
    pytest.MonkeyPatch().setattr(where, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    publish_release(settings)


def hold_lock(root: Path, held: Path) -> None:
    with publish_lock(root, 5):
        held.touch()
        time.sleep(60)


@pytest.fixture(autouse=True)
def importable_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY)


def test_without_a_champion_there_is_nothing_to_publish(settings: Settings) -> None:
    assert publish_release(settings).status == "nothing to publish"
    assert served_release(settings) is None
    assert logged(settings) == []


def test_without_a_registered_model_there_is_nothing_to_publish(settings: Settings) -> None:
    other = settings.model_copy(update={"model_name": "other"})
    assert publish_release(other).status == "nothing to publish"


def test_champion_is_served_from_pointer_store_and_verified_copy(settings: Settings, move_alias) -> None:
    move_alias("1")
    report = publish_release(settings)
    assert (report.status, report.version, report.day, report.n_users) == ("published", "1", DAY, len(USERS))
    assert served(settings) == ("1", "1")
    facts = served_release(settings)
    assert facts["release_digest"] == report.release_digest
    assert facts["artifact_address"].startswith("file://")
    assert json.loads(json.dumps(facts))["day"] == "2022-05-03"
    release = open_served(settings.release_root)
    assert verify_release(release.folder).digest == report.release_digest
    store = open_store(settings.online_store_url)
    merged = release.candidates("merged")
    for user, item_ids in zip(merged.user_ids, merged.item_ids, strict=True):
        assert read_served(store, user).item_ids.tolist() == item_ids.tolist()
    assert logged(settings) == [(None, "1", "manual", "promotion")]


def test_publishing_again_changes_nothing(settings: Settings, move_alias) -> None:
    move_alias("1")
    publish_release(settings)
    before = {
        path: path.stat().st_mtime_ns
        for path in settings.release_root.rglob("*")
        if path.name != "publish.lock"
    }
    report = publish_release(settings)
    assert (report.status, report.version, report.n_users) == ("unchanged", "1", 0)
    after = {
        path: path.stat().st_mtime_ns
        for path in settings.release_root.rglob("*")
        if path.name != "publish.lock"
    }
    assert after == before


def test_lists_of_no_release_stay(settings: Settings, move_alias) -> None:
    store = open_store(settings.online_store_url)
    row = {"release": "r", "event_times": np.datetime64("2022-05-03")}
    for name in (list_name("search"), "merged@of-long-ago"):
        store.write_many(name, np.array([7]), np.array([[5]]), np.ones((1, 1)), **row)
    for version in ("1", "2"):
        move_alias(version)
        publish_release(settings)
    assert store.read(list_name("search"), 7).item_ids.tolist() == [5]
    assert "merged@of-long-ago" not in store.list_names()


def test_reader_that_opened_a_release_keeps_it(settings: Settings, move_alias) -> None:
    move_alias("1")
    publish_release(settings)
    opened = open_served(settings.release_root)
    move_alias("2")
    publish_release(settings)
    assert opened.manifest.day == DAYS["1"]
    assert opened.candidates("merged").item_ids.shape == (5, 5)
    assert verify_release(opened.folder) == opened.manifest
    assert served(settings) == ("2", "2")


def test_store_keeps_the_served_and_the_previous_release_only(settings: Settings, move_alias) -> None:
    for version in "123":
        move_alias(version)
        publish_release(settings)
    store = open_store(settings.online_store_url)
    kept = {
        facts["version"]
        for facts in versions(settings)
        if f"merged@{facts['release_digest'][:16]}" in store.list_names()
    }
    store.close()
    assert kept == {"2", "3"}


@pytest.mark.parametrize("damage", ["changed", "missing", "gone"])
def test_damaged_artifacts_leave_the_old_release_serving(settings: Settings, move_alias, damage: str) -> None:
    move_alias("1")
    publish_release(settings)
    pointer = (settings.release_root / "SERVING.json").read_bytes()
    move_alias("2")
    address = Path(tracking.champion(settings).artifact_address.removeprefix("file://"))
    (table,) = address.rglob("i2i_table.parquet")
    kept = table.read_bytes()
    if damage == "changed":
        table.write_bytes(kept[:-1] + b"x")
    elif damage == "missing":
        table.unlink()
    else:
        address.rename(address.with_name("elsewhere"))
    with pytest.raises(ReleaseCorrupt, match="version 2 of retrieval at file://") as caught:
        publish_release(settings)
    assert "\n" not in str(caught.value)
    assert (settings.release_root / "SERVING.json").read_bytes() == pointer
    assert served(settings) == ("1", "1")
    assert len(logged(settings)) == 1
    if damage == "gone":
        address.with_name("elsewhere").rename(address)
    table.write_bytes(kept)
    assert publish_release(settings).status == "published"
    assert served(settings) == ("2", "2")


def test_damaged_local_copy_is_fetched_again(settings: Settings, move_alias) -> None:
    move_alias("1")
    publish_release(settings)
    folder = open_served(settings.release_root).folder
    (folder / "i2i_table.parquet").write_bytes(b"")
    publish_release(settings)
    assert verify_release(folder).day == DAY


def test_store_that_is_down_leaves_the_old_release_serving(settings: Settings, move_alias) -> None:
    move_alias("1")
    publish_release(settings)
    move_alias("2")
    down = settings.model_copy(update={"online_store_url": "redis://127.0.0.1:1/0"})
    with pytest.raises(StoreUnavailable):
        publish_release(down)
    assert served(settings) == ("1", "1")


def test_emptied_store_is_loaded_again(settings: Settings, move_alias) -> None:
    move_alias("1")
    publish_release(settings)
    for path in settings.var.glob("online.db*"):
        path.unlink()
    assert publish_release(settings).status == "published"
    assert served(settings) == ("1", "1")
    assert len(logged(settings)) == 1


@pytest.mark.parametrize(
    ("where", "serves"),
    [
        ("tasks.publish.open_release", ("1", "1")),
        ("tasks.publish.write_serving", ("1", "1")),
        ("nearline.sqlite_store.SqliteStore.serve", ("2", "1")),
        ("tasks.publish.append_promotion", ("2", "2")),
    ],
    ids=["after the download", "before the flip", "after the flip", "before the log entry"],
)
def test_publish_killed_anywhere_converges_when_run_again(
    settings: Settings, move_alias, where: str, serves: tuple[str, str]
) -> None:
    move_alias("1")
    publish_release(settings)
    move_alias("2")
    killed = start(publish_and_die_at, settings, where)
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert served(settings) == serves
    assert publish_release(settings).status == "published"
    assert served(settings) == ("2", "2")
    assert logged(settings) == [(None, "1", "manual", "promotion"), ("1", "2", "manual", "promotion")]
    assert publish_release(settings).status == "unchanged"


def test_alias_that_moves_meanwhile_is_followed(settings: Settings, move_alias, monkeypatch) -> None:
    move_alias("1")
    fetch = tracking.download_release

    def fetch_while_alias_moves(version: str, *arguments: object) -> Path:
        if version == "1":
            move_alias("3")
        return fetch(version, *arguments)

    monkeypatch.setattr(tracking, "download_release", fetch_while_alias_moves)
    assert publish_release(settings).version == "3"
    assert served(settings) == ("3", "3")
    assert logged(settings) == [(None, "3", "manual", "promotion")]


def test_two_processes_at_once_publish_once(settings: Settings, move_alias, tmp_path: Path) -> None:
    move_alias("2")
    notes = [tmp_path / "first", tmp_path / "second"]
    for publisher in [start(publish_and_note, settings, note) for note in notes]:
        publisher.join(60)
    assert sorted(note.read_text() for note in notes) == ["published", "unchanged"]
    assert served(settings) == ("2", "2")
    assert len(logged(settings)) == 1


def test_held_lock_is_one_clear_line_that_names_its_holder(
    settings: Settings, move_alias, tmp_path: Path
) -> None:
    move_alias("1")
    holder = start(hold_lock, settings.release_root, tmp_path / "held")
    while not (tmp_path / "held").exists():
        time.sleep(0.05)
    started = time.monotonic()
    with pytest.raises(PublishLocked, match=f"held by process {holder.pid} on"):
        publish_release(settings, lock_timeout_seconds=0.3)
    assert time.monotonic() - started < 5
    holder.kill()
    holder.join()
    with publish_lock(settings.release_root, 1):
        pass


def test_log_sorts_by_time_even_when_the_clock_goes_back(settings: Settings, move_alias) -> None:
    move_alias("1")
    publish_release(settings)
    (first,) = read_promotions(settings.release_root)
    late = type(first)(**vars(first) | {"at": "1999-01-01T00:00:00", "reason": "late"})
    append_promotion(settings.release_root, late)
    append_promotion(settings.release_root, late)
    assert [entry.reason == "late" for entry in read_promotions(settings.release_root)] == [False, True, True]
    newest = sorted((settings.release_root / "promotions").iterdir())[-1]
    newest.write_text("{")
    with pytest.raises(BrokenLog, match="restore it"):
        read_promotions(settings.release_root)


def test_alias_on_a_version_that_failed_is_refused_with_its_gates_and_the_old_one_serves_on(
    settings: Settings, move_alias, failed: str
) -> None:
    move_alias("1")
    publish_release(settings)
    move_alias(failed)
    with pytest.raises(NotApproved, match=r"verdict failed \(gates not passed: volume\).*FORCE"):
        publish_release(settings)
    assert served(settings) == ("1", "1")
    assert len(logged(settings)) == 1
