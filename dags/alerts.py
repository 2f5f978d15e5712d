"""
Who hears that a run failed or is late? The callbacks of the DAGs; what is sent is in ``tasks/alerts.py``.

They run beside the run (in the DAG processor, in a worker of the executor, in ``dags test`` itself), and
nothing that happens in them fails it.
"""

import logging
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from dags.steps import REASON, REASONS, resolve_day, type_of
from dags.turn import WAIT
from lakehouse.sources import timezone_of
from tasks.alerts import Alert, send_alert
from tasks.settings import load_settings

RUN_ENDED_BY = {
    "timed_out": "the run took longer than its time limit",
    "all_tasks_deadlocked": "no task of the run can go on",
}
UNKNOWN = "its log tells why"
KILLED = "the task ended without a word: killed, for memory perhaps, or its machine was lost"

log = logging.getLogger(__name__)


def run_failed(context: dict[str, Any]) -> None:
    """
    Tell that a run failed: once per run, with the failed task and its reason.

    A day of a backfill that was not started because of the day before it is in the log only.
    """
    alert = _failure(context)
    is_follower = alert.task_id == WAIT and _run_type(context) == "backfill"
    if is_follower:
        log.error("%s", alert.text())
    else:
        send_alert(alert, load_settings().alerts)


def publishing_failed(context: dict[str, Any]) -> None:
    """
    Tell that publishing failed: the first of failures in a row, since it is tried every few minutes.

    A refusal fails once for each cause (``tasks/scheduled_publish.py``), so every one is told.
    """
    alert = _failure(context)
    if _failed_before(context.get("ti")) and not alert.reason.startswith("PublishRefused"):
        log.error("%s", alert.text())
    else:
        send_alert(alert, load_settings().alerts)


def run_is_late(context: dict[str, Any]) -> None:
    """
    Tell that a run was not done at its deadline.

    The days of a backfill queue behind each other, and a failed run was told of: these are in the log only.
    """
    run = context["dag_run"]
    alerts = load_settings().alerts
    if run["run_type"] == "backfill" or run["state"] in ("failed", "success"):
        log.info("%s is past its deadline: %s run, %s", run["dag_run_id"], run["run_type"], run["state"])
        return
    alert = Alert(
        kind="deadline",
        dag_id=run["dag_id"],
        run_id=run["dag_run_id"],
        day=_day_of_late(run),
        task_id=None,
        reason=f"{run['state']}, not done {alerts.deadline_hours:g} h after the end of its day",
        log_url=None,
        advice="look in Airflow which task it is at; what serves stays as it is",
    )
    send_alert(alert, alerts)


def _failure(context: dict[str, Any]) -> Alert:
    ti, dag_id = context.get("ti"), context["dag"].dag_id
    why = str(context.get("reason"))
    reason = RUN_ENDED_BY.get(why) or (_reason_of(ti) if ti else UNKNOWN)
    task_id = ti.task_id if ti else None
    return Alert(
        kind="failure",
        dag_id=dag_id,
        run_id=context["run_id"],
        day=_day(context),
        task_id=task_id,
        reason=reason,
        log_url=ti.log_url if ti else None,
        advice=f"mend the cause, then clear {task_id or 'the failed task'} of this run with what follows it;"
        " what serves stays as it is",
    )


def _reason_of(ti: Any) -> str:
    """Give what the failed task kept of its error; it could not keep any when it was killed."""
    if reason := REASONS.get((ti.run_id, ti.task_id, ti.map_index)):
        return reason
    try:
        return ti.xcom_pull(task_ids=ti.task_id, key=REASON, map_indexes=ti.map_index) or KILLED
    except Exception as error:
        log.warning("cannot read why %s failed: %s", ti.task_id, error)
        return UNKNOWN


def _failed_before(ti: Any | None) -> bool:
    """Tell whether the run before this one failed too; no where it cannot be asked, as in ``dags test``."""
    try:
        before = ti.get_previous_dagrun() if ti else None
    except Exception as error:
        log.info("cannot ask for the run before: %s", error)
        return False
    return before is not None and before.state == "failed"


def _day(context: dict[str, Any]) -> date | None:
    try:
        return resolve_day(context)
    except (KeyError, ValueError):
        return None


def _run_type(context: dict[str, Any]) -> str | None:
    return type_of(context["dag_run"]) if context.get("dag_run") else None


def _day_of_late(run: dict[str, Any]) -> date | None:
    if day := (run.get("conf") or {}).get("day"):
        return date.fromisoformat(day)
    if run["run_type"] != "scheduled" or not run["data_interval_start"]:
        return None
    zone = ZoneInfo(timezone_of(load_settings().source))
    return datetime.fromisoformat(run["data_interval_start"]).astimezone(zone).date()
