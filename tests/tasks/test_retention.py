"""Retention: what is past its limit goes, what serves or may serve stays."""

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse import tables
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
    settings = small_settings(tmp_path_factory.mktemp("state"), retention={"local_releases": 1})
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
    return settings


def copies(settings: Settings) -> set[str]:
    by_digest = {release.release_digest: release.version for release in tracking.list_releases(settings)}
    return {by_digest[path.name] for path in (settings.release_root / LOCAL).iterdir()}


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
    ("name", "value"), [("LOCAL_RELEASES", "0"), ("SUPERSEDED_GRACE_HOURS", "1"), ("NO_SUCH", "1")]
)
def test_limits_that_would_lose_something_are_refused(monkeypatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TRIBUTARY_RETENTION__{name}", value)
    with pytest.raises(BadSettings, match=f"retention.{name.lower()}"):
        load_settings()


def test_removed_partition_is_gone_at_once_and_its_files_after_the_grace_period(tmp_path: Path) -> None:
    lakehouse = Lakehouse(tmp_path)
    day = date(2026, 1, 1)
    lakehouse.replace(tables.EXPOSURE, day, tables.EXPOSURE.schema.empty_table())
    lakehouse.remove(tables.EXPOSURE, day)
    assert lakehouse.days(tables.EXPOSURE) == []
    assert lakehouse.sweep(tables.EXPOSURE, timedelta(hours=1)) == 0
    assert lakehouse.sweep(tables.EXPOSURE, timedelta(0)) == 1
