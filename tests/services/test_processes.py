"""What would run, and from which files: no process is started."""

import subprocess
import tempfile
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path

import pytest
import yaml

from services.credentials import ensure_credentials, new_credentials, read_credentials
from services.databases import database_names, mlflow_auth_file
from services.environment import Addresses, Database, tributary_environment
from services.plan import choose_addresses
from services.ports import choose_ports
from services.processes import (
    postgres_process,
    redis_process,
    render_script,
    render_supervisor,
    server_processes,
)
from services.state import ServicesError, State
from tasks.services_config import ServicesConfig
from tests.conftest import REPOSITORY

PORTS = {"airflow": 1111, "mlflow": 2222, "scheduler": 3333, "postgres": 4444, "redis": 5555, "hook": 6666}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    # Short, unlike pytest's own folders: it holds a socket.
    with tempfile.TemporaryDirectory(prefix="up-") as folder:
        yield State(Path(folder) / "my var")


def processes(state: State, config: ServicesConfig) -> list:
    servers = server_processes(state, config, choose_addresses(state, config, PORTS))
    return [
        postgres_process("/bin/postgres", state, 4444, ""),
        redis_process("/bin/redis", state, 5555),
        *servers,
    ]


def addresses() -> Addresses:
    database = Database("db.example.org", 5432, "airflow", "${AIRFLOW_DB_PASSWORD}")
    return Addresses(1111, 2222, 3333, database, database, "redis://:${REDIS_PASSWORD}@127.0.0.1:5555/0")


def source(state: State, environment, **before: str) -> dict[str, str]:
    """Source the environment file as a shell does; give what it exports."""
    state.folder.mkdir(parents=True, exist_ok=True)
    ensure_credentials(state, environment.given_secrets)
    state.environment_file.write_text(environment.render(state))
    command = ["/bin/sh", "-euc", '. "$0" && env -0', str(state.environment_file)]
    out = subprocess.run(command, env=before, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in out.split("\0") if line)


def test_same_services_run_as_in_containers(state: State) -> None:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    names = [process.name for process in processes(state, ServicesConfig())]
    optional = {name for name, service in compose["services"].items() if "profiles" in service}
    assert set(names) == set(compose["services"]) - optional - {"airflow-init"}


def test_airflow_is_configured_as_in_containers(state: State) -> None:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    theirs = compose["services"]["airflow-scheduler"]["environment"]
    ours = tributary_environment(state, ServicesConfig(), addresses(), {}).ours
    only_here = {name for name in ours if name.startswith("AIRFLOW__")} - set(theirs)
    only_there = {name for name in theirs if name.startswith("AIRFLOW__")} - set(ours)
    assert only_here == {
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT",
    }
    assert {name for name in only_there if "METRICS" not in name} == set()


def test_later_stages_come_later_and_databases_stop_last(state: State) -> None:
    stages = [process.stage for process in processes(state, ServicesConfig())]
    assert stages == sorted(stages)
    config = RawConfigParser()
    config.read_string(render_supervisor(processes(state, ServicesConfig()), state, ""))
    priority = {name: int(config[name]["priority"]) for name in config.sections() if "program" in name}
    assert max(priority, key=priority.get) == "program:airflow-scheduler"
    assert min(priority, key=priority.get) == "program:postgres"


def test_supervisor_restarts_everything_and_listens_on_a_private_socket(state: State) -> None:
    config = RawConfigParser()
    config.read_string(render_supervisor(processes(state, ServicesConfig()), state, "root"))
    programs = [config[name] for name in config.sections() if name.startswith("program:")]
    assert len(programs) == 7
    for program in programs:
        assert (program["autorestart"], program["killasgroup"]) == ("true", "true")
        assert program["stdout_logfile"].startswith(str(state.logs))
    assert config["unix_http_server"]["chmod"] == "0600"
    assert "inet_http_server" not in config.sections()


def test_scripts_take_secrets_from_their_file_only(state: State) -> None:
    made = new_credentials()
    for process in processes(state, ServicesConfig()):
        script = render_script(process, state)
        assert not [name for name, value in made.items() if len(value) > 10 and value in script]
        assert "PASSWORD" not in " ".join(process.command)
    mlflow = next(each for each in processes(state, ServicesConfig()) if each.name == "mlflow")
    assert 'export PGPASSWORD="${MLFLOW_DB_PASSWORD}"' in render_script(mlflow, state)


def test_script_gives_redis_its_password_by_standard_input(state: State) -> None:
    state.make_folders()
    password = ensure_credentials(state, {})["REDIS_PASSWORD"]
    script = render_script(redis_process("/bin/cat", state, 5555), state)
    ran = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert f"requirepass {password}\n" in ran.stdout
    assert f'dir "{state.folder}/redis"\n' in ran.stdout
    assert "bind 127.0.0.1\n" in ran.stdout


def test_environment_keeps_what_was_given_and_what_the_caller_sets_wins(state: State) -> None:
    outside = {
        "TRIBUTARY_SOURCE__PRESET": "kuairand",
        "TRIBUTARY_SOURCE__DATA": "/it's here",
        "TRIBUTARY_ALERTS__WEBHOOK_URL": "https://hooks.example.org/$(secret)'\"path",
        "TRIBUTARY_TRACKING_URI": "sqlite:///elsewhere.db",
        "HOME": "/root",
    }
    environment = tributary_environment(state, ServicesConfig(), addresses(), outside)
    found = source(state, environment)
    for name in ("TRIBUTARY_SOURCE__PRESET", "TRIBUTARY_SOURCE__DATA", "TRIBUTARY_ALERTS__WEBHOOK_URL"):
        assert found[name] == outside[name]
    assert found["TRIBUTARY_TRACKING_URI"] == "http://127.0.0.1:2222"
    assert found["TRIBUTARY_VAR"] == str(state.var)
    known = read_credentials(state.secrets_file)
    assert known["AIRFLOW_DB_PASSWORD"] in found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert "hooks.example.org" not in state.environment_file.read_text()

    assert (
        source(state, environment, TRIBUTARY_SOURCE__PRESET="taobao")["TRIBUTARY_SOURCE__PRESET"] == "taobao"
    )


def test_environment_without_its_secrets_fails_in_one_line(state: State) -> None:
    state.folder.mkdir(parents=True)
    environment = tributary_environment(state, ServicesConfig(), addresses(), {})
    state.environment_file.write_text(environment.render(state))
    for shell in ("/bin/sh", "/bin/bash"):
        command = [shell, "-c", '. "$0" || exit 1; echo goes on', str(state.environment_file)]
        ran = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr.startswith(f"the passwords of {state.var} are not in {state.secrets_file} any more")
        assert ran.stderr.count("\n") == 1


def test_what_is_given_takes_the_place_of_what_was_given_before(state: State) -> None:
    made = ensure_credentials(state, {"KEPT_TRIBUTARY_A": "1", "REDIS_URL": "redis://a"})
    later = ensure_credentials(state, {"KEPT_TRIBUTARY_B": "2"})
    assert later == read_credentials(state.secrets_file)
    assert set(made) - set(later) == {"KEPT_TRIBUTARY_A", "REDIS_URL"}
    assert later["REDIS_PASSWORD"] == made["REDIS_PASSWORD"]


def test_metrics_go_where_the_settings_say_and_nowhere_by_default(state: State) -> None:
    def metrics(config: ServicesConfig) -> dict[str, str]:
        ours = tributary_environment(state, config, addresses(), {}).ours
        return {name: value for name, value in ours.items() if "METRICS" in name}

    assert metrics(ServicesConfig()) == {}
    statsd = metrics(ServicesConfig(statsd_host="metrics.example.org", statsd_port=9125))
    assert statsd["AIRFLOW__METRICS__STATSD_ON"] == "true"
    assert statsd["AIRFLOW__METRICS__STATSD_HOST"] == "metrics.example.org"
    assert statsd["AIRFLOW__METRICS__STATSD_PORT"] == "9125"
    otel = metrics(ServicesConfig(otel_endpoint="http://collector:4318/"))
    assert otel["AIRFLOW__METRICS__OTEL_ON"] == "true"
    assert otel["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] == "http://collector:4318/v1/metrics"


def test_shared_servers_hold_databases_and_keys_named_after_the_state_folder(state: State) -> None:
    config = ServicesConfig(
        postgres_url="postgresql://u:p@db.example.org", redis_url="redis://:p@r.example.org/3"
    )
    chosen = choose_addresses(state, config, PORTS)
    names = database_names(state, is_shared=True)
    assert names[0].startswith("tributary_my_var_")
    assert len(names[0]) <= 63
    assert chosen.airflow_database == Database("db.example.org", 5432, names[0], "${AIRFLOW_DB_PASSWORD}")
    assert chosen.online_store_url == f"${{REDIS_URL}}?prefix={state.database_prefix}"
    assert f"postgresql+psycopg2:///{names[1]}\n" in mlflow_auth_file(chosen.mlflow_database)
    assert State(state.var / "other").database_prefix != state.database_prefix


def test_mlflow_admits_the_names_it_is_reached_by(state: State) -> None:
    config = ServicesConfig(public_mlflow_url="https://mlflow.example.org")
    mlflow = next(each for each in processes(state, config) if each.name == "mlflow")
    assert "--allowed-hosts=127.0.0.1:2222,localhost:2222,mlflow.example.org" in mlflow.command
    assert "--app-name=basic-auth" in mlflow.command


def test_credentials_are_made_once_and_private(state: State) -> None:
    made = ensure_credentials(state, {})
    assert ensure_credentials(state, {}) == made
    assert ensure_credentials(state, {"REDIS_URL": "redis://x y'z"})["REDIS_URL"] == "redis://x y'z"
    assert read_credentials(state.secrets_file)["REDIS_URL"] == "redis://x y'z"
    assert state.secrets_file.stat().st_mode & 0o777 == 0o600
    assert not str(state.secrets_file).startswith(str(state.var))
    assert len({value for name, value in made.items() if "USERNAME" not in name}) == len(made) - 2


def test_broken_credentials_are_refused_without_showing_them(state: State) -> None:
    state.secrets_file.parent.mkdir(parents=True)
    state.secrets_file.write_text("GOOD=1\nhunter2 is not a line\n")
    with pytest.raises(ServicesError, match="line 2 is not NAME=value") as caught:
        ensure_credentials(state, {})
    assert "hunter2" not in str(caught.value)


def test_free_ports_stay_the_same_from_start_to_start(tmp_path: Path) -> None:
    config = ServicesConfig(airflow_port=0, mlflow_port=0)
    memory = tmp_path / "ports.json"
    ports = choose_ports(config, list(PORTS), memory)
    assert len(set(ports.values())) == len(PORTS)
    assert choose_ports(config, list(PORTS), memory) == ports


def test_one_command_at_a_time(state: State) -> None:
    state.make_folders()
    with state.lock(), pytest.raises(ServicesError, match="another `make up` or `make down` is at work"):
        state.lock().__enter__()


@pytest.mark.parametrize(
    ("name", "reason"), [("a" * 120, "too long a path"), ("what'quote", "choose a VAR without it")]
)
def test_state_folder_that_cannot_hold_services_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(ServicesError, match=reason):
        State(tmp_path / name).make_folders()
    assert not (tmp_path / name).exists()
