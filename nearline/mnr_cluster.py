"""
How does a local Flink cluster run the job? Its files, its two processes, and where it goes on from.

The job manager runs the job in application mode: one process that carries the job, which a supervisor starts again
when it dies, and which then goes on from the newest checkpoint or savepoint in the folder. The task manager
connects to it again by itself.

    python -m nearline.mnr_cluster jobmanager|taskmanager FOLDER     (a process, in the foreground)
"""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from nearline.mnr_config import JobConfig, MNRStreamConfig

ENTRY = "org.apache.flink.client.python.PythonDriver"
REPOSITORY = Path(__file__).resolve().parents[1]


class FlinkMissing(RuntimeError):
    """Java or the Flink environment is not there; one line that says what to do."""


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
        java = os.environ.get("JAVA_HOME")
        if not (shutil.which(f"{java}/bin/java") if java else shutil.which("java")):
            raise FlinkMissing(
                "no Java: install a Java 17 (apt install openjdk-17-jre-headless) or set JAVA_HOME"
            )


@dataclass(frozen=True)
class Cluster:
    """The files of one job's cluster."""

    folder: Path

    @property
    def job_file(self) -> Path:
        """What the job has been told; readable by its owner alone, as the store's URL may have a password."""
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

    def config(self) -> JobConfig:
        """Read what the job has been told."""
        return JobConfig.model_validate_json(self.job_file.read_text())

    def newest_state(self) -> Path | None:
        """Give the newest complete checkpoint or savepoint; None for a job that never had one."""
        marks = [*self.checkpoints.glob("*/chk-*/_metadata"), *self.savepoints.glob("*/_metadata")]
        return max(marks, key=lambda mark: mark.stat().st_mtime_ns).parent if marks else None


def write_cluster(cluster: Cluster, flink: Flink, job: JobConfig, rest_port: int) -> None:
    """Write the cluster's files anew; state and logs stay."""
    for folder in (
        cluster.logs,
        cluster.checkpoints,
        cluster.savepoints,
        cluster.refused,
        cluster.folder / "conf",
    ):
        folder.mkdir(parents=True, exist_ok=True)
    if job.stream.lines is not None:
        job.stream.lines.mkdir(parents=True, exist_ok=True)
    _write_private(cluster.job_file, job.model_dump_json(indent=1))
    default = yaml.safe_load((flink.home / "conf" / "config.yaml").read_text())
    options = flink_options(cluster, flink, job.stream, rest_port)
    options["env.java.opts.all"] = default["env"]["java"]["opts"]["all"]
    # It runs for seconds at full speed, at its start: it is back sooner without the optimising compiler.
    options["env.java.opts.jobmanager"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    (cluster.folder / "conf" / "config.yaml").write_text(yaml.safe_dump(options))
    for name in ("log4j-console.properties", "log4j.properties"):
        shutil.copyfile(flink.home / "conf" / name, cluster.folder / "conf" / name)
    _link_jars(cluster.folder / "lib", flink, job.stream.jars)


def flink_options(
    cluster: Cluster, flink: Flink, stream: MNRStreamConfig, rest_port: int
) -> dict[str, object]:
    """Give Flink's configuration."""
    return {
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": rest_port + 1,
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.memory.process.size": f"{stream.jobmanager_mib}m",
        "jobmanager.execution.failover-strategy": "region",
        "taskmanager.host": "127.0.0.1",
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.memory.process.size": f"{stream.taskmanager_mib}m",
        "taskmanager.memory.managed.fraction": 0.1
        if stream.state == "heap" and stream.mode == "thread"
        else 0.4,
        "taskmanager.memory.network.max": "64m",
        "taskmanager.numberOfTaskSlots": stream.parallelism,
        "parallelism.default": stream.parallelism,
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": rest_port,
        "rest.bind-port": str(rest_port),
        # A killed process is missed within seconds, not a minute.
        "heartbeat.interval": "1 s",
        "heartbeat.timeout": "10 s",
        # Stopped with a savepoint, the job manager waits to be stopped, too: a supervisor would start it again.
        "execution.shutdown-on-application-finish": False,
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": 2_147_483_647,
        "restart-strategy.fixed-delay.delay": "500 ms",
        "state.backend.type": {"heap": "hashmap", "rocksdb": "rocksdb"}[stream.state],
        "execution.checkpointing.interval": f"{round(stream.checkpoint_seconds * 1000)} ms",
        "execution.checkpointing.dir": cluster.checkpoints.as_uri(),
        "execution.checkpointing.savepoint-dir": cluster.savepoints.as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.num-retained": 3,
        "execution.checkpointing.tolerable-failed-checkpoints": 10,
        "execution.checkpointing.incremental": stream.state == "rocksdb",
        "execution.buffer-timeout.interval": "10 ms",
        "pipeline.auto-watermark-interval": "200 ms",
        "python.execution-mode": stream.mode,
        "python.executable": str(flink.python),
        "python.client.executable": str(flink.python),
        "python.fn-execution.bundle.size": 500,
        "python.fn-execution.bundle.time": 20,
        "python.state.cache-size": 10_000,
        # The job's own counters are asked for by REST.
        "metrics.fetcher.update-interval": "1000",
    }


def environment(cluster: Cluster, flink: Flink) -> dict[str, str]:
    """Give the environment of the cluster's processes."""
    return {
        **os.environ,
        "FLINK_HOME": str(flink.home),
        "FLINK_CONF_DIR": str(cluster.folder / "conf"),
        "FLINK_LIB_DIR": str(cluster.folder / "lib"),
        "FLINK_LOG_DIR": str(cluster.logs),
        "FLINK_PID_DIR": str(cluster.folder / "pid"),
        "PATH": f"{flink.environment / 'bin'}:{os.environ['PATH']}",
        # Thread mode starts no interpreter of the environment: it has to be told where packages are.
        "PYTHONPATH": f"{REPOSITORY}:{flink.packages}",
    }


def command(cluster: Cluster, flink: Flink, role: str) -> list[str]:
    """Give the command line of one process; the job manager's says where the job goes on from."""
    if role == "taskmanager":
        return [str(flink.home / "bin" / "taskmanager.sh"), "start-foreground"]
    state = cluster.newest_state()
    restore = ["--fromSavepoint", state.as_uri()] if state else []
    job = ["-pym", "nearline.mnr_job", str(cluster.job_file)]
    return [
        str(flink.home / "bin" / "standalone-job.sh"), "start-foreground", "--job-classname", ENTRY, *restore, *job
    ]  # fmt: skip


def forget_old_checkpoints(cluster: Cluster) -> None:
    """Delete the checkpoints of earlier incarnations, but for the one that the newest state is of."""
    newest = cluster.newest_state()
    for folder in cluster.checkpoints.glob("*"):
        if newest is not None and folder not in newest.parents:
            shutil.rmtree(folder, ignore_errors=True)


def _link_jars(folder: Path, flink: Flink, jars: tuple[Path, ...]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for jar in [*(flink.home / "lib").glob("*.jar"), *(flink.home / "opt").glob("flink-python-*.jar"), *jars]:
        if not jar.exists():
            raise FlinkMissing(f"mnr_stream.jars names {jar}, which is not there")
        (folder / jar.name).symlink_to(jar.absolute())


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(text)


def main(arguments: list[str]) -> None:
    """Become one of the cluster's processes."""
    role, folder, flink_environment = arguments
    cluster, flink = Cluster(Path(folder)), Flink(Path(flink_environment))
    if role == "jobmanager":
        forget_old_checkpoints(cluster)
    line = command(cluster, flink, role)
    print(json.dumps(line), flush=True)
    os.execve(line[0], line, environment(cluster, flink))


if __name__ == "__main__":
    main(sys.argv[1:])
