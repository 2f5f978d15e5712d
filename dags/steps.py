"""How do the DAGs call a task: which day is it, and what may be retried?"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

from airflow.sdk import Param, get_current_context
from airflow.sdk.exceptions import AirflowFailException

DAY_PARAM = Param(
    None,
    type=["null", "string"],
    format="date",
    description="Day to process, YYYY-MM-DD. Manual runs need it; scheduled and backfilled runs know theirs.",
)

RETRY_WHAT_A_RETRY_CAN_MEND = {
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}

log = logging.getLogger(__name__)


class NoDay(ValueError):
    """The run does not say which day it is about."""


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
    run_type = str(getattr(dag_run.run_type, "value", dag_run.run_type))
    if run_type in ("scheduled", "backfill") and dag_run.data_interval_start:
        zone = context["dag"].timezone
        return dag_run.data_interval_start.astimezone(zone).date()
    if run_type == "manual" and dag_run.logical_date:
        return dag_run.logical_date.astimezone(context["dag"].timezone).date()
    raise NoDay(f"this {run_type} run names no day; trigger it with the parameter day, e.g. 2026-01-31")


def run_type() -> str:
    """Tell the type of the current run: manual, scheduled, backfill or asset_triggered."""
    dag_run = get_current_context()["dag_run"]
    return str(getattr(dag_run.run_type, "value", dag_run.run_type))


@contextmanager
def step() -> Iterator[None]:
    """
    Fail at once, in one line, on all that a retry cannot mend: bad data, a missing partition, a mistake.

    Errors of the operating system and the network (a server away, a full disk) are left to the retry.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def report(result: object) -> None:
    """Put a step's figures into the task log."""
    log.info("%s", result)
