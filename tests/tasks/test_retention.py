"""Retention: what is past its limit goes, what serves or may serve stays."""

import json
import sqlite3
import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse import tables
from lakehouse.lineage import stale_partitions
from lakehouse.releases import verify_release
from lakehouse.serving import open_served, read_serving
from lakehouse.store import Lakehouse
from tasks import decide, tracking
from tasks.approval import LOCAL, CannotServe
from tasks.promotions import Promotion
from tasks.retention import apply_retention
from tasks.retention_config import RetentionConfig
from tasks.retention_releases import past_releases, rollback_targets
from tasks.settings import BadSettings, Settings, load_settings
from tests.tasks.small_releases import DAY, small_contents, small_record, small_settings, write_small


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Six releases: 1, 2 and 3 were published in turn, so 3 serves; 4 is challenger; 6 is the newest."""
    settings = small_settings(tmp_path_factory.mktemp("state"), retention={"release_local_copies": 1})
    for number in range(6):
        day = DAY + timedelta(days=number)
        folder = settings.staged_root / "new"
        write_small(folder, small_contents(number), day)
        record = small_record(day, methods=(), verdict="passed")
        run = tracking.log_day(record, settings)
        version = tracking.register_version(folder, record, run.run_id, settings).version
        if number < 3:
            decide.approve(settings, version)
        else:
            tracking.download_release(version, settings.release_root / LOCAL, settings)
    tracking.set_challenger("4", settings)
    lakehouse = Lakehouse(settings.lakehouse_root)
    for day in (DAY - timedelta(days=200), DAY):
        lakehouse.replace(tables.EXPOSURE, day, tables.EXPOSURE.schema.empty_table())
        refused = tables.quarantine(tables.EXPOSURE)
        row = {"row_number": [0], "reason": ["torn"], "row": ["{}"]}
        lakehouse.replace(refused, day, pa.table(row, schema=refused.schema))
        for root in (settings.staged_root, settings.var / "data_docs"):
            (root / day.isoformat()).mkdir(parents=True)
    age(lakehouse, settings, 100)
    return settings


def copies(settings: Settings) -> set[str]:
    by_digest = {release.release_digest: release.version for release in tracking.list_releases(settings)}
    return {by_digest[path.name] for path in (settings.release_root / LOCAL).iterdir() if path.is_dir()}


def test_dry_run_deletes_nothing_and_tells_what_would_go(settings: Settings) -> None:
    report = apply_retention(settings, is_dry_run=True)
    assert len(report.local_releases) == 2
    assert report.staged == report.data_docs == (str(DAY - timedelta(days=200)),)
    assert copies(settings) == set("123456")


def test_what_is_past_its_limit_goes_and_what_serves_or_may_serve_stays(settings: Settings) -> None:
    report = apply_retention(settings)
    # 3 serves and is champion, 2 is next in a rollback, 4 is challenger, 6 is the newest.
    assert copies(settings) == set("2346")
    assert report.quarantine == (f"quarantine/exposure/{DAY - timedelta(days=200)}",)
    lakehouse = Lakehouse(settings.lakehouse_root)
    assert lakehouse.days(tables.quarantine(tables.EXPOSURE)) == [DAY]
    assert lakehouse.days(tables.EXPOSURE) == [DAY - timedelta(days=200), DAY]
    assert not (settings.staged_root / str(DAY - timedelta(days=200))).exists()
    assert (settings.staged_root / str(DAY)).exists()
    assert (settings.var / "data_docs" / str(DAY)).exists()
    serving = read_serving(settings.release_root)
    assert verify_release(settings.release_root / serving.local_path).digest == serving.release_digest
    again = apply_retention(settings)
    assert again.local_releases == again.staged == again.data_docs == again.quarantine == ()


def test_release_whose_copy_was_deleted_serves_again_after_a_rollback(settings: Settings) -> None:
    assert decide.rollback(settings, "1").status == "published"
    assert open_served(settings.release_root) is not None


def aged_in_mlflow(settings: Settings) -> None:
    """Make what MLflow holds a month old."""
    ago = int((time.time() - 30 * 86_400) * 1000)
    with closing(sqlite3.connect(settings.var / "mlflow.db")) as store, store:
        store.execute("update model_versions set creation_time = ?", (ago,))
        store.execute("update runs set start_time = ?", (ago,))


def logged(settings: Settings) -> tuple[set[str], set[int]]:
    """Versions that are there, and the days with a run, counted from the first."""
    versions = {release.version for release in tracking.list_releases(settings)}
    return versions, {(day - DAY).days for day in tracking.list_logged_days(settings)}


def test_releases_past_the_limit_leave_mlflow_and_a_rollback_to_one_names_those_that_can_serve(
    settings: Settings,
) -> None:
    # 1 serves and is champion, 4 is challenger, 6 is the newest; 5 is among the newest two.
    limits = {"release_days": 5, "releases": 2, "release_local_copies": 1}
    limited = settings.model_copy(update={"retention": RetentionConfig(**limits)})
    lakehouse = Lakehouse(settings.lakehouse_root)
    lakehouse.replace(tables.EXPOSURE, DAY + timedelta(days=12), tables.EXPOSURE.schema.empty_table())
    assert apply_retention(limited).releases == ()
    aged_in_mlflow(settings)
    assert apply_retention(settings).releases == ()
    models = settings.var / "mlartifacts" / "models"
    size = n_bytes(models)
    report = apply_retention(limited, is_dry_run=True)
    assert report.releases == (f"2 ({DAY + timedelta(days=1)})", f"3 ({DAY + timedelta(days=2)})")
    assert logged(settings) == (set("123456"), set(range(6)))
    assert n_bytes(models) == size
    tracking.mark_removed(["2"], settings)  # as far as a removal got that was killed
    done = apply_retention(limited)
    assert (done.releases, done.logged_days) == (report.releases[1:], report.logged_days)
    assert logged(settings) == (set("1456"), {0, 3, 4, 5})
    assert n_bytes(models) == pytest.approx(size * 4 / 6, rel=0.01)
    assert apply_retention(limited).releases == tuple(tracking.list_removed(settings)) == ()
    with pytest.raises(CannotServe, match=r"no version 3; .* can serve: 6 \(.*\), 5 \(.*\), 4 \(.*\), 1 "):
        decide.rollback(limited, "3")
    assert read_serving(settings.release_root).version == "1"
    assert decide.approve(limited, "4", reason="it can").status == "published"


def n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def release(version: int, day: int, **changes: object) -> tracking.ReleaseVersion:
    names = tracking.ReleaseVersion.__dataclass_fields__
    given = dict.fromkeys(names, "") | {"version": str(version), "day": DAY + timedelta(days=day)}
    return tracking.ReleaseVersion(**given | {"registered_at": datetime(2022, 1, 1, tzinfo=UTC)} | changes)


def test_newest_needed_and_just_registered_releases_stay_however_old_their_day() -> None:
    # 7, 8 and 9 were backfilled; 8 just now.
    just_now = {"registered_at": datetime(2022, 7, 1, tzinfo=UTC)}
    releases = [*(release(n, n) for n in range(1, 7)), release(7, -4), release(8, -3, **just_now)]
    releases.append(release(9, -5))
    limits = RetentionConfig(release_days=3, releases=2)
    fresh_after = datetime(2022, 6, 1, tzinfo=UTC)
    past = past_releases(releases, DAY + timedelta(days=30), limits, {"3"}, fresh_after)
    assert [gone.version for gone in past] == ["7", "1", "2", "4"]
    assert past_releases(releases, None, limits, {"3"}, fresh_after) == []
    assert past_releases(releases, DAY + timedelta(days=3), limits, set(), fresh_after)[-1].version == "7"


def test_rollback_targets_are_those_of_so_many_rollbacks_in_a_row() -> None:
    def entry(version: str, before: str | None, kind: str = "promotion") -> Promotion:
        return Promotion(version, DAY, "", before, "manual", kind, "", None, "2022-05-03T00:00:00")

    log = [entry("1", None), entry("2", "1"), entry("3", "2"), entry("2", "3", "rollback"), entry("5", "2")]
    assert rollback_targets(log, "5", 1) == ["2"]
    assert rollback_targets(log, "5", 9) == ["2", "1"]
    assert rollback_targets([*log, entry("2", "5")], "2", 9) == ["5", "2"]


def test_without_mlflow_nothing_is_deleted(settings: Settings, tmp_path: Path) -> None:
    before = copies(settings)
    away = settings.model_copy(update={"tracking_uri": "http://127.0.0.1:1"})
    (settings.staged_root / "2020-01-01").mkdir()
    with pytest.raises(tracking.TrackingUnavailable):
        apply_retention(away)
    assert copies(settings) == before
    assert (settings.staged_root / "2020-01-01").exists()


def test_state_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert apply_retention(small_settings(tmp_path / "none")).superseded_files == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("name", "value"), [("RELEASE_LOCAL_COPIES", "0"), ("SUPERSEDED_GRACE_HOURS", "1"), ("NO_SUCH", "1")]
)
def test_limits_that_would_lose_something_are_refused(monkeypatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TRIBUTARY_RETENTION__{name}", value)
    with pytest.raises(BadSettings, match=f"retention.{name.lower()}"):
        load_settings()


OLDEST = date(2026, 1, 1)


def filled(tmp_path: Path, n_days: int, **limits: int) -> tuple[Settings, Lakehouse]:
    """Days of exposure, of clicks made from it, and of two checkpoints each."""
    settings = small_settings(tmp_path, retention={"partition_days": limits}, window_days=2)
    for day in (OLDEST + timedelta(days=n) for n in range(n_days)):
        lakehouse = Lakehouse(settings.lakehouse_root)
        lakehouse.replace(tables.EXPOSURE, day, tables.EXPOSURE.schema.empty_table())
        lakehouse.read(tables.EXPOSURE, day)
        lakehouse.replace(tables.CLICK, day, tables.CLICK.schema.empty_table())
        lakehouse.replace(tables.INCREC_SAMPLE, day, tables.INCREC_SAMPLE.schema.empty_table())
        for method in ("base", "increc"):
            table = tables.CHECKPOINT.schema.empty_table()
            lakehouse.replace(tables.CHECKPOINT, day, table, part=method)
    return settings, Lakehouse(settings.lakehouse_root)


def age(lakehouse: Lakehouse, settings: Settings, n_days: int) -> None:
    """Make all but the markers of the last ``n_days`` days a month old."""
    root = Path(settings.lakehouse_root)
    newest = max(lakehouse.days(tables.EXPOSURE))
    for marker in root.rglob("_COMMIT.json"):
        facts = json.loads(marker.read_text())
        if date.fromisoformat(facts["day"]) <= newest - timedelta(days=n_days):
            marker.write_text(json.dumps(facts | {"committed_at": "2020-01-01T00:00:00+00:00"}))


def days_left(lakehouse: Lakehouse) -> dict[str, list[int]]:
    kept = (tables.EXPOSURE, tables.CLICK, tables.CHECKPOINT)
    return {table.name: [day.day for day in lakehouse.days(table)] for table in kept}


def test_partitions_past_the_limit_of_their_class_go_and_nothing_becomes_stale(tmp_path: Path) -> None:
    settings, lakehouse = filled(tmp_path, 30, logs=20, derived=25, checkpoints=15)
    age(lakehouse, settings, 2)
    told = apply_retention(settings, is_dry_run=True)
    assert len(lakehouse.days(tables.EXPOSURE)) == 30
    report = apply_retention(settings)
    assert report.partitions == told.partitions
    assert "checkpoint/2026-01-15/increc" in report.partitions
    assert days_left(lakehouse) == {
        "exposure": list(range(11, 31)),
        "click": list(range(6, 31)),
        "checkpoint": list(range(16, 31)),
    }
    assert stale_partitions(lakehouse) == []
    assert apply_retention(settings).partitions == ()


def test_nothing_goes_without_a_limit_nor_what_was_just_written(tmp_path: Path) -> None:
    settings, lakehouse = filled(tmp_path / "none", 30)
    age(lakehouse, settings, 2)
    assert apply_retention(settings).partitions == ()
    settings, lakehouse = filled(tmp_path / "fresh", 30, logs=20, derived=20, checkpoints=20)
    assert apply_retention(settings).partitions == ()


def test_days_that_a_backfill_at_work_reads_stay(tmp_path: Path) -> None:
    settings, lakehouse = filled(tmp_path, 60, logs=20, derived=20, checkpoints=20)
    age(lakehouse, settings, 2)
    day = OLDEST + timedelta(days=30)
    lakehouse.replace(tables.CLICK, day, tables.CLICK.schema.empty_table())
    apply_retention(settings)
    left = lakehouse.days(tables.CLICK)
    assert left[0] == day - timedelta(days=max(2, settings.validation.trailing_days) + 1)
    assert day in left
    assert left[left.index(day) + 1] == OLDEST + timedelta(days=40)


def test_limits_below_what_the_next_day_needs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"partition_days.logs is 2, but the next day needs"):
        small_settings(tmp_path, retention={"partition_days": {"logs": 2}}, window_days=14)


def test_removed_partition_is_gone_at_once_and_its_files_after_the_grace_period(tmp_path: Path) -> None:
    lakehouse = Lakehouse(tmp_path)
    day = date(2026, 1, 1)
    lakehouse.replace(tables.EXPOSURE, day, tables.EXPOSURE.schema.empty_table())
    lakehouse.remove(tables.EXPOSURE, day)
    assert lakehouse.days(tables.EXPOSURE) == []
    assert lakehouse.sweep(tables.EXPOSURE, timedelta(hours=1)) == 0
    assert lakehouse.sweep(tables.EXPOSURE, timedelta(0)) == 1
