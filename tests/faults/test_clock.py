"""The clock: days of 23 and 25 hours, midnight in the middle of a step, a clock that is years off."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest

from lakehouse import tables
from lakehouse.sources import SourceConfig
from lakehouse.store import Lakehouse
from services.airflow_api import day_of, span_of_days
from tasks.days import day_range, start_of
from tasks.ingest import ingest_logs
from tests.faults.children import Job
from tests.faults.tally import Tally
from tests.faults.world import DAY, STEPS, World, facts

REGISTRY = "tests.faults.steps:registry"
MILLISECOND, HOUR = timedelta(milliseconds=1), timedelta(hours=1)
# Zones with the days on which their clocks change; in the last three midnight itself is left out.
CHANGES = [
    ("Europe/Berlin", date(2026, 3, 29)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("America/Havana", date(2026, 11, 1)),
    ("America/Santiago", date(2026, 9, 6)),
    ("Asia/Beirut", date(2026, 3, 29)),
    ("Africa/Cairo", date(2026, 4, 24)),
]
# Zone of the machine, and the moment at which a step starts.
CLOCKS = {
    "midnight during a step": ("UTC", "2026-01-05T23:59:59.900+00:00"),
    "summer time begins during a step": ("Europe/Berlin", "2026-03-29T00:59:59.900+00:00"),
    "summer time ends during a step": ("Europe/Berlin", "2026-10-25T00:59:59.900+00:00"),
    "clock set back behind what is there": ("UTC", "2001-01-01T00:00:00+00:00"),
    "clock years ahead": ("UTC", "2037-12-31T12:00:00+00:00"),
}


def runs_of(zone: str, days: list[date]) -> list[Any]:
    """The data intervals that Airflow's own timetable makes for a backfill of the days."""
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable

    timetable = CronDataIntervalTimetable("0 0 * * *", timezone=zone)
    between = TimeRestriction(*(pendulum.parse(at) for at in span_of_days(days, zone)), catchup=True)
    found, interval = [], None
    while info := timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=between):
        interval = info.data_interval
        found.append(interval)
    return found


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """dags.steps, imported with a home of its own for Airflow."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    from dags import steps

    return steps


@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_every_day_around_a_clock_change_is_scheduled_and_backfilled_once(
    steps, tally: Tally, zone: str, change: date
):
    days = day_range(change - timedelta(days=3), change + timedelta(days=3))
    with tally.fault("clock change: schedule and backfill"):
        runs = runs_of(zone, days)
        dag = SimpleNamespace(timezone=pendulum.timezone(zone))
        resolved = [
            steps.resolve_day(
                {
                    "dag": dag,
                    "dag_run": SimpleNamespace(run_type="scheduled", data_interval_start=run.start),
                }
            )
            for run in runs
        ]
        assert resolved == days
        assert all(run.end == after.start for run, after in pairwise(runs))
        assert {(run.end - run.start).total_hours() for run in runs} in ({23, 24}, {24, 25})
        for day, run in zip(days, runs, strict=True):
            assert [each.start for each in runs_of(zone, [day])] == [run.start]
            shown = {"run_type": "backfill", "data_interval_start": run.start.isoformat()}
            assert day_of(shown, zone) == day


@pytest.fixture
def shop(tmp_path: Path):
    """Make the settings of a source in a zone, whose log of ``day`` has a click at each of some moments."""

    def make(zone: str, day: date, moments: list[datetime]) -> SimpleNamespace:
        data = tmp_path / "logs"
        data.mkdir(parents=True)
        rows = [f"{n},{n},{day},{int(at.timestamp() * 1000)}" for n, at in enumerate(moments, 1)]
        (data / "events.csv").write_text("\n".join(["user,item,day,ts", *rows]) + "\n")
        ids = [str(n) for n in range(1, len(moments) + 1)]
        (data / "items.csv").write_text("\n".join(["item", *ids]) + "\n")
        (data / "users.csv").write_text("\n".join(["user", *ids]) + "\n")
        exposure = {"user_id": "user", "item_id": "item", "scenario": "'home'", "is_click": "true"}
        exposure |= {"event_time": "epoch_to_utc(ts, 1000)", "is_order": "false"}
        mapping = {
            "name": "shop",
            "timezone": zone,
            "primary_scenario": "home",
            "tables": {
                "exposure": {
                    "files": ["events.csv"],
                    "take": "day",
                    "log_date": "cast(day as date)",
                    "columns": exposure,
                },
                "item": {
                    "files": ["items.csv"],
                    "take": "all",
                    "columns": {"item_id": "item", "is_available": "true"},
                },
                "user": {
                    "files": ["users.csv"],
                    "take": "all",
                    "columns": {"user_id": "user", "profile": "[]"},
                },
            },
        }
        return SimpleNamespace(
            lakehouse_root=str(tmp_path / "lakehouse"),
            source=SourceConfig(preset="generic", data=str(data), mapping=mapping),
            max_quarantine_share=1.0,
            engine="duckdb",
        )

    return make


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_a_day_of_23_or_25_hours_keeps_all_its_events_and_no_others(shop, tally: Tally, zone: str, day: date):
    with tally.fault("clock change: events of the day"):
        start, end = (
            datetime.combine(each, datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
            for each in (day, day + timedelta(days=1))
        )
        assert end - start != timedelta(days=1)
        every_hour = [start + HOUR * n for n in range((end - start) // HOUR)]
        good = [start - HOUR, *every_hour, end - MILLISECOND]
        refused = [start - HOUR - MILLISECOND, end]
        settings = shop(zone, day, [*good, *refused])
        report = ingest_logs(day, settings).tables["exposure"]
        assert report.reasons == {
            "event_time is more than an hour before the day": 1,
            "event_time is after the end of the day": 1,
        }
        rows = Lakehouse(settings.lakehouse_root).read(tables.EXPOSURE, day)
        assert rows["event_time"].to_pylist() == [at.replace(tzinfo=None) for at in good]
        assert start_of(day, zone) == start.replace(tzinfo=None)


def run_at(world: World, tally: Tally, clock: str, *names: str) -> None:
    """Run steps, each beginning at the clock's moment; what they give must not depend on it."""
    zone, at = CLOCKS[clock]
    for step in names:
        with tally.fault(f"clock: {clock}"):
            world.restore(step)
            arguments = {"name": step, "day": str(DAY), "at": at}
            job = Job("tests.faults.steps:run_step_at", arguments, environment={"TZ": zone})
            (ended,) = world.children.run(job)
            assert ended.exit_code == 0, ended.output[-3000:]
            after = (*STEPS, "done")[STEPS.index(step) + 1]
            assert facts(world.var) == world.undisturbed[after]
            if after in world.registries:
                assert world.children.call(REGISTRY) == world.registries[after]


@pytest.mark.parametrize("clock", CLOCKS)
def test_releasing_at_any_time_of_the_clock_gives_the_same(world: World, tally: Tally, clock: str):
    run_at(world, tally, clock, "register_release", "publish_release")


@pytest.mark.slow
@pytest.mark.parametrize("clock", CLOCKS)
def test_every_step_at_any_time_of_the_clock_gives_the_same(world: World, tally: Tally, clock: str):
    run_at(world, tally, clock, *STEPS)
