"""
Days through a real scheduler on PostgreSQL: backfill, a day that fails, alerts, what is stale, status.

One story in one place, because a scheduler takes its time: the tests of this file run in their order.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg2
import pyarrow.compute as pc
import pytest

from lakehouse.serving import read_serving
from lakehouse.store import Lakehouse
from lakehouse.tables import TABLES
from services.airflow_api import AirflowApi
from tests.conftest import REPOSITORY, skip_or_fail
from tests.test_run import SETTINGS

pytestmark = pytest.mark.slow

POSTGRES = "postgres@127.0.0.1:5432"
SERVICES = (["api-server", "--workers", "1"], ["scheduler"], ["dag-processor"])
UP_SECONDS, ALERT_SECONDS, NIGHT_SECONDS = 120, 90, 900


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.alerts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


@dataclass
class Deployment:
    """A running Airflow with its state folder and the alerts that it sent."""

    folder: Path
    environment: dict[str, str]
    airflow: AirflowApi
    alerts: list[dict] = field(default_factory=list)

    @property
    def lakehouse(self) -> Lakehouse:
        return Lakehouse(self.folder / "var" / "lakehouse")

    def run(self, module: str, *arguments: str, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    def backfill(self, first: str, last: str, *more: str) -> subprocess.CompletedProcess:
        return self.run("services.backfill", "--from", first, "--to", last, *more)

    def alert_of(self, kind: str, run_id: str) -> dict:
        """Wait for the alert of a kind about a run."""
        deadline = time.monotonic() + ALERT_SECONDS
        while time.monotonic() < deadline:
            for alert in self.alerts:
                if (alert["kind"], alert["run_id"]) == (kind, run_id):
                    return alert
            time.sleep(0.5)
        raise AssertionError(f"no {kind} alert of {run_id}: {self.alerts}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Address of an empty database."""
    with empty_database() as address:
        yield address


@contextmanager
def empty_database() -> Iterator[str]:
    """Make a database, and drop it at the end."""
    try:
        connection = psycopg2.connect(f"postgresql://{POSTGRES}/postgres")
    except psycopg2.OperationalError:
        skip_or_fail(f"no PostgreSQL at {POSTGRES}")
    connection.autocommit = True
    name = f"tributary_test_{secrets.token_hex(4)}"
    with connection.cursor() as cursor:
        cursor.execute(f"create database {name}")
        yield f"postgresql+psycopg2://{POSTGRES}/{name}"
        cursor.execute(f"drop database {name} with (force)")
    connection.close()


@pytest.fixture(scope="module")
def deployment(database, tmp_path_factory) -> Iterator[Deployment]:
    """Airflow's three services on a world of five days in January; promotion is automatic."""
    with running(database, tmp_path_factory.mktemp("nights")) as made:
        yield made


@contextmanager
def running(database: str, folder: Path, **more: str) -> Iterator[Deployment]:
    """Run Airflow's three services on an empty state folder; ``more`` are variables of its environment."""
    port = free_port()
    webhook = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    webhook.alerts = []
    threading.Thread(target=webhook.serve_forever, daemon=True).start()
    gates = (REPOSITORY / "mlflow" / "gates.toml").read_text().replace("floor = 1.0", "floor = 0.5")
    (folder / "gates.toml").write_text(gates)
    (folder / "settings.toml").write_text(f'gates_file = "{folder}/gates.toml"\n{SETTINGS}')
    url = f"http://127.0.0.1:{port}"
    user = {"AIRFLOW_ADMIN_USERNAME": "admin", "AIRFLOW_ADMIN_PASSWORD": secrets.token_hex(8)}
    environment = os.environ | {
        **user,
        "TRIBUTARY_SETTINGS": str(folder / "settings.toml"),
        "TRIBUTARY_VAR": str(folder / "var"),
        "TRIBUTARY_PROMOTION": "auto",
        "TRIBUTARY_SERVICES__AIRFLOW_URL": url,
        "TRIBUTARY_ALERTS__WEBHOOK_URL": f"http://127.0.0.1:{webhook.server_port}/secret",
        "TRIBUTARY_ALERTS__DEADLINE_HOURS": "0.003",
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        **more,
    }
    command = [sys.executable, "-m", "airflow"]
    create = ["users", "create", "--username", "admin", "--email", "a@example.org", "--firstname", "A"]
    create += ["--lastname", "A", "--role", "Admin", "--password", user["AIRFLOW_ADMIN_PASSWORD"]]
    for step in (["db", "migrate"], create):
        subprocess.run([*command, *step], cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    processes = []
    for service in SERVICES:
        with (folder / f"{service[0]}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [*command, *service],
                    cwd=REPOSITORY,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
    try:
        airflow = AirflowApi(url, "admin", user["AIRFLOW_ADMIN_PASSWORD"])
        wait_for_dags(airflow)
        yield Deployment(folder, environment, airflow, webhook.alerts)
    finally:
        for signum, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signum)
            deadline = time.monotonic() + seconds
            while any(p.poll() is None for p in processes) and time.monotonic() < deadline:
                time.sleep(0.2)
        webhook.shutdown()
        webhook.server_close()


def wait_for_dags(airflow: AirflowApi) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while True:
        try:
            airflow.is_paused("daily_cycle")
            airflow.is_paused("prepare_window")
            return
        except (OSError, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def digests(lakehouse: Lakehouse, day: date) -> dict[str, str]:
    found = {}
    for table in TABLES.values():
        for part in lakehouse.parts(table, day) if table.part_by else [None]:
            if commit := lakehouse.commit(table, day, part=part):
                found[f"{table.name}/{part}"] = commit.digest
    return found


def test_a_backfill_brings_in_the_days_before_and_runs_its_days_in_order(deployment):
    assert deployment.airflow.is_paused("daily_cycle")
    done = deployment.backfill("2026-01-03", "2026-01-04")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "prepare_window  2026-01-01 .. 2026-01-02: 2 days before the first are missing" in lines
    starts = [lines.index(f"2026-01-0{n}  starts") for n in (3, 4)]
    assert starts == sorted(starts)
    assert any(line.startswith("    train base") and "success" in line for line in lines)
    rows = [line.split() for line in lines if line.startswith("2026-01-0") and "passed" in line]
    assert [row[:4] for row in rows] == [
        ["2026-01-03", "success", "passed", "1"],
        ["2026-01-04", "success", "passed", "2"],
    ]
    assert lines[-1] == "stale now: nothing"
    assert deployment.airflow.is_paused("daily_cycle")


def test_a_backfill_moves_no_champion_even_where_promotion_is_automatic(deployment):
    status = deployment.run("services.status").stdout
    assert "champion   none" in status
    assert "challenger version 2 of 2026-01-04, passed" in status
    assert "served     nothing" in status


def test_the_night_of_a_source_that_has_ended_is_skipped(deployment):
    (night,) = deployment.airflow.dag_runs("daily_cycle", run_type="scheduled")
    assert night["state"] == "success"
    steps = deployment.airflow.task_instances("daily_cycle", night["dag_run_id"])
    assert {step["task_id"]: step["state"] for step in steps}["ingest_logs"] == "skipped"


def test_days_again_give_equal_digests_and_leave_nothing_stale(deployment):
    before = digests(deployment.lakehouse, date(2026, 1, 4))
    done = deployment.backfill("2026-01-04", "2026-01-04", "--reprocess", "completed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(deployment.lakehouse, date(2026, 1, 4)) == before
    assert done.stdout.splitlines()[-1] == "stale now: nothing"


def test_a_day_that_fails_stops_the_next_and_is_told_once(deployment):
    gates = deployment.folder / "gates.toml"
    good = gates.read_text()
    gates.write_text(f'{good}\n[x]\nkind = "vibes"\n')
    done = deployment.backfill("2026-01-04", "2026-01-05", "--reprocess", "completed")
    gates.write_text(good)
    assert done.returncode == 1
    reason = done.stderr.strip()
    assert reason.startswith("make backfill: 2 of 2 days failed; first 2026-01-04 at check_gates: BadGates: ")
    log = Path(reason.split("; log: ")[1].split("; ")[0])
    assert "BadGates" in log.read_text()
    runs = deployment.airflow.dag_runs("daily_cycle", run_type="backfill", state="failed")
    refused, failed = (run["dag_run_id"] for run in runs)
    why = deployment.airflow.xcom("daily_cycle", refused, "wait_for_turn", "reason")
    assert why.startswith(
        "NotStarted: 2026-01-05 not started: the day before, 2026-01-04, failed at check_gates; mend it"
    )
    alert = deployment.alert_of("failure", failed)
    assert (alert["day"], alert["task_id"]) == ("2026-01-04", "check_gates")
    assert alert["reason"].startswith("BadGates: ")
    assert [alert["run_id"] for alert in deployment.alerts if alert["kind"] == "failure"] == [failed]


def test_failed_days_are_done_again_and_nothing_else(deployment):
    done = deployment.backfill("2026-01-03", "2026-01-05", "--reprocess", "failed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 3 days to run" in done.stdout
    assert "2026-01-03  starts" not in done.stdout


def test_a_killed_task_is_tried_again(deployment):
    killed = threading.Thread(target=kill_one_train, args=(deployment.airflow,), daemon=True)
    killed.start()
    done = deployment.backfill("2026-01-05", "2026-01-05", "--reprocess", "completed")
    killed.join(5)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = deployment.airflow.dag_runs_between(
        "daily_cycle", "2026-01-05T00:00:00Z", "2026-01-05T00:00:00Z"
    )
    steps = deployment.airflow.task_instances("daily_cycle", run["dag_run_id"])
    tries = {(step["task_id"], step["map_index"]): step["try_number"] for step in steps}
    assert max(n for (task_id, _), n in tries.items() if task_id == "train") > tries[("ingest_logs", -1)]


def kill_one_train(airflow: AirflowApi) -> None:
    """Kill the process of the first train task of this run that is running."""
    while True:
        for run in airflow.dag_runs("daily_cycle", state="running"):
            for step in airflow.task_instances("daily_cycle", run["dag_run_id"]):
                if step["task_id"] == "train" and step["state"] == "running" and step["pid"]:
                    os.kill(step["pid"], signal.SIGKILL)
                    return
        time.sleep(0.1)


def test_a_day_waits_for_another_that_is_at_work_and_no_run_of_the_past_is_late(deployment):
    deployment.airflow.set_paused("daily_cycle", False)
    by_hand = deployment.airflow.trigger_dag("daily_cycle", {"day": "2026-01-04"})
    while deployment.airflow.dag_run("daily_cycle", by_hand)["state"] == "queued":
        time.sleep(0.5)
    time.sleep(5)
    done = deployment.backfill("2026-01-05", "2026-01-05", "--reprocess", "completed")
    deployment.airflow.set_paused("daily_cycle", True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waits: another run is at work" in done.stdout
    assert [alert for alert in deployment.alerts if alert["kind"] == "deadline"] == []


def test_what_is_made_from_a_changed_day_is_stale_until_it_is_run_again(deployment):
    lakehouse, exposure, day = deployment.lakehouse, TABLES["exposure"], date(2026, 1, 4)
    commit, rows = lakehouse.commit(exposure, day), lakehouse.read(exposure, day)
    place = rows.schema.get_field_index("is_click")
    turned = rows.set_column(place, exposure.schema.field("is_click"), pc.invert(rows["is_click"]))
    Lakehouse(lakehouse.root).replace(exposure, day, turned, meta=commit.meta)
    status = deployment.run("services.status").stdout
    assert "because click of 2026-01-04: exposure/ds=2026-01-04 has changed" in status
    assert "run make backfill FROM=2026-01-04 TO=2026-01-05 REPROCESS=completed" in status
    assert len(status.splitlines()) <= 40
    done = deployment.backfill("2026-01-04", "2026-01-05", "--reprocess", "completed")
    assert done.stdout.splitlines()[-1] == "stale now: nothing"


def test_days_before_that_are_lost_come_back_though_no_day_is_to_run(deployment):
    lakehouse, lost = deployment.lakehouse, date(2026, 1, 2)
    before = digests(lakehouse, lost)
    shutil.rmtree(Path(lakehouse.root) / "increc_sample" / f"ds={lost}")
    done = deployment.backfill("2026-01-03", "2026-01-03")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 of 1 days to run" in done.stdout
    assert "prepare_window  2026-01-02 .. 2026-01-02: 1 days before the first are missing" in done.stdout
    assert digests(deployment.lakehouse, lost) == before


def test_a_second_backfill_is_refused_and_an_interrupted_one_goes_on(deployment):
    command = [sys.executable, "-m", "services.backfill", "--from", "2026-01-03", "--to", "2026-01-05"]
    first = subprocess.Popen(
        [*command, "--reprocess", "completed"],
        cwd=REPOSITORY,
        env=deployment.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not any(each["completed_at"] is None for each in deployment.airflow.backfills("daily_cycle")):
        time.sleep(0.2)
    second = deployment.backfill("2026-01-05", "2026-01-05")
    assert second.returncode == 1
    assert "goes on; wait or cancel it" in second.stderr
    time.sleep(3)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "goes on in Airflow; cancel it" in output
    cancelled = deployment.run("services.backfill", "--cancel")
    assert cancelled.returncode == 0
    assert "is cancelled; the day that it is at is finished" in cancelled.stdout
    assert deployment.run("services.backfill", "--cancel").returncode == 1


def test_the_secret_address_is_in_no_log(deployment):
    shutil.rmtree(deployment.folder / "var" / "mlartifacts", ignore_errors=True)
    for path in [*deployment.folder.glob("*.log"), *(deployment.folder / "airflow" / "logs").rglob("*.log")]:
        assert "/secret" not in path.read_text(errors="replace"), path


@pytest.fixture(scope="module")
def night(tmp_path_factory) -> Iterator[Deployment]:
    """Services of their own, on a world whose last day is yesterday."""
    first_day = datetime.now(UTC).date() - timedelta(days=5)
    more = {"TRIBUTARY_SOURCE__SYNTHETIC__FIRST_DAY": str(first_day)}
    with empty_database() as address, running(address, tmp_path_factory.mktemp("night"), **more) as made:
        yield made


def test_the_schedule_alone_runs_a_night_to_a_release_that_serves_and_alerts_nobody(night):
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    prepared = night.airflow.trigger_dag("prepare_window", {"day": str(yesterday)})
    wait_for(lambda: night.airflow.dag_run("prepare_window", prepared)["state"] == "success")
    night.airflow.set_paused("daily_cycle", False)
    wait_for(lambda: night.airflow.dag_runs("daily_cycle"))
    (run,) = night.airflow.dag_runs("daily_cycle")
    assert run["run_type"] == "scheduled"
    run_id = run["dag_run_id"]
    wait_for(lambda: night.airflow.dag_run("daily_cycle", run_id)["state"] in ("success", "failed"))
    assert night.airflow.dag_run("daily_cycle", run_id)["state"] == "success"
    wait_for(lambda: read_serving(night.folder / "var" / "releases") is not None)
    served = read_serving(night.folder / "var" / "releases")
    assert (served.version, served.day) == ("1", yesterday)
    status = night.run("services.status")
    assert status.returncode == 0, status.stdout
    assert night.alerts == []


def wait_for(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + NIGHT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(1)
