import pytest

from tasks.services_config import ServicesConfig
from tasks.settings import BadSettings, load_settings


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (
            {"STATSD_HOST": "a", "OTEL_ENDPOINT": "http://b:1"},
            "statsd_host and services.otel_endpoint are both",
        ),
        (
            {"AIRFLOW_PORT": "5000", "MLFLOW_PORT": "5000"},
            "airflow_port and services.mlflow_port are both 5000",
        ),
        ({"POSTGRES_URL": "mysql://u:hunter2@host"}, "services.postgres_url is no URL"),
        ({"POSTGRES_URL": "postgresql://u:hunter2@host:port"}, "services.postgres_url is no URL"),
        ({"POSTGRES_URL": "postgresql://u:hunter2@host?sslmode=require"}, "postgres_url has a query"),
        ({"POSTGRES_URL": "postgresql://u:hunter2@host", "POSTGRES_PORT": "5433"}, "give one of them"),
        ({"REDIS_URL": "http://:hunter2@host"}, "services.redis_url is no URL"),
        ({"OTEL_ENDPOINT": "collector:4318"}, "services.otel_endpoint is no URL"),
        ({"PARALLELISM": "0"}, "services.parallelism"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_in_one_line_without_passwords(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"TRIBUTARY_SERVICES__{name}", value)
    with pytest.raises(BadSettings, match=reason) as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_two_free_ports_are_no_contradiction() -> None:
    config = ServicesConfig(airflow_port=0, mlflow_port=0, postgres_port=0, redis_port=0)
    assert config.airflow_port == config.mlflow_port == 0
