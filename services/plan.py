"""
What is to run for a state folder: addresses, environment, processes, passwords?

Reads the settings and the machine (programs, free ports) and writes the files that the processes start from.
"""

import os
import pwd
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.credentials import ensure_credentials
from services.databases import (
    choose_postgres_user,
    database_names,
    ensure_cluster,
    ensure_databases,
    find_binary,
    mlflow_auth_file,
    own_postgres_url,
)
from services.environment import Addresses, Database, Environment, tributary_environment
from services.ports import HOST, choose_ports, read_ports
from services.processes import (
    Process,
    postgres_process,
    redis_process,
    render_script,
    render_supervisor,
    server_processes,
)
from services.state import State, write_private
from tasks.services_config import ServicesConfig


@dataclass(frozen=True)
class Plan:
    """All that `make up` starts, in order."""

    state: State
    config: ServicesConfig
    addresses: Addresses
    environment: Environment
    processes: list[Process]
    credentials: dict[str, str]

    def find(self, name: str) -> Process | None:
        """Give the process of a name; None if a server that runs already takes its place."""
        return next((process for process in self.processes if process.name == name), None)

    def write_files(self) -> None:
        """Write the environment, the start scripts and supervisor's configuration; no secrets in them."""
        user = pwd.getpwuid(0).pw_name if os.getuid() == 0 else ""
        write_private(self.state.environment_file, self.environment.render(self.state))
        write_private(
            self.state.folder / "mlflow" / "basic_auth.ini", mlflow_auth_file(self.addresses.mlflow_database)
        )
        for process in self.processes:
            if process.has_script:
                write_private(self.state.scripts / f"{process.name}.sh", render_script(process, self.state))
        write_private(self.state.supervisor_file, render_supervisor(self.processes, self.state, user))

    def has_changed(self) -> bool:
        """Tell whether what runs was started with other settings."""
        return self.environment.render(self.state) != self.state.environment_file.read_text()

    def make_databases(self) -> None:
        """
        Make Airflow's and MLflow's databases where they are missing.

        Raises:
            ServicesError: PostgreSQL is away or refuses.
        """
        own = self.find("postgres")
        databases = [self.addresses.airflow_database, self.addresses.mlflow_database]
        passwords = [self.credentials[name] for name in ("AIRFLOW_DB_PASSWORD", "MLFLOW_DB_PASSWORD")]
        if own:
            port = int(own.address.rpartition(":")[2])
            admin = self.credentials["POSTGRES_PASSWORD"]
            ensure_databases(own_postgres_url(port), databases, passwords, admin=admin)
        else:
            ensure_databases(self.config.postgres_url, databases, passwords, admin=None)


def make_plan(state: State, config: ServicesConfig, *, is_up: bool = False) -> Plan:
    """
    Settle what runs where, and make what has to be there before: passwords, a database cluster.

    With ``is_up`` the ports are those in use.

    Raises:
        ServicesError: a program is missing, a port is taken, or a folder or file cannot be made.
    """
    programs = find_programs(config)
    owned = [name for name in ("postgres", "redis") if not getattr(config, f"{name}_url")]
    postgres_user = choose_postgres_user(state) if "postgres" in owned else ""
    ports_file = state.folder / "ports.json"
    names = [*owned, "airflow", "mlflow", "scheduler", "hook"]
    ports = read_ports(ports_file) if is_up else choose_ports(config, names, ports_file)
    addresses = choose_addresses(state, config, ports)
    environment = tributary_environment(state, config, addresses, dict(os.environ))
    given = environment.given_secrets | ({"REDIS_URL": config.redis_url} if config.redis_url else {})
    credentials = ensure_credentials(state, given)
    processes = []
    if "postgres" in owned:
        ensure_cluster(programs["initdb"], state, postgres_user, credentials["POSTGRES_PASSWORD"])
        processes.append(postgres_process(programs["postgres"], state, ports["postgres"], postgres_user))
    if "redis" in owned:
        (state.folder / "redis").mkdir(mode=0o700, exist_ok=True)
        processes.append(redis_process(programs["redis-server"], state, ports["redis"]))
    processes += server_processes(state, config, addresses)
    return Plan(state, config, addresses, environment, processes, credentials)


def find_programs(config: ServicesConfig) -> dict[str, str]:
    """
    Find the programs of the servers that are ours to start.

    Raises:
        ServicesError: one is not installed.
    """
    wanted = {}
    if not config.postgres_url:
        wanted |= {"initdb": "postgres_url", "postgres": "postgres_url"}
    if not config.redis_url:
        wanted |= {"redis-server": "redis_url"}
    return {name: find_binary(name, setting) for name, setting in wanted.items()}


def choose_addresses(state: State, config: ServicesConfig, ports: dict[str, int]) -> Addresses:
    """Say where every service listens, and under which names its data is."""
    shared = urlsplit(config.postgres_url)
    host, port = (shared.hostname, shared.port or 5432) if config.postgres_url else (HOST, ports["postgres"])
    airflow, mlflow = database_names(state, is_shared=bool(config.postgres_url))
    return Addresses(
        airflow_port=ports["airflow"],
        mlflow_port=ports["mlflow"],
        scheduler_port=ports["scheduler"],
        airflow_database=Database(host, port, airflow, "${AIRFLOW_DB_PASSWORD}"),
        mlflow_database=Database(host, port, mlflow, "${MLFLOW_DB_PASSWORD}"),
        online_store_url=_online_store_url(state, config, ports),
        hook_port=ports.get("hook", 0),
    )


def _online_store_url(state: State, config: ServicesConfig, ports: dict[str, int]) -> str:
    if not config.redis_url:
        return f"redis://:${{REDIS_PASSWORD}}@{HOST}:{ports['redis']}/0"
    query = urlsplit(config.redis_url).query
    if "prefix=" in query:
        return "${REDIS_URL}"
    return "${REDIS_URL}" + ("&" if query else "?") + f"prefix={state.database_prefix}"
