"""Where do the services answer, and how does `make up` start them? Read by the settings."""

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

Port = Annotated[int, Field(ge=0, le=65535)]
OWN_PORTS = ("airflow_port", "mlflow_port", "postgres_port", "redis_port", "hook_port")
SCHEMES = {
    "airflow_url": ("http", "https"),
    "mlflow_url": ("http", "https"),
    "public_airflow_url": ("http", "https"),
    "public_mlflow_url": ("http", "https"),
    "hook_url": ("http", "https"),
    "otel_endpoint": ("http", "https"),
    "postgres_url": ("postgresql", "postgres"),
    "redis_url": ("redis", "rediss"),
}


class ServicesConfig(BaseModel):
    """The services of a state folder. A port of 0 is a free one; what is empty is not used."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    airflow_url: str = Field("", description="Address of Airflow's API; `make up` sets it.")
    mlflow_url: str = Field("", description="Address of the MLflow server; `make up` sets it.")

    postgres_url: str = Field(
        "",
        description="postgresql://user:password@host:port of a role that may create roles and databases;"
        " empty: `make up` starts a PostgreSQL of its own.",
    )
    redis_url: str = Field(
        "", description="redis://:password@host:port/db; empty: `make up` starts a Redis of its own."
    )

    airflow_port: Port = Field(8080, description="Port of Airflow's pages and API.")
    mlflow_port: Port = Field(5000, description="Port of MLflow.")
    postgres_port: Port = Field(0, description="Port of the PostgreSQL that `make up` starts.")
    redis_port: Port = Field(0, description="Port of the Redis that `make up` starts.")
    public_airflow_url: str = Field("", description="Where people reach Airflow, if behind a proxy.")
    public_mlflow_url: str = Field("", description="Where people reach MLflow, if behind a proxy.")

    hook_port: Port = Field(
        0, description="Port of the publish hook (services/publish_hook.py); 0: there is none."
    )
    hook_url: str = Field(
        "", description="Where MLflow reaches the publish hook, if not at http://127.0.0.1:<hook_port>."
    )
    hook_secret: Annotated[SecretStr | None, BeforeValidator(lambda value: value or None)] = Field(
        None, description="What MLflow signs its calls of the hook with; by a variable, not in the file."
    )

    parallelism: int = Field(2, ge=1, le=1024, description="Tasks that the scheduler runs at one time.")

    statsd_host: str = Field("", description="Host that Airflow sends its metrics to, as StatsD packets.")
    statsd_port: int = Field(8125, ge=1, le=65535, description="Its UDP port.")
    statsd_prefix: str = Field("airflow", min_length=1, description="First part of every metric's name.")
    otel_endpoint: str = Field(
        "", description="http://collector:4318 that Airflow sends its metrics to, as OTLP over HTTP."
    )

    @model_validator(mode="after")
    def _urls_name_their_kind(self) -> Self:
        for name, schemes in SCHEMES.items():
            url = getattr(self, name)
            if url and not _has_scheme_and_host(url, schemes):
                raise ValueError(
                    f"services.{name} is no URL of the form {schemes[0]}://host:port (its value is not shown)"
                )
        if urlsplit(self.postgres_url).query:
            raise ValueError(
                "services.postgres_url has a query; say the rest in variables, as PGSSLMODE=require"
            )
        return self

    @model_validator(mode="after")
    def _nothing_contradicts(self) -> Self:
        if self.statsd_host and self.otel_endpoint:
            raise ValueError(
                "services.statsd_host and services.otel_endpoint are both set, but Airflow sends its metrics"
                " to one place; empty one of them"
            )
        for name in ("postgres", "redis"):
            if getattr(self, f"{name}_url") and getattr(self, f"{name}_port"):
                raise ValueError(
                    f"services.{name}_url names a running server, and services.{name}_port is for one that"
                    " `make up` starts; give one of them"
                )
        ports = {name: getattr(self, name) for name in OWN_PORTS if getattr(self, name)}
        for name, port in ports.items():
            if others := [other for other in ports if other > name and ports[other] == port]:
                raise ValueError(f"services.{name} and services.{others[0]} are both {port}; change one")
        return self


def _has_scheme_and_host(url: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
