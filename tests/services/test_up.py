"""
`make up` and `make down` for real: every service of one state folder, in the order of the tests of this file.
"""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from services.airflow_api import AirflowApi, AirflowRefused
from services.credentials import read_credentials
from services.leftovers import session_members
from services.ports import is_listening
from services.state import State
from services.supervisor import Supervisor
from tests.conftest import REPOSITORY, skip_or_fail

NAMES = ["postgres", "redis", "mlflow", "airflow-api-server", "airflow-dag-processor", "airflow-scheduler"]
WAIT_SECONDS = 60
HOOK = "https://hooks.example.org/a-secret-path"


@dataclass
class Place:
    """A state folder, the environment of its commands, and the metrics that arrived."""

    var: Path
    environment: dict[str, str]
    packets: list[str] = field(default_factory=list)

    @property
    def state(self) -> State:
        return State(self.var)

    @property
    def secrets_file(self) -> Path:
        return Path(self.environment["XDG_CONFIG_HOME"]) / "tributary" / self.state.name / "secrets.env"

    @property
    def ports(self) -> dict[str, int]:
        return json.loads((self.state.folder / "ports.json").read_text())

    def run(self, module: str, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", module],
            cwd=REPOSITORY,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    def url(self, service: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}{path}"

    def session(self) -> list[psutil.Process]:
        return session_members(Supervisor(self.state).session())

    def airflow(self) -> AirflowApi:
        known = read_credentials(self.secrets_file)
        return AirflowApi(
            self.url("airflow", ""), known["AIRFLOW_ADMIN_USERNAME"], known["AIRFLOW_ADMIN_PASSWORD"]
        )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Give a folder that the user of PostgreSQL may pass through, which pytest's own are not."""
    for name in ("redis-server", "supervisord"):
        path = f"{os.environ['PATH']}:{Path(sys.executable).parent}"
        if not shutil.which(name, path=path):
            skip_or_fail(f"no program {name}")
    made = Path(tempfile.mkdtemp(prefix="tributary-up-", dir="/tmp"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def place_in(folder: Path, **more: str) -> Place:
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("TRIBUTARY_", "AIRFLOW_"))}
    own = {
        "XDG_CONFIG_HOME": str(folder / "config"),
        "TRIBUTARY_VAR": str(folder / "var"),
        "TRIBUTARY_SERVICES__AIRFLOW_PORT": "0",
        "TRIBUTARY_SERVICES__MLFLOW_PORT": "0",
    }
    return Place(folder / "var", outside | own | more)


@pytest.fixture(scope="module")
def statsd() -> Iterator[tuple[int, list[str]]]:
    """Listen for StatsD packets; give the port and the names that arrive."""
    names: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.2)
        stop = threading.Event()

        def receive() -> None:
            while not stop.is_set():
                try:
                    names.extend(re.findall(r"^[^:\n]+", listening.recv(65_535).decode(), re.MULTILINE))
                except TimeoutError:
                    continue

        thread = threading.Thread(target=receive)
        thread.start()
        yield listening.getsockname()[1], names
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def up(folder: Path, statsd: tuple[int, list[str]]) -> Iterator[Place]:
    """Bring everything up; take it down at the end, whatever the tests did."""
    port, names = statsd
    place = place_in(
        folder,
        TRIBUTARY_SERVICES__STATSD_HOST="127.0.0.1",
        TRIBUTARY_SERVICES__STATSD_PORT=str(port),
        TRIBUTARY_ALERTS__WEBHOOK_URL=HOOK,
    )
    place.packets = names
    started = place.run("services.up")
    try:
        assert started.returncode == 0, started.stderr
        place.environment["SAID"] = started.stdout
        yield place
    finally:
        place.run("services.down")


def test_up_says_what_runs_where_the_passwords_are_and_what_to_do(up: Place) -> None:
    said = up.environment["SAID"]
    for name in NAMES:
        assert re.search(rf"^{name} .* running$", said, re.MULTILINE), said
    assert str(up.secrets_file) in said
    assert up.url("airflow", "") in said
    assert "make backfill FROM=" in said
    assert "airflow dags unpause daily_cycle" in said


def test_pages_answer_those_who_log_in_and_nobody_else(up: Place) -> None:
    known = read_credentials(up.secrets_file)
    account = (known["MLFLOW_ADMIN_USERNAME"], known["MLFLOW_ADMIN_PASSWORD"])
    experiments = up.url("mlflow", "/api/2.0/mlflow/experiments/search?max_results=1")

    assert httpx.get(experiments, auth=account).status_code == httpx.codes.OK
    assert httpx.get(experiments).status_code == httpx.codes.UNAUTHORIZED
    assert httpx.get(experiments, auth=("admin", "password1234")).status_code == httpx.codes.UNAUTHORIZED
    foreign = httpx.get(experiments, auth=account, headers={"Host": "evil.example.org"})
    assert foreign.status_code == httpx.codes.FORBIDDEN

    with up.airflow() as airflow:
        assert airflow.get("dags")["total_entries"] >= 3
    assert httpx.get(up.url("airflow", "/api/v2/dags")).status_code == httpx.codes.UNAUTHORIZED
    with AirflowApi(up.url("airflow", ""), "admin", "admin") as stranger, pytest.raises(AirflowRefused):
        stranger.get("dags")


def test_only_daily_cycle_waits_for_its_operator(up: Place) -> None:
    with up.airflow() as airflow:
        paused = {dag["dag_id"] for dag in airflow.get("dags")["dags"] if dag["is_paused"]}
    assert paused == {"daily_cycle"}


def test_no_secret_is_seen_in_logs_files_or_command_lines(up: Place) -> None:
    known = read_credentials(up.secrets_file)
    values = [value for name, value in known.items() if len(value) > 10 and "EMAIL" not in name]
    assert len(values) >= 10
    assert HOOK in values
    commands = [" ".join(process.cmdline()) for process in up.session()]
    assert len(commands) >= len(NAMES)
    written = [path for path in up.state.folder.rglob("*") if path.is_file() and "postgres" not in path.parts]
    assert len(written) > len(NAMES)
    for value in values:
        assert not [command for command in commands if value in command]
        assert not [path for path in written if value.encode() in path.read_bytes()]


def test_secrets_are_outside_the_repository_and_for_their_owner_only(up: Place) -> None:
    assert stat.S_IMODE(up.secrets_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(up.secrets_file.parent.stat().st_mode) == 0o700
    folder = up.state.folder
    private = [folder / "environment.sh", folder / "supervisord.conf", *folder.glob("run/*.sh")]
    assert len(private) >= 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert {stat.S_IMODE((folder / each).stat().st_mode) for each in ("logs", "airflow", "redis")} == {0o700}


def test_everything_listens_on_this_machine_only(up: Place) -> None:
    pids = {process.pid for process in up.session()}
    listening = [
        each
        for each in psutil.net_connections("tcp")
        if each.pid in pids and each.status == psutil.CONN_LISTEN
    ]
    assert {each.laddr.ip for each in listening} == {"127.0.0.1"}
    assert {each.laddr.port for each in listening} == set(up.ports.values())


def test_second_up_changes_nothing_and_says_so(up: Place) -> None:
    before = {process.pid for process in up.session()}
    again = up.run("services.up")
    assert again.returncode == 0, again.stderr
    assert "run already" in again.stdout
    assert {process.pid for process in up.session()} >= {p for p in before if psutil.pid_exists(p)}
    assert Supervisor(up.state).states() == dict.fromkeys(NAMES, "RUNNING")


def test_environment_file_leads_every_command_to_the_services(up: Place) -> None:
    program = f". {up.state.environment_file} && env -0"
    clean = {name: up.environment[name] for name in ("PATH", "XDG_CONFIG_HOME")}
    out = subprocess.run(["/bin/sh", "-euc", program], env=clean, capture_output=True, check=True).stdout
    found = dict(line.split("=", 1) for line in out.decode().split("\0") if line)
    known = read_credentials(up.secrets_file)
    assert found["TRIBUTARY_VAR"] == str(up.var)
    assert found["TRIBUTARY_TRACKING_URI"] == found["TRIBUTARY_SERVICES__MLFLOW_URL"] == up.url("mlflow", "")
    assert found["MLFLOW_TRACKING_PASSWORD"] == known["MLFLOW_ADMIN_PASSWORD"]
    assert found["TRIBUTARY_ONLINE_STORE_URL"].startswith(f"redis://:{known['REDIS_PASSWORD']}@127.0.0.1:")
    assert found["TRIBUTARY_ALERTS__WEBHOOK_URL"] == HOOK
    assert "POSTGRES_PASSWORD" not in found


def test_make_run_refuses_the_folder(up: Place) -> None:
    ran = up.run("tasks.run")
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "make backfill" in ran.stderr


def test_metrics_of_real_runs_reach_statsd(up: Place) -> None:
    with up.airflow() as airflow:
        run_id = airflow.trigger_dag("publish_release")
        wait_until(lambda: airflow.dag_run("publish_release", run_id)["state"] in ("success", "failed"))
        assert airflow.dag_run("publish_release", run_id)["state"] == "success"
    wanted = {
        "airflow.scheduler_heartbeat",
        "airflow.dag.publish_release.publish.duration",
        "airflow.dagrun.duration.success.publish_release",
        "airflow.task.duration",
    }
    wait_until(lambda: wanted <= set(up.packets))


def test_killed_processes_are_started_again_without_what_they_left(up: Place) -> None:
    names = {"redis": "redis", "mlflow": "mlflow", "airflow-scheduler": "scheduler"}
    killed = {name: int((up.state.scripts / f"{name}.pid").read_text()) for name in names}
    children = [child for pid in killed.values() for child in psutil.Process(pid).children(recursive=True)]
    assert len(children) >= 3
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(child.is_running() for child in children))
    for name, port in names.items():
        wait_until(lambda name=name: int((up.state.scripts / f"{name}.pid").read_text()) != killed[name])
        wait_until(lambda port=port: is_listening(up.ports[port]))
    wait_until(lambda: set(Supervisor(up.state).states().values()) == {"RUNNING"})


def test_down_leaves_no_process_and_no_port_and_can_be_repeated(up: Place) -> None:
    members, ports = up.session(), up.ports.values()
    down = up.run("services.down")
    assert down.returncode == 0, down.stderr
    assert not [process for process in members if process.is_running()]
    assert not [process for process in psutil.process_iter(["cmdline"]) if mentions(process, up.var)]
    assert not [port for port in ports if is_listening(port)]

    again = up.run("services.down")
    assert (again.returncode, again.stdout) == (0, f"No services run for {up.var}\n")
    assert up.secrets_file.exists()
    assert up.state.environment_file.exists()


def mentions(process: psutil.Process, var: Path) -> bool:
    return str(var) in " ".join(process.info["cmdline"] or [])


def wait_until(holds, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def test_taken_port_names_its_holder_and_the_setting_and_starts_nothing(folder: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        place = place_in(folder / "taken", TRIBUTARY_SERVICES__MLFLOW_PORT=str(port))
        started = place.run("services.up")
    assert started.returncode == 1
    assert started.stderr.startswith(f"make up: port {port} for mlflow is taken by ")
    assert f"(pid {os.getpid()})" in started.stderr
    assert "TRIBUTARY_SERVICES__MLFLOW_PORT" in started.stderr
    assert started.stderr.count("\n") == 1
    assert not Supervisor(place.state).is_up()


def test_missing_program_is_named_with_the_setting_that_does_without(folder: Path) -> None:
    place = place_in(folder / "missing", PATH=str(folder))
    started = place.run("services.up")
    assert started.returncode == 1
    assert "there is no program redis-server: install redis" in started.stderr
    assert "TRIBUTARY_SERVICES__REDIS_URL" in started.stderr
    assert started.stderr.count("\n") == 1
    assert not place.var.exists()


def test_service_that_dies_tells_its_last_words_and_takes_the_others_along(folder: Path) -> None:
    place = place_in(folder / "dies")
    data = place.state.folder / "postgres"
    data.mkdir(parents=True)
    for parent in (data.parent, place.var, place.var.parent):
        parent.chmod(0o711)
    (data / "PG_VERSION").write_text("9.1\n")
    if os.getuid() == 0:
        shutil.chown(data, "postgres")
    data.chmod(0o700)
    started = place.run("services.up")
    assert started.returncode == 1
    (last,) = started.stderr.splitlines()
    assert last.startswith("make up: postgres died at its start: ")
    assert last.endswith(f"log: {place.state.logs}/postgres.log")
    assert not Supervisor(place.state).is_up()
    assert not is_listening(place.ports["redis"])


def test_lost_passwords_are_asked_for_and_folders_of_make_run_refused(folder: Path) -> None:
    place = place_in(folder / "lost")
    place.state.folder.mkdir(parents=True)
    place.state.environment_file.write_text("# ...\n. /home/somebody/secrets.env\n")
    for parent in (place.state.folder, place.var, place.var.parent):
        parent.chmod(0o711)
    started = place.run("services.up")
    assert started.returncode == 1
    assert f"were in /home/somebody/secrets.env, not in {place.secrets_file}" in started.stderr

    place.state.environment_file.unlink()
    (place.var / "mlflow.db").touch()
    started = place.run("services.up")
    assert started.returncode == 1
    assert "holds days of `make run`" in started.stderr
