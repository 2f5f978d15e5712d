"""
How does one process of the Flink cluster start, and where does the job go on from?

    python -m nearline.mnr_process jobmanager|taskmanager FOLDER FLINK_ENVIRONMENT     (in the foreground)

Imports little: while it starts, the job is away.
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ENTRY_POINT = "org.apache.flink.client.python.PythonDriver"
REPOSITORY = Path(__file__).resolve().parents[1]


class FlinkMissing(RuntimeError):
    """Java or the Flink environment is not there; one line that says what to do."""


def find_java() -> str:
    """
    Give the path of Java.

    Raises:
        FlinkMissing: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(f"{home}/bin/java" if home else "java")
    if not found:
        raise FlinkMissing(
            "no Java: install Java 17 (apt install openjdk-17-jre-headless) or set JAVA_HOME to where it is"
        )
    return found


@dataclass(frozen=True)
class Flink:
    """The Flink environment: a virtual environment with PyFlink."""

    environment: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.environment / "bin" / "python"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return self.environment / "lib" / "python3.11" / "site-packages"

    @property
    def home(self) -> Path:
        """Flink itself."""
        return self.packages / "pyflink"

    def refuse_missing(self) -> None:
        """
        Refuse to go on without Java or PyFlink.

        Raises:
            FlinkMissing: one is not there.
        """
        if not (self.home / "bin" / "standalone-job.sh").exists():
            raise FlinkMissing(f"no Flink environment at {self.environment}: run `make flink-env`")
        find_java()


@dataclass(frozen=True)
class Cluster:
    """The files of one job's cluster."""

    folder: Path

    @property
    def job_file(self) -> Path:
        """What the job has been told; its owner's alone, as the store's URL may have a password."""
        return self.folder / "job.json"

    @property
    def logs(self) -> Path:
        """The processes' logs."""
        return self.folder / "logs"

    @property
    def checkpoints(self) -> Path:
        """Flink's checkpoints."""
        return self.folder / "checkpoints"

    @property
    def savepoints(self) -> Path:
        """Savepoints, taken when the job is stopped or on demand."""
        return self.folder / "savepoints"

    @property
    def refused(self) -> Path:
        """Events that were refused, one JSON object a line, with the reason."""
        return self.folder / "refused"

    def newest_state(self) -> Path | None:
        """Give the newest complete checkpoint or savepoint; None for a job that never had one."""
        marks = [*self.checkpoints.glob("*/chk-*/_metadata"), *self.savepoints.glob("*/_metadata")]
        return max(marks, key=lambda mark: mark.stat().st_mtime_ns).parent if marks else None

    def forget_old_checkpoints(self) -> None:
        """Delete the checkpoints of earlier job managers, but for those that the newest state is among."""
        newest = self.newest_state()
        for folder in self.checkpoints.glob("*"):
            if newest is not None and folder not in newest.parents:
                shutil.rmtree(folder, ignore_errors=True)


def command_file(cluster: Cluster, role: str) -> Path:
    """Give the file that keeps a process's command line."""
    return cluster.folder / f"{role}.json"


def command(cluster: Cluster, role: str) -> list[str]:
    """Give the command line of a process; the job manager's says where the job goes on from."""
    line = json.loads(command_file(cluster, role).read_text())
    state = cluster.newest_state() if role == "jobmanager" else None
    if state is not None:
        after = line.index(ENTRY_POINT) + 1
        line[after:after] = ["--fromSavepoint", state.as_uri()]
    return line


def environment(cluster: Cluster, flink: Flink) -> dict[str, str]:
    """Give the environment of the cluster's processes."""
    return {
        **os.environ,
        "FLINK_HOME": str(flink.home),
        "FLINK_CONF_DIR": str(cluster.folder / "conf"),
        "FLINK_BIN_DIR": str(flink.home / "bin"),
        "FLINK_LIB_DIR": str(cluster.folder / "lib"),
        "FLINK_OPT_DIR": str(flink.home / "opt"),
        "FLINK_LOG_DIR": str(cluster.logs),
        "FLINK_PID_DIR": str(cluster.folder / "pid"),
        "PATH": f"{flink.environment / 'bin'}:{os.environ['PATH']}",
        # Thread mode starts no interpreter of the environment: it has to be told where packages are.
        "PYTHONPATH": f"{REPOSITORY}:{flink.packages}",
    }


def main(arguments: list[str]) -> None:
    """Become one of the cluster's processes."""
    role, folder, flink_environment = arguments
    cluster, flink = Cluster(Path(folder)), Flink(Path(flink_environment))
    if role == "jobmanager":
        cluster.forget_old_checkpoints()
    line = command(cluster, role)
    os.execve(line[0], line, environment(cluster, flink))


if __name__ == "__main__":
    main(sys.argv[1:])
