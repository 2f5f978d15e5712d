"""Where champion, pointer and online store differ, the screen says so; one story on a real registry."""

from datetime import timedelta
from pathlib import Path

import pytest

from services.findings import Findings
from services.served import tell_serving
from tasks import tracking
from tasks.decide import rollback
from tasks.publish import publish_release
from tasks.scheduled_publish import PublishRefused, publish_on_schedule
from tasks.settings import Settings
from tests.tasks.small_releases import DAY, small_contents, small_record, small_settings, write_small


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three registered versions: 1 and 2 passed their gates, 3 failed one."""
    settings = small_settings(tmp_path_factory.mktemp("served") / "var")
    for n, verdict in enumerate(({"verdict": "passed"}, {"verdict": "passed"}, {})):
        day = DAY + timedelta(days=n)
        folder = settings.staged_root / day.isoformat()
        write_small(folder, small_contents(n), day)
        record = small_record(day, methods=(), **verdict)
        run = tracking.log_day(record, settings)
        tracking.register_version(folder, record, run.run_id, settings)
    return settings


def move_alias(version: str, settings: Settings) -> None:
    tracking.set_champion(version, settings, actor="manual", kind="promotion", reason="test")


def seen(settings: Settings, *, is_publishing: bool = False) -> Findings:
    found = Findings()
    tell_serving(settings, found, is_publishing=is_publishing)
    assert found.unreadable == []
    return found


def test_a_champion_that_is_not_served_is_told_and_pending_where_the_schedule_publishes(settings):
    move_alias("1", settings)
    differ = "champion is version 1, served is nothing"
    found = seen(settings)
    assert f"differs    {differ}: `make publish` serves it" in found.lines
    assert found.to_mend == ["the champion is not served"]
    found = seen(settings, is_publishing=True)
    assert f"pending    {differ}: publish_release looks every five minutes" in found.lines
    assert found.to_mend == []


def test_nothing_is_to_mend_once_it_is_served(settings):
    publish_release(settings)
    found = seen(settings)
    assert "store      serves the same release" in found.lines
    assert found.to_mend == []


def test_a_refused_champion_is_told_with_its_cause_until_another_serves(settings):
    move_alias("3", settings)
    with pytest.raises(PublishRefused):
        publish_on_schedule(settings)
    found = seen(settings, is_publishing=True)
    (refused,) = [line for line in found.lines if line.startswith("refused")]
    assert refused.startswith("refused    NotApproved: version 3 of 2022-05-05 has the verdict failed")
    assert "differs    champion is version 3, served is 1" in found.lines
    assert found.to_mend == ["the champion is refused"]
    move_alias("2", settings)
    publish_release(settings)
    assert seen(settings).to_mend == []


def test_a_rollback_in_force_is_told_and_needs_nobody(settings):
    assert not [line for line in seen(settings).lines if line.startswith("rollback")]
    rollback(settings)
    found = seen(settings)
    assert "rollback   in force: nothing is promoted automatically until `make approve`" in found.lines
    assert found.to_mend == []


def test_a_lost_registry_is_no_reason_to_hide_what_serves(settings, tmp_path: Path):
    found = Findings()
    away = settings.model_copy(update={"tracking_uri": "http://127.0.0.1:1"})
    tell_serving(away, found, is_publishing=False)
    assert found.to_mend == ["MLflow cannot be read"]
    assert any(line.startswith("served     version 1 of 2022-05-03") for line in found.lines)
