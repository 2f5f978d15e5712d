"""Fixtures that several test folders share: the real data, where it is."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Keep every library from writing outside the test run or phoning home."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def skip_or_fail(reason: str) -> None:
    """Skip with the reason; under CI an absent service or data set is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kuairand_pure() -> Path:
    """Folder of the real KuaiRand-Pure days."""
    data = Path(os.environ.get("TRIBUTARY_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    folder = data / "KuaiRand-Pure"
    if not folder.is_dir():
        skip_or_fail(f"no KuaiRand-Pure at {folder}; set TRIBUTARY_TEST_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def spark():
    """One Spark session on two threads of this machine; its start takes many seconds."""
    from types import SimpleNamespace

    from tasks.spark import SparkMissing, spark_session
    from tasks.spark_config import SparkConfig

    try:
        session = spark_session(SimpleNamespace(engine="spark", spark=SparkConfig()))
    except SparkMissing as missing:
        skip_or_fail(str(missing))
    yield session
    session.stop()
