"""Retention: what is past its limit goes, what serves or may serve stays."""

import json
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse import tables
from lakehouse.lineage import stale_partitions
from lakehouse.releases import verify_release
from lakehouse.serving import open_served, read_serving
from lakehouse.store import Lakehouse
from tasks import publish, tracking
from tasks.approval import LOCAL
from tasks.retention import apply_retention
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
            publish.approve(settings, version)
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
    assert publish.rollback(settings, "1").status == "published"
    assert open_served(settings.release_root) is not None


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
