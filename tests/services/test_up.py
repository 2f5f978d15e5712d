"""
`make up` and `make down` for real: every service of one state folder, in the order of the tests of this file.
"""

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from services.airflow_api import AirflowApi, AirflowRefused, AirflowUnavailable
from services.credentials import read_credentials
from services.ports import is_listening
from services.supervisor import Supervisor
from tests.conftest import REPOSITORY
from tests.services.places import WAIT_SECONDS, Place, passable_folder, place_in, wait_until

AIRFLOW = ["airflow-api-server", "airflow-dag-processor", "airflow-scheduler"]
NAMES = ["postgres", "redis", "mlflow", *AIRFLOW, "publish-hook"]
HOOK = "https://hooks.example.org/a-secret-path"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with passable_folder() as made:
        yield made


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
        folder / "a place",
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
    get = partial(httpx.get, timeout=30)
    experiments = up.url("mlflow", "/api/2.0/mlflow/experiments/search?max_results=1")

    assert get(experiments, auth=account).status_code == httpx.codes.OK
    assert get(experiments).status_code == httpx.codes.UNAUTHORIZED
    assert get(experiments, auth=("admin", "password1234")).status_code == httpx.codes.UNAUTHORIZED
    foreign = get(experiments, auth=account, headers={"Host": "evil.example.org"})
    assert foreign.status_code == httpx.codes.FORBIDDEN

    with up.airflow() as airflow:
        assert airflow.get("dags")["total_entries"] >= 3
    assert get(up.url("airflow", "/api/v2/dags")).status_code == httpx.codes.UNAUTHORIZED
    with AirflowApi(up.url("airflow", ""), "admin", "admin") as stranger, pytest.raises(AirflowRefused):
        stranger.get("dags")


def test_only_the_nightly_dags_wait_for_their_operator(up: Place) -> None:
    with up.airflow() as airflow:
        paused = {dag["dag_id"] for dag in airflow.get("dags")["dags"] if dag["is_paused"]}
    assert paused == {"daily_cycle", "nearline_rankings"}


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


def main_processes(up: Place) -> set[int]:
    """Those that supervisor started itself; tasks come and go."""
    return {process.pid for process in psutil.Process(Supervisor(up.state).session()).children()}


def test_second_up_changes_nothing_and_says_so(up: Place) -> None:
    before = main_processes(up)
    again = up.run("services.up")
    assert again.returncode == 0, again.stderr
    assert "run already" in again.stdout
    assert main_processes(up) == before
    assert Supervisor(up.state).states() == dict.fromkeys(NAMES, "RUNNING")


def test_environment_file_leads_every_command_to_the_services(up: Place) -> None:
    found = up.variables()
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


def test_moving_the_alias_in_mlflow_publishes_at_once(up: Place) -> None:
    known = read_credentials(up.secrets_file)
    login = (known["MLFLOW_ADMIN_USERNAME"], known["MLFLOW_ADMIN_PASSWORD"])
    log = up.state.logs / "publish-hook.log"
    wait_until(lambda: "when an alias moves" in log.read_text())
    with up.airflow() as airflow, httpx.Client(auth=login, trust_env=False, timeout=30) as mlflow:

        def ask(method: str, what: str, **body: str) -> None:
            address = up.url("mlflow", f"/api/2.0/mlflow/{what}")
            mlflow.request(method, address, json=body).raise_for_status()

        def triggered() -> set[str]:
            runs = airflow.dag_runs("publish_release")
            return {run["dag_run_id"] for run in runs if run["run_type"] == "manual"}

        before = triggered()
        ask("POST", "registered-models/create", name="retrieval")
        ask("POST", "model-versions/create", name="retrieval", source="s3://bucket/model")
        moved = time.monotonic()
        ask("POST", "registered-models/alias", name="retrieval", alias="champion", version="1")
        wait_until(lambda: triggered() > before)
        print(f"from the alias to the run: {time.monotonic() - moved:.1f} s")
        ask("DELETE", "registered-models/delete", name="retrieval")


def test_killed_processes_are_started_again_without_what_they_left(up: Place) -> None:
    names = {"redis": "redis", "mlflow": "mlflow", "airflow-scheduler": "scheduler"}
    killed = {name: up.pid(name) for name in names}
    children = [child for pid in killed.values() for child in psutil.Process(pid).children(recursive=True)]
    assert len(children) >= 3
    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(child.is_running() for child in children))
    for name, port in names.items():
        wait_until(lambda name=name: up.pid(name) not in (0, killed[name]))
        wait_until(lambda port=port: is_listening(up.ports[port]))
    wait_until(lambda: set(Supervisor(up.state).states().values()) == {"RUNNING"})


def test_a_database_that_is_away_is_no_wrong_password(up: Place) -> None:
    up.supervise("stop", "postgres")
    try:
        with up.airflow() as airflow, pytest.raises(AirflowUnavailable, match="but its database is away"):
            airflow.is_paused("daily_cycle")
    finally:
        up.supervise("start", "postgres")
    with up.airflow() as airflow:
        wait_until(lambda: answers(airflow))


def answers(airflow: AirflowApi) -> bool:
    try:
        return airflow.is_paused("daily_cycle") is not None
    except AirflowUnavailable:
        return False


def test_a_backfill_that_is_ended_says_what_goes_on_and_another_is_refused_meanwhile(up: Place) -> None:
    days = ["--from", "2026-01-03", "--to", "2026-01-03"]
    first = subprocess.Popen(
        [sys.executable, "-u", "-m", "services.backfill", *days],
        cwd=REPOSITORY,
        env=up.environment | up.variables(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with up.airflow() as airflow:
        wait_until(lambda: airflow.dag_runs("prepare_window"))
        second = up.run("services.backfill", *days, **up.variables())
        first.terminate()
        output, _ = first.communicate(timeout=WAIT_SECONDS)
        run_id = airflow.dag_runs("prepare_window")[0]["dag_run_id"]
        airflow.patch(f"dags/prepare_window/dagRuns/{run_id}", {"state": "failed"})
    assert second.returncode == 1
    assert second.stderr.startswith("make backfill: prepare_window brings in the days before 2026-01-03 (")
    assert second.stderr.count("\n") == 1
    assert first.returncode == 130
    assert "prepare_window goes on in Airflow; no day of the backfill was started" in output


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
    assert not place.var.exists()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            {"SERVICES__POSTGRES_URL": "postgresql://me:hunter2@127.0.0.1:1", "N_THREADS": ""},
            "services.postgres_url: cannot connect to PostgreSQL at 127.0.0.1:1: .*Connection refused",
        ),
        ({"SERVICES__REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}, "services.redis_url: .*127.0.0.1:1"),
        ({"SOURCE__PRESET": "kuairand"}, "source kuairand needs DATA"),
        ({"SOURCE__PRESET": "kuairand", "SOURCE__DATA": "/nonexistent"}, "no folder /nonexistent; set DATA"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_made(
    folder: Path, given: dict[str, str], reason: str
) -> None:
    place = place_in(folder / "refused", **{f"TRIBUTARY_{name}": value for name, value in given.items()})
    started = place.run("services.up")
    assert started.returncode == 1
    assert re.search(reason, started.stderr)
    assert started.stderr.count("\n") == 1
    assert "hunter2" not in started.stderr
    assert not place.var.exists()
    assert not place.secrets_file.exists()


def test_missing_program_is_named_with_the_setting_that_does_without(folder: Path) -> None:
    place = place_in(folder / "missing", PATH=str(folder))
    started = place.run("services.up")
    assert started.returncode == 1
    assert "there is no program redis-server: install redis" in started.stderr
    assert "TRIBUTARY_SERVICES__REDIS_URL" in started.stderr
    assert started.stderr.count("\n") == 1
    assert not place.var.exists()


def test_service_that_dies_tells_its_last_words_and_leaves_no_process_and_no_setting(folder: Path) -> None:
    place = place_in(folder / "dies", TRIBUTARY_ALERTS__WEBHOOK_URL=HOOK)
    place.secrets_file.parent.mkdir(parents=True)
    place.secrets_file.write_text("KEPT_TRIBUTARY_ALERTS__WEBHOOK_URL=https://hooks.example.org/before\n")
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
    assert not place.state.environment_file.exists()
    known = read_credentials(place.secrets_file)
    assert known["KEPT_TRIBUTARY_ALERTS__WEBHOOK_URL"] == "https://hooks.example.org/before"
    assert len(known["POSTGRES_PASSWORD"]) == 32


def test_lost_passwords_are_asked_for_and_folders_of_make_run_refused(folder: Path) -> None:
    place = place_in(folder / "lost")
    place.state.folder.mkdir(parents=True)
    place.state.environment_file.write_text("# ...\n. /home/somebody/secrets.env\n")
    for parent in (place.state.folder, place.var, place.var.parent):
        parent.chmod(0o711)
    started = place.run("services.up")
    assert started.returncode == 1
    assert f"were in /home/somebody/secrets.env, not in {place.secrets_file}" in started.stderr

    place.state.environment_file.write_text(f"# ...\n. {place.secrets_file}\n")
    started = place.run("services.up")
    assert started.stderr.startswith(
        f"make up: the passwords of {place.var} are not in {place.secrets_file} any"
    )
    assert started.stderr.count("\n") == 1

    place.state.environment_file.unlink()
    (place.var / "mlflow.db").touch()
    started = place.run("services.up")
    assert started.returncode == 1
    assert "holds days of `make run`" in started.stderr
