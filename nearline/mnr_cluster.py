"""
How is a local Flink cluster told to run the job? Its configuration and its files.

The job manager runs the job in application mode: one process that carries the job, which a supervisor starts
again when it dies (`nearline.mnr_process`). The task manager connects to it again by itself.
"""

import json
import os
import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path

import yaml

from nearline.mnr_config import JobConfig, MNRStreamConfig
from nearline.mnr_process import (
    ENTRY_POINT,
    Cluster,
    Flink,
    FlinkMissing,
    command_file,
    environment,
    find_java,
)

JOB_MODULE = "nearline.mnr_job"
KAFKA_CLASSES = (
    "org/apache/flink/connector/kafka/source/KafkaSource.class",
    "org/apache/kafka/clients/consumer/KafkaConsumer.class",
)
"""What a Kafka source needs; the connector of Flink's SQL has the client too, under a longer name."""
SHIM = """\
#!/bin/bash
case " $* " in
  *ClusterEntryPoint*|*TaskManagerRunner*) printf '%s\\0' "$@" > "$CAPTURED" ;;
  *) exec {java} "$@" ;;
esac
"""


def refuse_missing_jars(flink: Flink, stream: MNRStreamConfig) -> None:
    """
    Refuse to go on without the jars that the settings name, or a Kafka source's connector.

    Raises:
        FlinkMissing: a jar is not there or is none, or no jar has Kafka's connector or its client.
    """
    names = [name for jar in stream.jars for name in _names_in(jar)]
    if stream.kafka is None:
        return
    names += [name for jar in (flink.home / "lib").glob("*kafka*.jar") for name in _names_in(jar)]
    for needed in KAFKA_CLASSES:
        if not any(name.endswith(needed) for name in names):
            raise FlinkMissing(
                f"mnr_stream.kafka is set, but no jar of mnr_stream.jars has {Path(needed).stem}: name the "
                "jar of flink-sql-connector-kafka, which brings connector and client"
            )


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
    _capture_commands(cluster, flink)


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
        "rest.bind-address": stream.rest_bind_host,
        "rest.port": rest_port,
        "rest.bind-port": str(rest_port),
        # A killed process is missed within seconds, not a minute.
        "heartbeat.interval": "1 s",
        "heartbeat.timeout": "10 s",
        # Once the job has stopped with a savepoint, the supervisor would start an ended process again.
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


def _capture_commands(cluster: Cluster, flink: Flink) -> None:
    """
    Keep the command lines that Flink's own scripts would run.

    The scripts take seconds, for which a killed process would be away longer. They are run once, with a
    ``java`` that writes down how it was called.
    """
    shim = cluster.folder / "java" / "bin" / "java"
    shim.parent.mkdir(parents=True, exist_ok=True)
    shim.write_text(SHIM.format(java=shlex.quote(find_java())))
    shim.chmod(0o700)
    scripts = {
        "jobmanager": [
            "standalone-job.sh",
            "start-foreground",
            "--job-classname",
            ENTRY_POINT,
            "-pym",
            JOB_MODULE,
            cluster.job_file,
        ],
        "taskmanager": ["taskmanager.sh", "start-foreground"],
    }
    for role, (script, *arguments) in scripts.items():
        captured = cluster.folder / f"{role}.arguments"
        captured.unlink(missing_ok=True)
        ran = subprocess.run(
            [flink.home / "bin" / script, *arguments],
            env={**environment(cluster, flink), "JAVA_HOME": str(shim.parents[1]), "CAPTURED": str(captured)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not captured.exists():
            last = (ran.stderr.strip() or ran.stdout.strip() or "no output").splitlines()[-1]
            raise FlinkMissing(f"Flink's {script} does not start: {last}")
        words = captured.read_text().rstrip("\0").split("\0")
        command_file(cluster, role).write_text(json.dumps([find_java(), *words]))


def _link_jars(folder: Path, flink: Flink, jars: tuple[Path, ...]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for jar in [*(flink.home / "lib").glob("*.jar"), *(flink.home / "opt").glob("flink-python-*.jar"), *jars]:
        (folder / jar.name).symlink_to(jar.absolute())


def _names_in(jar: Path) -> list[str]:
    try:
        with zipfile.ZipFile(jar) as file:
            return file.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no jar"
        raise FlinkMissing(f"mnr_stream.jars names {jar}, which cannot be read: {reason}") from error


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(text)
