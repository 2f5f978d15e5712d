"""
Which processes make up the services, in which order do they start, and how does supervisor run them?

Pure: one entry per process, the same as in ``docker-compose.yml``. Each is started by a small shell script
that sources the secrets file, so that no secret is in a command line or in supervisor's configuration.
"""

import shlex
import sys
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from services.environment import Addresses, mlflow_variables, render_exports
from services.ports import HOST
from services.state import State
from tasks.services_config import ServicesConfig
from tasks.settings import REPOSITORY

BIN = Path(sys.executable).parent
REDIS_CONFIG = """\
bind {host}
port {port}
requirepass $REDIS_PASSWORD
dir "{folder}"
appendonly yes
maxmemory-policy noeviction
"""


class Stage(IntEnum):
    """What starts together: each stage needs those before it."""

    DATABASES = 0
    TRACKING = 1
    SERVERS = 2
    SCHEDULER = 3


@dataclass(frozen=True)
class Process:
    """
    One process of the services.

    ``health`` is what proves it ready: an http address, or ``postgres``, ``redis``, ``dag-processor``.
    """

    name: str
    stage: Stage
    command: list[str]
    address: str
    health: str
    variables: dict[str, str] = field(default_factory=dict)
    is_tributary: bool = False
    stdin: str = ""
    user: str = ""
    folder: Path = REPOSITORY
    stop_signal: str = "TERM"
    stop_seconds: int = 20

    @property
    def has_script(self) -> bool:
        """Tell whether it needs more than its command: an environment, or standard input."""
        return bool(self.variables or self.is_tributary or self.stdin)


def postgres_process(binary: str, state: State, port: int, user: str) -> Process:
    """Give our own PostgreSQL: this machine only, no Unix socket."""
    options = {"listen_addresses": HOST, "port": str(port), "unix_socket_directories": ""}
    arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    return Process(
        name="postgres",
        stage=Stage.DATABASES,
        command=[binary, "-D", str(state.folder / "postgres"), *arguments],
        address=f"{HOST}:{port}",
        health="postgres",
        user=user,
        folder=Path("/"),
        stop_signal="INT",
        stop_seconds=60,
    )


def redis_process(binary: str, state: State, port: int) -> Process:
    """Give our own Redis; its configuration comes by standard input and stays off the disk."""
    folder = state.folder / "redis"
    return Process(
        name="redis",
        stage=Stage.DATABASES,
        command=[binary, "-"],
        address=f"{HOST}:{port}",
        health="redis",
        stdin=REDIS_CONFIG.format(host=HOST, port=port, folder=folder),
        folder=folder,
        stop_seconds=60,
    )


def server_processes(state: State, config: ServicesConfig, addresses: Addresses) -> list[Process]:
    """Give MLflow and Airflow, in the order of their start."""
    airflow, port = str(BIN / "airflow"), str(addresses.airflow_port)
    scheduler_health = f"http://{HOST}:{addresses.scheduler_port}/health"
    return [
        mlflow_process(state, config, addresses),
        Process(
            name="airflow-api-server",
            stage=Stage.SERVERS,
            command=[airflow, "api-server", "--host", HOST, "--port", port, "--workers", "1"],
            address=addresses.airflow_url,
            health=f"{addresses.airflow_url}/api/v2/monitor/health",
            is_tributary=True,
        ),
        Process(
            name="airflow-dag-processor",
            stage=Stage.SERVERS,
            command=[airflow, "dag-processor"],
            address="",
            health="dag-processor",
            is_tributary=True,
        ),
        Process(
            name="airflow-scheduler",
            stage=Stage.SCHEDULER,
            command=[airflow, "scheduler", "--skip-serve-logs"],
            address=f"{HOST}:{addresses.scheduler_port}/health",
            health=scheduler_health,
            stop_seconds=30,
            is_tributary=True,
        ),
        hook_process(addresses),
    ]


def mlflow_process(state: State, config: ServicesConfig, addresses: Addresses) -> Process:
    """Give the MLflow server: basic auth, its own host names only."""
    folder, port = state.folder / "mlflow", addresses.mlflow_port
    origins = [addresses.mlflow_url, f"http://localhost:{port}"]
    if config.public_mlflow_url:
        origins.append(config.public_mlflow_url.rstrip("/"))
    return Process(
        name="mlflow",
        stage=Stage.TRACKING,
        command=[
            str(BIN / "mlflow"),
            "server",
            f"--host={HOST}",
            f"--port={port}",
            "--workers=1",
            "--app-name=basic-auth",
            f"--artifacts-destination={folder / 'artifacts'}",
            f"--allowed-hosts={','.join(origin.split('://')[1] for origin in origins)}",
            f"--cors-allowed-origins={','.join(origins)}",
        ],
        address=addresses.mlflow_url,
        health=f"{addresses.mlflow_url}/health",
        variables=mlflow_variables(config, addresses, str(folder / "basic_auth.ini")),
        folder=folder,
    )


def hook_process(addresses: Addresses) -> Process:
    """Give the publish hook, which MLflow calls when an alias moves."""
    address = f"http://{HOST}:{addresses.hook_port}"
    return Process(
        name="publish-hook",
        stage=Stage.SCHEDULER,
        command=[sys.executable, "-m", "services.publish_hook"],
        address=address,
        health=f"{address}/health",
        variables={
            "TRIBUTARY_SERVICES__HOOK_PORT": str(addresses.hook_port),
            "TRIBUTARY_SERVICES__HOOK_SECRET": "${PUBLISH_HOOK_SECRET}",
        },
        is_tributary=True,
    )


def render_script(process: Process, state: State) -> str:
    """
    Write the script that starts a process, in the foreground.

    What a killed predecessor left behind (children that hold the port) is ended first.
    """
    secrets_file, environment = shlex.quote(str(state.secrets_file)), shlex.quote(str(state.environment_file))
    pid_file = shlex.quote(str(state.scripts / f"{process.name}.pid"))
    lines = [
        "#!/bin/sh",
        f"# Starts {process.name}; written by `make up`. Secrets are in the next line's file.",
        f". {environment if process.is_tributary else secrets_file}",
        *render_exports(process.variables),
        f"{shlex.quote(sys.executable)} -m services.leftovers {pid_file} $$",
        f"exec {shlex.join(process.command)}" + (" <<END" if process.stdin else ""),
    ]
    if process.stdin:
        lines += [process.stdin + "END"]
    return "\n".join(lines) + "\n"


def render_supervisor(processes: list[Process], state: State, user: str) -> str:
    """Write supervisor's configuration; `services.up` starts the programs, supervisor restarts them."""
    logs, socket = _escape(state.logs), _escape(state.socket)
    sections = [
        f"""\
; Written by `make up`. No secrets in here.
[unix_http_server]
file={socket}
chmod=0600

[supervisord]
logfile={logs}/supervisord.log
logfile_maxbytes=10MB
logfile_backups=3
pidfile={_escape(state.folder)}/supervisord.pid
childlogdir={logs}
umask=077
{f"user={user}" if user else ""}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{socket}
"""
    ]
    for process in processes:
        script = state.scripts / f"{process.name}.sh"
        command = ["/bin/sh", str(script)] if process.has_script else process.command
        sections.append(
            f"""\
[program:{process.name}]
command={_escape(shlex.join(command))}
directory={_escape(process.folder)}
{f"user={process.user}" if process.user else ""}
priority={100 + process.stage}
autostart=false
autorestart=true
startsecs=2
startretries=1000
stopsignal={process.stop_signal}
stopwaitsecs={process.stop_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile={logs}/{process.name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=5
"""
        )
    return "\n".join(sections)


def _escape(value: object) -> str:
    """Keep supervisor from reading ``%`` as the start of a variable."""
    return str(value).replace("%", "%%")
