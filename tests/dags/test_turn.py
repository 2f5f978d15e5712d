"""May a day start? Asked of what Airflow says about the other runs, the source, and the tables."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import pendulum
import pytest

from lakehouse.store import Lakehouse
from lakehouse.tables import INCREC_SAMPLE, PI2I_SAMPLE
from models.pi2i.config import PI2IConfig

ZONE = pendulum.timezone("Asia/Shanghai")
DAY = date(2026, 1, 4)


@pytest.fixture(scope="module")
def turn(tmp_path_factory):
    """dags.turn, imported with a home of its own for Airflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        from dags import turn

        yield turn


class Airflow:
    """What the Task SDK answers about runs that are given as day -> (state, type, task states)."""

    dag_id = "daily_cycle"

    def __init__(self, day: date, runs: dict[date, tuple[str, str, dict[str, str]]]):
        self.day, self.runs = day, runs

    def _run(self, day: date):
        start = pendulum.datetime(day.year, day.month, day.day, tz=ZONE).in_timezone("UTC")
        state, run_type, _ = self.runs[day]
        return SimpleNamespace(
            run_id=f"run of {day}",
            state=state,
            run_type=run_type,
            logical_date=start,
            data_interval_start=start,
        )

    def get_previous_dagrun(self, state=None):
        days = [d for d in self.runs if d < self.day and (state is None or self.runs[d][0] == state)]
        return self._run(max(days)) if days else None

    def get_previous_ti(self, logical_date):
        days = [d for d in self.runs if self._run(d).logical_date < logical_date]
        return self._run(max(days)) if days else None

    def get_task_states(self, dag_id, run_ids=None, task_ids=None):
        return {
            f"run of {day}": {task: state for task, state in states.items() if task in (task_ids or states)}
            for day, (_, _, states) in self.runs.items()
            if run_ids is None or f"run of {day}" in run_ids
        }

    def get_dagrun_state(self, dag_id, run_id):
        return self.runs[date.fromisoformat(run_id.removeprefix("run of "))][0]


def settings(tmp_path, last_day=date(2026, 1, 10), has_day_before=True, pi2i=None):
    from lakehouse.sources import SourceConfig

    root = tmp_path / "lakehouse"
    if has_day_before:
        Lakehouse(root).replace(INCREC_SAMPLE, DAY - timedelta(days=1), INCREC_SAMPLE.schema.empty_table())
    n_days = (last_day - date(2026, 1, 1)).days + 1
    world = {"n_users": 300, "n_items": 400, "n_days": n_days, "n_clusters": 6}
    source = SourceConfig(preset="synthetic", synthetic=world)
    return SimpleNamespace(lakehouse_root=str(root), source=source, pi2i=pi2i)


def ask(turn, tmp_path, run_type, runs=None, *, late=timedelta(minutes=5), **options):
    context = {
        "ti": Airflow(DAY, runs or {}),
        "dag": SimpleNamespace(timezone=ZONE),
        "dag_run": SimpleNamespace(run_id=f"run of {DAY}", run_after=datetime.now(UTC) - late),
    }
    return turn.is_turn_of(DAY, context, run_type, settings(tmp_path, **options))


DONE = {"wait_for_turn": "success", "ingest_logs": "success", "register_release": "success"}
BROKE = {"wait_for_turn": "success", "build_histories": "failed", "register_release": "upstream_failed"}
REFUSED = {"wait_for_turn": "failed", "register_release": "upstream_failed"}
AT_WORK = {"wait_for_turn": "success", "train": "running", "register_release": None}


def day(n: int) -> date:
    return date(2026, 1, n)


@pytest.mark.parametrize("run_type", ["scheduled", "backfill", "manual"])
def test_a_day_starts_when_the_days_before_it_are_done(turn, tmp_path, run_type):
    assert ask(
        turn,
        tmp_path,
        run_type,
        {day(2): ("success", "backfill", DONE), day(3): ("success", "scheduled", DONE)},
    )


def test_a_day_does_not_start_on_top_of_one_that_failed_and_says_where(turn, tmp_path):
    expected = (
        "2026-01-04 not started: the day before, 2026-01-03, failed at build_histories; mend it, clear it, "
        "then clear this run"
    )
    with pytest.raises(turn.NotStarted, match=expected):
        ask(turn, tmp_path, "backfill", {day(3): ("failed", "backfill", BROKE)})


def test_the_days_after_a_failed_one_all_name_it(turn, tmp_path):
    runs = {
        day(1): ("failed", "backfill", BROKE),
        day(2): ("failed", "backfill", REFUSED),
        day(3): ("failed", "scheduled", REFUSED),
    }
    expected = (
        "not started: 2026-01-01 failed at build_histories; the days after it were not started; mend it"
    )
    with pytest.raises(turn.NotStarted, match=expected):
        ask(turn, tmp_path, "scheduled", runs)


def test_a_day_that_was_refused_for_another_reason_is_named_itself(turn, tmp_path):
    runs = {day(2): ("success", "backfill", DONE), day(3): ("failed", "backfill", REFUSED)}
    with pytest.raises(turn.NotStarted, match="the day before, 2026-01-03, failed at wait_for_turn"):
        ask(turn, tmp_path, "backfill", runs)


def test_a_run_out_of_time_is_told_as_such(turn, tmp_path):
    runs = {day(3): ("failed", "scheduled", {"wait_for_turn": "success", "train": "skipped"})}
    with pytest.raises(turn.NotStarted, match="2026-01-03, failed at its time limit"):
        ask(turn, tmp_path, "scheduled", runs)


def test_a_failed_run_that_a_person_triggered_stops_nobody(turn, tmp_path):
    assert ask(turn, tmp_path, "scheduled", {day(3): ("failed", "manual", BROKE)})


def test_a_day_waits_for_an_earlier_one_and_for_any_at_work(turn, tmp_path):
    assert not ask(turn, tmp_path, "scheduled", {day(2): ("running", "backfill", REFUSED)})
    assert not ask(turn, tmp_path, "scheduled", {day(2): ("queued", "backfill", {})})
    assert not ask(turn, tmp_path, "backfill", {day(8): ("running", "scheduled", AT_WORK)})


def test_two_days_never_wait_for_each_other(turn, tmp_path):
    waiting = {"wait_for_turn": "up_for_reschedule", "register_release": None}
    assert ask(turn, tmp_path, "backfill", {day(8): ("running", "scheduled", waiting)})
    assert ask(turn, tmp_path, "backfill", {day(8): ("queued", "scheduled", AT_WORK)})
    with pytest.raises(turn.NotStarted, match="2026-01-02 is queued and goes first; clear this run again"):
        ask(turn, tmp_path, "scheduled", {day(2): ("queued", "scheduled", {})})


def test_a_night_waits_for_late_logs_and_gives_up_in_the_end(turn, tmp_path):
    assert not ask(turn, tmp_path, "scheduled", last_day=day(3))
    with pytest.raises(turn.NotStarted, match=r"still ends on 2026-01-03, 7\.0 h after the day"):
        ask(turn, tmp_path, "scheduled", last_day=day(3), late=timedelta(hours=7))


def test_a_night_of_a_source_that_has_ended_is_skipped(turn, tmp_path):
    from airflow.sdk.exceptions import AirflowSkipException

    context = {"ti": Airflow(date(2026, 11, 23), {}), "dag": SimpleNamespace(timezone=ZONE)}
    context["dag_run"] = SimpleNamespace(run_id="tonight", run_after=datetime.now(UTC))
    with pytest.raises(
        AirflowSkipException, match="the log of source synthetic ends on 2026-01-10, 2026-11-23"
    ):
        turn.is_turn_of(date(2026, 11, 23), context, "scheduled", settings(tmp_path))


@pytest.mark.parametrize("run_type", ["scheduled", "backfill", "manual"])
def test_a_day_whose_day_before_is_not_there_says_how_to_bring_it_in(turn, tmp_path, run_type):
    with pytest.raises(
        turn.NotStarted,
        match=r"the day before, 2026-01-03, is not in .*"
        r"`make backfill FROM=2026-01-04 TO=2026-01-04 REPROCESS=failed` brings in the days before",
    ):
        ask(turn, tmp_path, run_type, has_day_before=False)


def test_a_day_that_the_source_lacks_says_which_it_has(turn, tmp_path):
    expected = "2026-01-04 not started: source synthetic has no such day, it has 2026-01-01 .. 2026-01-02"
    with pytest.raises(turn.NotStarted, match=expected):
        ask(turn, tmp_path, "manual", last_day=day(2), has_day_before=False)


def test_a_day_before_without_samples_of_pi2i_is_named_where_it_is_on(turn, tmp_path):
    with pytest.raises(turn.NotStarted, match=r"the day before, 2026-01-03, has no samples of PI2I in .*"):
        ask(turn, tmp_path, "manual", pi2i=PI2IConfig())
    Lakehouse(tmp_path / "lakehouse").replace(
        PI2I_SAMPLE, DAY - timedelta(days=1), PI2I_SAMPLE.schema.empty_table()
    )
    assert ask(turn, tmp_path, "manual", pi2i=PI2IConfig())
