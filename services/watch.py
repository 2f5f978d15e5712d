"""How far is a run that Airflow is at? Prints its steps as they end, and tells why it failed."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.airflow_api import AirflowApi, AirflowUnavailable

POLL_SECONDS = 2.0
AWAY_SECONDS = 300.0
ENDED = ("success", "failed")
STEP_ENDED = (*ENDED, "skipped", "upstream_failed", "removed")


class Progress:
    """The steps of runs, each printed once when it has ended, waits or is tried again."""

    def __init__(self, airflow: AirflowApi):
        """Start with nothing printed."""
        self._airflow = airflow
        self._told: set[tuple[object, ...]] = set()

    def show(self, run: dict[str, Any]) -> None:
        """Print what is new in a run."""
        steps = self._airflow.task_instances(run["dag_id"], run["dag_run_id"])
        for step in sorted(steps, key=lambda step: step["end_date"] or "9"):
            key = (run["dag_run_id"], run["start_date"], name_of(step), step["state"], step["try_number"])
            if key in self._told or step["state"] == "upstream_failed":
                continue
            if step["state"] in STEP_ENDED:
                self._tell(key, f"{step['state']:<9}{step['duration'] or 0.0:8.1f} s")
            elif step["state"] == "up_for_reschedule":
                self._tell(key, "waits: another run is at work, or the logs are late; its log says which")
            elif step["state"] == "up_for_retry":
                self._tell(key, f"is tried again; {reason_of(self._airflow, step)}")

    def _tell(self, key: tuple[object, ...], what: str) -> None:
        self._told.add(key)
        print(f"    {key[2]:<24} {what}", flush=True)


def wait_until(is_done: Callable[[], bool]) -> None:
    """
    Ask again and again until it is done; Airflow may be away for a while, as in a restart.

    Raises:
        AirflowUnavailable: it stayed away for AWAY_SECONDS.
    """
    away_since = None
    while True:
        try:
            if is_done():
                return
            away_since = None
        except AirflowUnavailable as error:
            now = time.monotonic()
            if away_since is None:
                away_since = now
                print(f"    {error}; asking again for {AWAY_SECONDS / 60:.0f} minutes", flush=True)
            elif now - away_since > AWAY_SECONDS:
                raise
        time.sleep(POLL_SECONDS)


def why_failed(airflow: AirflowApi, run: dict[str, Any]) -> str:
    """Tell on one line at which step a run failed, why, and where the log is."""
    steps = airflow.task_instances(run["dag_id"], run["dag_run_id"])
    failed = [step for step in steps if step["state"] == "failed"]
    if not failed:
        return f"no step failed: the run was stopped or took too long; see {_page(airflow, run)}"
    step = min(failed, key=lambda step: step["end_date"] or "9")
    return f"{name_of(step)}: {reason_of(airflow, step)}; log: {_log_of(airflow, step)}"


def name_of(step: dict[str, Any]) -> str:
    """Name a task instance; a mapped one with what it is mapped over."""
    if step["map_index"] < 0:
        return step["task_id"]
    return f"{step['task_id']} {step.get('rendered_map_index') or step['map_index']}"


def reason_of(airflow: AirflowApi, step: dict[str, Any]) -> str:
    """Give the error that a failed step left (see `dags.steps.step`)."""
    place = (step["dag_id"], step["dag_run_id"], step["task_id"])
    reason = airflow.xcom(*place, key="reason", map_index=step["map_index"])
    return reason or "it ended without a word: killed, for memory perhaps, or its machine was lost"


def _log_of(airflow: AirflowApi, step: dict[str, Any]) -> str:
    """Give the log's file where it is on this machine, else its page."""
    folder = Path(os.environ.get("AIRFLOW__LOGGING__BASE_LOG_FOLDER") or _home() / "logs")
    mapped = (f"map_index={step['map_index']}",) if step["map_index"] >= 0 else ()
    file = folder.joinpath(
        f"dag_id={step['dag_id']}",
        f"run_id={step['dag_run_id']}",
        f"task_id={step['task_id']}",
        *mapped,
        f"attempt={step['try_number']}.log",
    )
    return str(file) if file.exists() else f"{_page(airflow, step)}/tasks/{step['task_id']}"


def _home() -> Path:
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()


def _page(airflow: AirflowApi, of: dict[str, Any]) -> str:
    return f"{airflow.url}/dags/{of['dag_id']}/runs/{of['dag_run_id']}"
