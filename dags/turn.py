"""
May the run of a day start? Days run oldest first, one at a time, and none on top of a day that failed.

Airflow keeps the runs of the schedule apart, and those of one backfill, but not the ones from the others: a
backfill counts its own runs only. What is asked here is asked through the Task SDK.
"""

import logging
from datetime import UTC, date, datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from lakehouse import tables
from lakehouse.sources import open_source
from lakehouse.store import Lakehouse
from tasks.days import ONE_DAY
from tasks.settings import Settings

WAIT, LAST = "wait_for_turn", "register_release"
ENDED = ("success", "failed", "upstream_failed", "skipped", "removed")
LOGS_MAY_BE_LATE = timedelta(hours=6)
# A source whose log ends this long before the night is no feed that is late: it is a closed data set.
SOURCE_HAS_ENDED = timedelta(days=7)

log = logging.getLogger(__name__)


class NotStarted(RuntimeError):
    """A day may not start; the message tells which other day is in its way and what to do."""


def is_turn_of(day: date, context: dict[str, Any], run_type: str, settings: Settings) -> bool:
    """
    Tell whether the day may start now; False: ask again later.

    A run that a person triggered for a day waits for nobody and needs only the day before it in the tables.

    Raises:
        NotStarted: the day before failed or was left out, the source lacks the day, or its turn cannot come.
        AirflowSkipException: a night of a source that has ended: there is nothing to do.
    """
    if run_type in ("scheduled", "backfill"):
        _refuse_after_a_failure(day, context)
        other = _run_in_the_way(day, context)
        if other is not None:
            log.info("waiting for the run %s of this DAG to end", other)
            return False
    if run_type == "scheduled" and not _have_logs_come(day, context["dag_run"].run_after, settings):
        return False
    _refuse_a_day_that_the_source_lacks(day, settings)
    _refuse_without_the_day_before(day, settings)
    return True


def _refuse_after_a_failure(day: date, context: dict[str, Any]) -> None:
    ti, zone = context["ti"], context["dag"].timezone
    before = ti.get_previous_dagrun()
    if before is None or before.state != "failed" or before.run_type == "manual":
        return
    run_id, at = before.run_id, before.logical_date
    # The days after a failed one fail here too: walk back to the one that really failed.
    while _failed_to_start(ti, run_id) and (earlier := ti.get_previous_ti(logical_date=at)):
        if ti.get_dagrun_state(ti.dag_id, earlier.run_id) != "failed":
            break
        run_id, at = earlier.run_id, earlier.logical_date
    failed_day = at.astimezone(zone).date()
    states = _states(ti, run_ids=[run_id]).get(run_id, {})
    where = ", ".join(sorted(name for name, state in states.items() if state == "failed")) or "its time limit"
    which = f"the day before, {failed_day}," if failed_day == day - ONE_DAY else str(failed_day)
    if run_id == before.run_id:
        then = "mend it, clear it, then clear this run"
    else:
        then = "the days after it were not started; mend it, clear it, then clear those, oldest first"
    raise NotStarted(f"{day} not started: {which} failed at {where}; {then}")


def _failed_to_start(ti: Any, run_id: str) -> bool:
    return _states(ti, run_ids=[run_id], task_ids=[WAIT]).get(run_id, {}).get(WAIT) == "failed"


def _run_in_the_way(day: date, context: dict[str, Any]) -> str | None:
    """
    Give the run that has to end first: one of an earlier day, or any that is at work. None if there is none.

    Raises:
        NotStarted: an earlier day is queued for the place that this run holds.
    """
    ti, own_run = context["ti"], context["dag_run"].run_id
    for state in ("running", "queued"):
        earlier = ti.get_previous_dagrun(state=state)
        if earlier is None or earlier.run_type == "manual":
            continue
        if state == "running" or earlier.run_type == "backfill":
            return earlier.run_id
        earlier_day = earlier.data_interval_start.astimezone(context["dag"].timezone).date()
        raise NotStarted(
            f"{day} not started: {earlier_day} is queued and goes first; clear this run again when it is done"
        )
    for run_id, states in _states(ti, task_ids=[WAIT, LAST]).items():
        is_at_work = states.get(WAIT) == "success" and states.get(LAST) not in ENDED
        if run_id != own_run and is_at_work and ti.get_dagrun_state(ti.dag_id, run_id) == "running":
            return run_id
    return None


def _states(ti: Any, **filters: list[str]) -> dict[str, dict[str, str | None]]:
    return ti.get_task_states(dag_id=ti.dag_id, **filters)


def _have_logs_come(day: date, run_after: datetime, settings: Settings) -> bool:
    last_day = open_source(settings.source).last_day
    if last_day >= day:
        return True
    if day - last_day > SOURCE_HAS_ENDED:
        raise AirflowSkipException(
            f"nothing to do: the log of source {settings.source.preset} ends on {last_day}, {day} is skipped;"
            " days that it has are run by `make backfill FROM= TO=`"
        )
    late = datetime.now(UTC) - run_after
    if late > LOGS_MAY_BE_LATE:
        raise NotStarted(
            f"{day} not started: source {settings.source.preset} still ends on {last_day}, "
            f"{late.total_seconds() / 3600:.1f} h after the day; when its logs are there, clear this run"
        )
    log.info("waiting for the logs of %s: the source ends on %s", day, last_day)
    return False


def _refuse_a_day_that_the_source_lacks(day: date, settings: Settings) -> None:
    source = open_source(settings.source)
    if not source.first_day <= day <= source.last_day:
        raise NotStarted(
            f"{day} not started: source {settings.source.preset} has no such day, it has "
            f"{source.first_day} .. {source.last_day}"
        )


def _refuse_without_the_day_before(day: date, settings: Settings) -> None:
    lakehouse, before = Lakehouse(settings.lakehouse_root), day - ONE_DAY
    is_there = lakehouse.commit(tables.INCREC_SAMPLE, before) is not None
    if is_there and (settings.pi2i is None or lakehouse.commit(tables.PI2I_SAMPLE, before) is not None):
        return
    lacks = "has no samples of PI2I" if is_there else "is not"
    if open_source(settings.source).first_day <= before:
        raise NotStarted(
            f"{day} not started: the day before, {before}, {lacks} in {lakehouse.root}; `make backfill "
            f"FROM={day} TO={day} REPROCESS=failed` brings in the days before and runs this one; or run "
            f"the DAG prepare_window with the parameter day {day}, then clear this run"
        )
