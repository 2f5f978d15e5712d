"""How do the DAGs call a task: which day is it, and what may be retried?"""

import logging
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

from airflow.sdk import Param, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from lakehouse.lineage import Traffic, watch

DAY_PARAM = Param(
    None,
    type=["null", "string"],
    format="date",
    description="Day to process, YYYY-MM-DD. Manual runs need it; scheduled and backfilled runs know theirs.",
)

# 30 s, 1 and 2 min: a server that starts again has the time. No longer, since Airflow counts all tries that a
# task ever had: a day that was run again several times begins with the longest pause.
RETRY_WHAT_A_RETRY_CAN_MEND = {
    "retries": 3,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=2),
}

# XCom key under which a failed task leaves its error.
REASON = "reason"
REASONS: dict[tuple[str, str, int], str] = {}  # the same, for `dags test`, where callbacks cannot read XCom
# Errors of these say what, where and what to do; any other needs its traceback to be understood.
OWN_PACKAGES = ("dags", "lakehouse", "models", "nearline", "tasks")
# Partitions that the line of figures names.
MOST_SHOWN = 8

log = logging.getLogger(__name__)


class NoDay(ValueError):
    """The run does not say which day it is about."""


@task
def resolve() -> str:
    """Tell the day that the run is about."""
    with step():
        return resolve_day(get_current_context()).isoformat()


def resolve_day(context: dict[str, Any]) -> date:
    """
    Tell which day the run is about: ``params.day``, else the data interval of a scheduled or backfilled
    run, else the logical date of a manual run that has one.

    A manual run's data interval is inferred from the clock, so it is never used.

    Raises:
        NoDay: none of them is given.
    """
    dag_run = context["dag_run"]
    if day := (context.get("params") or {}).get("day"):
        return date.fromisoformat(day)
    run_type = type_of(dag_run)
    if run_type in ("scheduled", "backfill") and dag_run.data_interval_start:
        zone = context["dag"].timezone
        return dag_run.data_interval_start.astimezone(zone).date()
    if run_type == "manual" and dag_run.logical_date:
        return dag_run.logical_date.astimezone(context["dag"].timezone).date()
    raise NoDay(f"this {run_type} run names no day; trigger it with the parameter day, e.g. 2026-01-31")


def run_type() -> str:
    """Tell the type of the current run: manual, scheduled, backfill or asset_triggered."""
    return type_of(get_current_context()["dag_run"])


def type_of(dag_run: Any) -> str:
    """Tell the type of a run of the Task SDK."""
    return str(getattr(dag_run.run_type, "value", dag_run.run_type))


@contextmanager
def step() -> Iterator[None]:
    """
    Fail at once, in one line, on all that a retry cannot mend: bad data, a missing partition, a mistake.

    Errors of the operating system and the network (a server away, a full disk) are left to the retry. Ends
    the task's log with one line of figures, and after a failure one of its reason, which is kept for the
    alert. Where the error is none that this project raises itself, its traceback comes before them.
    """
    started, failure = time.monotonic(), None
    with watch() as traffic:
        try:
            yield
        except AirflowSkipException:
            raise
        except Exception as error:
            failure = error
            if type(error).__module__.split(".")[0] not in OWN_PACKAGES and not isinstance(error, OSError):
                log.error("unexpected %s", type(error).__name__, exc_info=error)
        finally:
            log.info("%s", _figures(_task_id(), time.monotonic() - started, traffic))
    if failure:
        reason = " ".join(f"{type(failure).__name__}: {failure}".split())
        _keep_reason(reason)
        log.error("%s", reason)
        if isinstance(failure, OSError):
            raise failure
        raise AirflowFailException(reason) from None


def _figures(task_id: str, seconds: float, traffic: Traffic) -> str:
    """Tell what a task took and did, on one line."""
    own, children = (
        resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    memory = f"peak memory {own:.2f} GiB" + (f" (of a child {children:.2f} GiB)" if children else "")
    read = f"read {len(traffic.read)} partitions, {sum(traffic.read.values()):,} rows"
    written = [f"{folder} {n_rows:,} rows" for folder, n_rows in traffic.written.items()]
    if len(written) > MOST_SHOWN:
        rest = list(traffic.written.values())[MOST_SHOWN:]
        written = [*written[:MOST_SHOWN], f"{len(rest)} more with {sum(rest):,} rows"]
    return f"{task_id}: {seconds:.1f} s, {memory}; {read}; wrote {', '.join(written) or 'nothing'}"


def _task_id() -> str:
    ti = _current_ti()
    return ti.task_id if ti else "step"


def _keep_reason(reason: str) -> None:
    """Leave the reason where the alert finds it; that it cannot be left must not hide it."""
    if ti := _current_ti():
        REASONS[ti.run_id, ti.task_id, ti.map_index] = reason
        try:
            ti.xcom_push(key=REASON, value=reason)
        except Exception as error:
            log.warning("cannot keep the reason of the failure for the alert: %s", error)


def _current_ti() -> Any | None:
    """Give the running task instance; None outside of a task."""
    try:
        return get_current_context()["ti"]
    except (RuntimeError, KeyError):
        return None


def report(result: object) -> None:
    """Put a step's figures into the task log."""
    log.info("%s", result)
