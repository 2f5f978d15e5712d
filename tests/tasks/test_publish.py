"""Publishing: the world follows the alias, failures leave the old release serving, policy keeps its word."""

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from datetime import date, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from lakehouse.releases import ReleaseCorrupt, verify_release
from lakehouse.serving import open_served, read_serving
from nearline.store import StoreUnavailable, open_store, read_served
from tasks import tracking
from tasks.approval import CannotServe, NotApproved
from tasks.policy import is_rollback_in_force, may_promote, promote_automatically
from tasks.promotions import BrokenLog, append_promotion, read_promotions
from tasks.publish import (
    NothingToApprove,
    NothingToRollBack,
    approve,
    publish_release,
    rollback,
    served_release,
)
from tasks.publish_lock import PublishLocked, publish_lock
from tasks.settings import Settings
from tests.tasks.small_releases import (
    DAY,
    USERS,
    small_contents,
    small_record,
    small_settings,
    write_small,
)

REPOSITORY = Path(__file__).resolve().parents[2]
DAYS = {version: DAY + timedelta(days=number) for number, version in enumerate("123")}


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with three registered releases: versions 1, 2 and 3 of three days."""
    var = tmp_path_factory.mktemp("state")
    settings = small_settings(var)
    for seed, (version, day) in enumerate(DAYS.items()):
        folder = settings.staged_root / day.isoformat()
        write_small(folder, small_contents(seed), day)
        record = small_record(day, methods=(), verdict="passed")
        run = tracking.log_day(record, settings)
        assert tracking.register_version(folder, record, run.run_id, settings).version == version
    return var


@pytest.fixture
def settings(registered: Path, tmp_path: Path) -> Settings:
    """A copy of the state folder of its own, artifacts included."""
    var = tmp_path / "var"
    shutil.copytree(registered, var)
    addresses = {
        "experiments": "artifact_location",
        "runs": "artifact_uri",
        "logged_models": "artifact_location",
    }
    with sqlite3.connect(var / "mlflow.db") as database:
        for table, column in addresses.items():
            database.execute(
                f"update {table} set {column} = replace({column}, ?, ?)", (str(registered), str(var))
            )
    return small_settings(var, promotion="auto")


@pytest.fixture
def move_alias(settings: Settings) -> Callable[[str], None]:
    """Move the alias champion as a person does in MLflow's own pages."""

    def move(version: str) -> None:
        with tracking.connection.connected(settings) as client:
            client.set_registered_model_alias(settings.model_name, "champion", version)

    return move


def served(settings: Settings) -> tuple[str | None, str | None]:
    """The version that the pointer names, and the one that the online store serves to every user."""
    pointer = read_serving(settings.release_root)
    store = open_store(settings.online_store_url)
    releases = {found and found.release for user in USERS if (found := read_served(store, user)) or True}
    store.close()
    assert len(releases) == 1
    digest = releases.pop()
    by_digest = {facts["release_digest"]: facts["version"] for facts in _versions(settings)}
    return pointer and pointer.version, by_digest.get(digest)


def _versions(settings: Settings) -> list[dict]:
    return [tracking.find_version(day, settings) for day in DAYS.values()]


def log(settings: Settings) -> list[tuple[str | None, str, str, str]]:
    return [(p.from_version, p.version, p.actor, p.kind) for p in read_promotions(settings.release_root)]


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
    assert log(settings) == []


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
    assert log(settings) == [(None, "1", "manual", "promotion")]


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
        for facts in _versions(settings)
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
    assert len(log(settings)) == 1
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
    assert len(log(settings)) == 1


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
    assert log(settings) == [(None, "1", "manual", "promotion"), ("1", "2", "manual", "promotion")]
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
    assert log(settings) == [(None, "3", "manual", "promotion")]


def test_two_processes_at_once_publish_once(settings: Settings, move_alias, tmp_path: Path) -> None:
    move_alias("2")
    notes = [tmp_path / "first", tmp_path / "second"]
    for publisher in [start(publish_and_note, settings, note) for note in notes]:
        publisher.join(60)
    assert sorted(note.read_text() for note in notes) == ["published", "unchanged"]
    assert served(settings) == ("2", "2")
    assert len(log(settings)) == 1


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


def test_rollback_returns_to_the_release_before_and_twice_goes_further_back(
    settings: Settings, move_alias
) -> None:
    for version in "123":
        move_alias(version)
        publish_release(settings)
    report = rollback(settings, reason="clicks fell")
    assert (report.status, report.version, report.from_version) == ("published", "2", "3")
    assert tracking.champion(settings).version == "2"
    assert served(settings) == ("2", "2")
    assert read_promotions(settings.release_root)[-1].reason == "clicks fell"
    assert rollback(settings).version == "1"
    with pytest.raises(NothingToRollBack, match="no release served before version 1"):
        rollback(settings)
    assert log(settings)[-2:] == [("3", "2", "manual", "rollback"), ("2", "1", "manual", "rollback")]


def test_rollback_to_a_named_version(settings: Settings, move_alias) -> None:
    with pytest.raises(NothingToRollBack, match="nothing is served"):
        rollback(settings)
    for version in "123":
        move_alias(version)
        publish_release(settings)
    with pytest.raises(CannotServe, match=r"no version 9; releases that can serve: 3 \(2022-05-05\), 2"):
        rollback(settings, "9")
    with pytest.raises(NothingToRollBack, match="version 3 serves already"):
        rollback(settings, "3")
    assert rollback(settings, "1").version == "1"
    assert served(settings) == ("1", "1")


def test_automatic_promotion_takes_policy_a_forward_run_and_a_later_day(settings: Settings) -> None:
    assert may_promote(DAYS["2"], False, settings)[0]
    manual = settings.model_copy(update={"promotion": "manual"})
    assert may_promote(DAYS["2"], False, manual) == (
        False,
        "promotion is manual: a reviewer moves the alias champion",
    )
    assert may_promote(DAYS["2"], True, settings) == (False, "a backfill never promotes")
    assert promote_automatically("2", DAYS["2"], False, settings)[0]
    assert tracking.champion(settings).version == "2"
    for day in (DAYS["1"], DAYS["2"]):
        is_allowed, reason = promote_automatically("1", day, False, settings)
        assert (is_allowed, "promoted already" in reason) == (False, True)
    publish_release(settings)
    assert log(settings) == [(None, "2", "auto", "promotion")]
    assert not may_promote(DAYS["2"], False, settings)[0]
    assert may_promote(DAYS["3"], False, settings)[0]


def test_rollback_stops_automatic_promotion_until_a_person_promotes(settings: Settings, move_alias) -> None:
    for version in "12":
        promote_automatically(version, DAYS[version], False, settings)
        publish_release(settings)
    assert not is_rollback_in_force(settings)
    rollback(settings)
    assert is_rollback_in_force(settings)
    assert promote_automatically("3", DAYS["3"], False, settings) == (
        False,
        "a rollback is in force: only a person promotes",
    )
    assert tracking.champion(settings).version == "1"
    move_alias("3")
    assert not is_rollback_in_force(settings)
    publish_release(settings)
    assert not is_rollback_in_force(settings)
    assert may_promote(date(2022, 6, 1), False, settings)[0]
    actors = [(version, actor, kind) for _, version, actor, kind in log(settings)]
    assert actors[-2:] == [("1", "manual", "rollback"), ("3", "manual", "promotion")]


def test_moving_the_alias_back_in_mlflow_is_a_rollback_even_before_it_is_published(
    settings: Settings, move_alias
) -> None:
    for version in "12":
        promote_automatically(version, DAYS[version], False, settings)
        publish_release(settings)
    move_alias("1")
    assert is_rollback_in_force(settings)
    assert not may_promote(DAYS["3"], False, settings)[0]
    publish_release(settings)
    assert is_rollback_in_force(settings)
    assert log(settings)[-1] == ("2", "1", "manual", "rollback")


def test_day_after_a_rolled_back_one_is_not_promoted_by_a_rerun(settings: Settings, move_alias) -> None:
    for version in "123":
        promote_automatically(version, DAYS[version], False, settings)
        publish_release(settings)
    rollback(settings)
    approve(settings, "2")
    assert may_promote(DAYS["3"], False, settings) == (
        False,
        f"a release of {DAYS['3']} was promoted already, {DAYS['3']} is not later",
    )


def test_approving_promotes_the_challenger_and_ends_a_rollback(settings: Settings, move_alias) -> None:
    with pytest.raises(NothingToApprove, match="no challenger"):
        approve(settings)
    for version in "12":
        move_alias(version)
        publish_release(settings)
    rollback(settings)
    report = approve(settings, "1", reason="this one stays")
    assert report.status == "unchanged"
    assert not is_rollback_in_force(settings)
    assert log(settings)[-1] == ("1", "1", "manual", "approval")
    tracking.set_challenger("3", settings)
    assert approve(settings).version == "3"
    assert served(settings) == ("3", "3")
    assert not is_rollback_in_force(settings)


def test_rollback_whose_publish_failed_is_in_force_and_finished_by_the_next_publish(
    settings: Settings,
) -> None:
    for version in "12":
        promote_automatically(version, DAYS[version], False, settings)
        publish_release(settings)
    down = settings.model_copy(update={"online_store_url": "redis://127.0.0.1:1/0"})
    with pytest.raises(StoreUnavailable):
        rollback(down, reason="clicks fell")
    assert served(settings) == ("2", "2")
    assert is_rollback_in_force(settings)
    publish_release(settings)
    assert served(settings) == ("1", "1")
    assert read_promotions(settings.release_root)[-1].reason == "clicks fell"


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


@pytest.fixture
def failed(settings: Settings) -> str:
    """A fourth version, whose gate `volume` failed."""
    day = DAY + timedelta(days=3)
    folder = settings.staged_root / day.isoformat()
    write_small(folder, small_contents(9), day)
    record = small_record(day, methods=())
    run = tracking.log_day(record, settings)
    return tracking.register_version(folder, record, run.run_id, settings).version


def test_alias_on_a_version_that_failed_is_refused_with_its_gates_and_the_old_one_serves_on(
    settings: Settings, move_alias, failed: str
) -> None:
    move_alias("1")
    publish_release(settings)
    move_alias(failed)
    with pytest.raises(NotApproved, match=r"verdict failed \(gates not passed: volume\).*FORCE"):
        publish_release(settings)
    assert served(settings) == ("1", "1")
    assert len(log(settings)) == 1


def test_forced_version_is_served_and_its_reason_kept(settings: Settings, move_alias, failed: str) -> None:
    move_alias("1")
    publish_release(settings)
    approve(settings, failed, force="the feed lost an hour, known")
    assert read_serving(settings.release_root).version == failed
    assert (
        read_promotions(settings.release_root)[-1].reason == "approved; forced: the feed lost an hour, known"
    )


def test_tag_set_in_mlflow_forces_as_well(settings: Settings, move_alias, failed: str) -> None:
    tracking.force(failed, "known", settings)
    move_alias(failed)
    assert publish_release(settings).version == failed
    assert read_promotions(settings.release_root)[-1].reason.endswith("forced: known")


def test_approving_a_failed_version_without_a_reason_moves_nothing(
    settings: Settings, move_alias, failed: str
) -> None:
    move_alias("2")
    with pytest.raises(NotApproved, match="gates not passed"):
        approve(settings, failed)
    with pytest.raises(NotApproved, match="FORCE is empty"):
        approve(settings, failed, force="  ")
    assert tracking.champion(settings).version == "2"


def test_rollback_to_a_release_that_is_gone_names_those_that_can_serve(
    settings: Settings, move_alias
) -> None:
    for version in "123":
        move_alias(version)
        publish_release(settings)
    with tracking.connection.connected(settings) as client:
        client.delete_model_version(settings.model_name, "2")
    with pytest.raises(CannotServe, match=r"no version 2; releases that can serve: 3 \(.*\), 1 \("):
        rollback(settings)
    assert tracking.champion(settings).version == "3"
    assert read_serving(settings.release_root).version == "3"


def test_approving_a_version_whose_artifacts_are_gone_moves_nothing(settings: Settings, move_alias) -> None:
    move_alias("1")
    publish_release(settings)
    shutil.rmtree(tracking.find_release("3", settings).artifact_address.removeprefix("file://"))
    with pytest.raises(CannotServe, match=r"version 3 of retrieval at .* cannot be fetched"):
        approve(settings, "3")
    assert tracking.champion(settings).version == "1"
    assert publish_release(settings).status == "unchanged"


def test_rollback_of_nothing_leaves_no_trace(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "empty")
    with pytest.raises(NothingToRollBack):
        rollback(settings)
    assert not settings.release_root.exists()
