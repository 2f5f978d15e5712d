"""The prepared world, and the count of faults: a table at the end, as JSON with ``--fault-table FILE``."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail
from tests.faults.syscalls import IS_SUPPORTED
from tests.faults.tally import Tally
from tests.faults.world import World, prepare

# Where there is room, the world lives in memory: processes are killed here, machines are not.
MEMORY, ROOM = Path("/dev/shm"), 2**30
TALLY = pytest.StashKey[Tally]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", metavar="FILE", help="write the counts of faults as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TALLY] = Tally()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = config.stash[TALLY]
    if tally.counts:
        terminalreporter.section("faults")
        for line in tally.lines():
            terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if path := session.config.getoption("--fault-table", None):
        Path(path).write_text(json.dumps(session.config.stash[TALLY].facts(), indent=2) + "\n")


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Where a test counts its faults."""
    return request.config.stash[TALLY]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The world, which every test takes back to the moment that it starts from."""
    if not IS_SUPPORTED:
        skip_or_fail("killing at a system call needs Linux on x86_64")
    folder = tmp_path_factory.mktemp("world")
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        folder = Path(tempfile.mkdtemp(prefix="tributary-faults-", dir=MEMORY))
    try:
        world = prepare(folder)
        yield world
        world.children.close()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def world(prepared: World) -> World:
    """The world; nothing of an earlier test is left once a test has called ``restore``."""
    return prepared
