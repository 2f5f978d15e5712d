"""
kill -9 of a service while a real day runs on it: scheduler, PostgreSQL, MLflow, Redis.

Supervisor starts it again and the day ends as if nothing had been. In the order of the tests of this file.
"""

import os
import signal
import threading
from collections.abc import Iterator
from datetime import date

import httpx
import pytest

from lakehouse.store import Lakehouse
from lakehouse.tables import TABLES
from services.airflow_api import AirflowApi, AirflowUnavailable
from services.supervisor import Supervisor
from tests.conftest import REPOSITORY
from tests.faults.tally import Tally
from tests.services.places import Place, passable_folder, place_in, wait_until
from tests.test_run import SETTINGS

pytestmark = pytest.mark.slow

DAY, DAYS = date(2026, 1, 4), ("--from", "2026-01-04", "--to", "2026-01-04")
DAY_SECONDS = 900
# Process, and the task during which it is killed.
KILLS = [
    ("airflow-scheduler", "train"),
    ("postgres", "evaluate"),
    ("postgres", "ingest_logs"),
    ("mlflow", "build_release"),
    ("mlflow", "register_release"),
    ("airflow-api-server", "train"),
    ("redis", "train"),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The services on a world of five days, of which one has run; Airflow gives lost tasks up early."""
    with passable_folder() as folder:
        gates = (REPOSITORY / "mlflow" / "gates.toml").read_text().replace("floor = 1.0", "floor = 0.5")
        (folder / "gates.toml").write_text(gates)
        (folder / "settings.toml").write_text(f'gates_file = "{folder}/gates.toml"\n{SETTINGS}')
        place = place_in(
            folder,
            TRIBUTARY_SETTINGS=str(folder / "settings.toml"),
            AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT="40",
            AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL="20",
        )
        started = place.run("services.up")
        try:
            assert started.returncode == 0, started.stderr
            done = place.run("services.backfill", *DAYS, **place.variables())
            assert done.returncode == 0, done.stdout + done.stderr
            approved = place.run("tasks.serve", "approve", **place.variables())
            assert approved.returncode == 0, approved.stderr
            yield place
        finally:
            place.run("services.down")


def digests(place: Place) -> dict[str, str]:
    """The day's partitions; metric, example and gate also tell of the champion."""
    lakehouse, found = Lakehouse(place.var / "lakehouse"), {}
    for table in TABLES.values():
        if table.name not in ("metric", "example", "gate"):
            for part in lakehouse.parts(table, DAY) if table.part_by else [None]:
                if commit := lakehouse.commit(table, DAY, part=part):
                    found[f"{table.name}/{part}"] = commit.digest
    return found


def versions(place: Place) -> list[tuple[str, str]]:
    """Version and release digest of what MLflow has registered."""
    login = tuple(place.variables()[f"MLFLOW_TRACKING_{name}"] for name in ("USERNAME", "PASSWORD"))
    address = place.url("mlflow", "/api/2.0/mlflow/model-versions/search?max_results=100")
    found = httpx.get(address, auth=login, trust_env=False, timeout=30).raise_for_status().json()
    tags = [
        (each["version"], {tag["key"]: tag["value"] for tag in each["tags"]})
        for each in found["model_versions"]
    ]
    return sorted((version, tag["release_digest"]) for version, tag in tags)


def state_of_the_day(airflow: AirflowApi) -> str:
    """State of the day's run, ``unknown`` while Airflow does not answer."""
    try:
        return airflow.dag_runs("daily_cycle", run_type="backfill")[0]["state"]
    except (AirflowUnavailable, IndexError):
        return "unknown"


def is_running(airflow: AirflowApi, task_id: str) -> bool:
    """Tell whether a task of the day is at work."""
    try:
        for run in airflow.dag_runs("daily_cycle", state="running"):
            steps = airflow.task_instances("daily_cycle", run["dag_run_id"])
            return any(step["task_id"] == task_id and step["state"] == "running" for step in steps)
    except AirflowUnavailable:
        pass
    return False


@pytest.mark.parametrize(("process", "task_id"), KILLS)
def test_a_day_ends_as_if_its_service_had_not_been_killed(
    place: Place, tally: Tally, process: str, task_id: str
) -> None:
    with tally.fault(f"kill -9 of a service during a day: {process}"), place.airflow() as airflow:
        before, registered = digests(place), versions(place)
        command = ("services.backfill", *DAYS, "--reprocess", "completed")
        backfill = threading.Thread(target=place.run, args=command, kwargs=place.variables())
        backfill.start()
        wait_until(lambda: is_running(airflow, task_id), DAY_SECONDS)
        pid = place.pid(process)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: place.pid(process) != pid)
        backfill.join(DAY_SECONDS)
        wait_until(lambda: state_of_the_day(airflow) in ("success", "failed"), DAY_SECONDS)
        assert state_of_the_day(airflow) == "success"
        assert digests(place) == before
        assert versions(place) == registered
        assert set(Supervisor(place.state).states().values()) == {"RUNNING"}
        served = place.run("tasks.serve", "publish", **place.variables())
        assert served.returncode == 0, served.stderr
