"""A state folder of its own for `make up`, and its commands, for the tests that bring services up."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from services.airflow_api import AirflowApi
from services.credentials import read_credentials
from services.leftovers import session_members
from services.state import State
from services.supervisor import Supervisor
from tests.conftest import REPOSITORY, skip_or_fail

WAIT_SECONDS = 60


@dataclass
class Place:
    """A state folder, the environment of its commands, and the metrics that arrived."""

    var: Path
    environment: dict[str, str]
    packets: list[str] = field(default_factory=list)

    @property
    def state(self) -> State:
        return State(self.var)

    @property
    def secrets_file(self) -> Path:
        return Path(self.environment["XDG_CONFIG_HOME"]) / "tributary" / self.state.name / "secrets.env"

    @property
    def ports(self) -> dict[str, int]:
        return json.loads((self.state.folder / "ports.json").read_text())

    def run(self, module: str, *arguments: str, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    def url(self, service: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}{path}"

    def session(self) -> list[psutil.Process]:
        return session_members(Supervisor(self.state).session())

    def pid(self, process: str) -> int:
        """Give the process that supervisor runs under a name now."""
        return int((self.state.scripts / f"{process}.pid").read_text())

    def variables(self) -> dict[str, str]:
        """Give the environment that leads every command on the folder to its services."""
        program = f". {self.state.environment_file} && env -0"
        clean = {name: self.environment[name] for name in ("PATH", "XDG_CONFIG_HOME")}
        command = ["/bin/sh", "-euc", program]
        out = subprocess.run(command, env=clean, capture_output=True, check=True).stdout
        return dict(line.split("=", 1) for line in out.decode().split("\0") if line)

    def airflow(self) -> AirflowApi:
        known = read_credentials(self.secrets_file)
        return AirflowApi(
            self.url("airflow", ""), known["AIRFLOW_ADMIN_USERNAME"], known["AIRFLOW_ADMIN_PASSWORD"]
        )


@contextmanager
def passable_folder() -> Iterator[Path]:
    """Give a folder that the user of PostgreSQL may pass through, which pytest's own are not."""
    for name in ("redis-server", "supervisord"):
        path = f"{os.environ['PATH']}:{Path(sys.executable).parent}"
        if not shutil.which(name, path=path):
            skip_or_fail(f"no program {name}")
    made = Path(tempfile.mkdtemp(prefix="tributary-up-", dir="/tmp"))
    try:
        made.chmod(0o711)
        yield made
    finally:
        shutil.rmtree(made)


def place_in(folder: Path, **more: str) -> Place:
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("TRIBUTARY_", "AIRFLOW_"))}
    own = {
        "XDG_CONFIG_HOME": str(folder / "config"),
        "TRIBUTARY_VAR": str(folder / "var"),
        "TRIBUTARY_SERVICES__AIRFLOW_PORT": "0",
        "TRIBUTARY_SERVICES__MLFLOW_PORT": "0",
    }
    return Place(folder / "var", outside | own | more)


def wait_until(holds: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Wait until something holds; fail when it takes too long."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
