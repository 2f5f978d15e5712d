"""Fixtures that several test folders share: the real data, where it is."""

import os
import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# Started first, so that no worker is left with one of them at the end.
LONGEST = (
    "tests/nearline/test_mnr_job.py",
    "tests/test_run.py",
    "tests/services/test_up.py",
    "tests/faults/",
    "tests/dags/test_compare_methods.py",
    "tests/sql/test_spark.py",
)


def pytest_configure() -> None:
    """Keep every library from writing outside the test run or phoning home; let commands be interrupted."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A shell starts what it runs in the background with SIGINT ignored, and that is passed on to every child.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first."""
    ranks = {item: [item.nodeid.startswith(path) for path in LONGEST] for item in items}
    items.sort(key=ranks.get, reverse=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """
    Keep the tests of a file on one worker, which makes its fixtures once.

    So stay the files that share what takes long to start: the world of the faults, and Spark.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if file.startswith("tests/faults/"):
                return "faults"
            return "spark" if "spark" in file else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


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
