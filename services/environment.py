"""
Which environment do the services, and the commands that talk to them, run in?

A value may hold ``${NAME}`` of the secrets file: it is written so, and only a shell that sourced that file
puts the secret in. What a person gave at `make up` (`GIVEN_PREFIXES`) is kept for every later command.
"""

import os
import re
import shlex
from dataclasses import dataclass, field

from services.credentials import is_secret
from services.ports import HOST
from services.state import State
from tasks.services_config import ServicesConfig
from tasks.settings import REPOSITORY

GIVEN_PREFIXES = ("TRIBUTARY_", "AIRFLOW__", "FSSPEC_", "OTEL_")
# Of the secrets file, what the commands on a state folder need by name.
EXPORTED_SECRETS = ("AIRFLOW_ADMIN_USERNAME", "AIRFLOW_ADMIN_PASSWORD")
KEPT = "KEPT_"
STATSD = tuple(f"AIRFLOW__METRICS__STATSD_{name}" for name in ("ON", "HOST", "PORT", "PREFIX"))
OTEL = (
    "AIRFLOW__METRICS__OTEL_ON",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
)
PLACEHOLDER = re.compile(r"(\$\{[A-Z][A-Z0-9_]*\})")
AUTH_MANAGER = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"


@dataclass(frozen=True)
class Database:
    """One database and its role of the same name; the password is a ``${NAME}``."""

    host: str
    port: int
    name: str
    password: str

    @property
    def url(self) -> str:
        """Its address for SQLAlchemy."""
        return f"postgresql+psycopg2://{self.name}:{self.password}@{self.host}:{self.port}/{self.name}"


@dataclass(frozen=True)
class Addresses:
    """Where the services of one state folder listen."""

    airflow_port: int
    mlflow_port: int
    scheduler_port: int
    airflow_database: Database
    mlflow_database: Database
    online_store_url: str
    hook_port: int = 0

    @property
    def airflow_url(self) -> str:
        """Airflow's pages and API."""
        return f"http://{HOST}:{self.airflow_port}"

    @property
    def mlflow_url(self) -> str:
        """MLflow's pages and API."""
        return f"http://{HOST}:{self.mlflow_port}"


@dataclass(frozen=True)
class Environment:
    """Variables of Airflow and of the commands: ours, and those a person gave."""

    ours: dict[str, str]
    given: dict[str, str] = field(default_factory=dict)

    @property
    def given_secrets(self) -> dict[str, str]:
        """Those given variables whose value belongs into the secrets file, under the names it has there."""
        return {f"{KEPT}{name}": value for name, value in self.given.items() if is_secret(name)}

    def render(self, state: State) -> str:
        """Write it as a shell file that sources the secrets file and shows no secret."""
        lines = [
            f"# Written by `make up`: what talks to the services of {state.var}.",
            "# Secrets are in the file that the next line names.",
            f". {shlex.quote(str(state.secrets_file))}",
            *(f"export {name}" for name in EXPORTED_SECRETS),
            "# Given at `make up`; what the caller sets wins.",
            *(self._render_given(name) for name in sorted(self.given)),
            "# The services.",
            *render_exports(self.ours),
        ]
        return "\n".join(lines) + "\n"

    def _render_given(self, name: str) -> str:
        value = f'"${{{KEPT}{name}}}"' if is_secret(name) else shlex.quote(self.given[name])
        return f'[ "${{{name}+set}}" ] || export {name}={value}'


def tributary_environment(
    state: State, config: ServicesConfig, addresses: Addresses, outside: dict[str, str]
) -> Environment:
    """Give the environment of Airflow's processes and of every command; ``outside`` is that of `make up`."""
    ours = {
        **airflow_variables(state, config, addresses),
        **metrics_variables(config),
        "GIT_PYTHON_REFRESH": "quiet",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_PASSWORD": "${MLFLOW_ADMIN_PASSWORD}",
        "MLFLOW_TRACKING_USERNAME": "${MLFLOW_ADMIN_USERNAME}",
        "TRIBUTARY_ONLINE_STORE_URL": addresses.online_store_url,
        "TRIBUTARY_SERVICES__AIRFLOW_URL": addresses.airflow_url,
        "TRIBUTARY_SERVICES__MLFLOW_URL": addresses.mlflow_url,
        "TRIBUTARY_TRACKING_URI": addresses.mlflow_url,
        "TRIBUTARY_VAR": str(state.var),
        **_without_proxy(outside),
    }
    reserved = {*ours, *STATSD, *OTEL}
    given = {k: v for k, v in outside.items() if k.startswith(GIVEN_PREFIXES) and k not in reserved}
    return Environment(ours, given)


def airflow_variables(state: State, config: ServicesConfig, addresses: Addresses) -> dict[str, str]:
    """Configure Airflow: FAB users, LocalExecutor, this machine only."""
    return {
        "AIRFLOW_HOME": str(state.airflow_home),
        "AIRFLOW__API__BASE_URL": config.public_airflow_url or addresses.airflow_url,
        "AIRFLOW__API__SECRET_KEY": "${AIRFLOW_API_SECRET_KEY}",
        "AIRFLOW__API_AUTH__JWT_SECRET": "${AIRFLOW_JWT_SECRET}",
        "AIRFLOW__CORE__AUTH_MANAGER": AUTH_MANAGER,
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{addresses.airflow_url}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__FERNET_KEY": "${AIRFLOW_FERNET_KEY}",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__PARALLELISM": str(config.parallelism),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": addresses.airflow_database.url,
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "true",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": HOST,
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(addresses.scheduler_port),
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    }


def metrics_variables(config: ServicesConfig) -> dict[str, str]:
    """Tell Airflow where its metrics go: StatsD, an OpenTelemetry collector, or nowhere."""
    if config.statsd_host:
        values = ("true", config.statsd_host, str(config.statsd_port), config.statsd_prefix)
        return dict(zip(STATSD, values, strict=True))
    if config.otel_endpoint:
        values = ("true", f"{config.otel_endpoint.rstrip('/')}/v1/metrics", "http/protobuf")
        return dict(zip(OTEL, values, strict=True))
    return {}


def mlflow_variables(config: ServicesConfig, addresses: Addresses, auth_file: str) -> dict[str, str]:
    """Configure the MLflow server; libpq reads PG*, so that no password is in a command line or file."""
    database = addresses.mlflow_database
    return {
        "MLFLOW_AUTH_ADMIN_PASSWORD": "${MLFLOW_ADMIN_PASSWORD}",
        "MLFLOW_AUTH_ADMIN_USERNAME": "${MLFLOW_ADMIN_USERNAME}",
        "MLFLOW_AUTH_CONFIG_PATH": auth_file,
        "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2:///{database.name}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "${MLFLOW_SECRET_KEY}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # The publish hook listens on this machine, without TLS.
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "${MLFLOW_WEBHOOK_KEY}",
        "PGHOST": database.host,
        "PGPASSWORD": database.password,
        "PGPORT": str(database.port),
        "PGUSER": database.name,
    }


def render_exports(variables: dict[str, str]) -> list[str]:
    """Write variables as shell lines; ``${NAME}`` stays for the shell, all else is literal."""
    return [f"export {name}={_quote(value)}" for name, value in sorted(variables.items())]


def outside_environment() -> dict[str, str]:
    """Give this process's environment without what belongs to services: for supervisord and its children."""
    ours = (*GIVEN_PREFIXES, "AIRFLOW_", "MLFLOW_", "POSTGRES_", "REDIS_", "PUBLISH_HOOK_", "MAKE", "MFLAGS")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _quote(value: str) -> str:
    parts = PLACEHOLDER.split(value)
    return "".join(f'"{part}"' if PLACEHOLDER.fullmatch(part) else _literal(part) for part in parts) or "''"


def _literal(text: str) -> str:
    return shlex.quote(text) if text else ""


def _without_proxy(outside: dict[str, str]) -> dict[str, str]:
    """Let this machine's own addresses be reached directly where a proxy is set."""
    kept = outside.get("NO_PROXY") or outside.get("no_proxy") or ""
    hosts = dict.fromkeys([*filter(None, kept.split(",")), HOST, "localhost"])
    return {name: ",".join(hosts) for name in ("NO_PROXY", "no_proxy")}
