"""
What do ``make mnr``, ``mnr-status``, ``mnr-savepoint`` and ``mnr-stop`` do? The streaming job on this
machine.

Flink's two processes run under supervisor, which starts each again when it dies. The job goes on from its
newest checkpoint or savepoint; ``mnr-stop``, new settings or code, then ``make mnr`` is an upgrade.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from models.mnr import MNRConfig
from nearline.mnr_cluster import write_cluster
from nearline.mnr_config import JobConfig
from nearline.mnr_process import Cluster, Flink, FlinkMissing
from nearline.store import StoreUnavailable, UnknownStore, open_store
from services.flink_api import FlinkApi, JobState
from services.ports import choose_ports
from services.processes import Process, Stage, render_supervisor
from services.state import ServicesError, State, stop_on_terminate, write_private
from services.supervisor import Supervisor, take_down
from tasks.settings import REPOSITORY, BadSettings, Settings, load_settings

JOB_NAME = "mnr"
READY_SECONDS = 120
ROLES = ("jobmanager", "taskmanager")


@dataclass(frozen=True)
class MNRState(State):
    """The files of one state folder's streaming job."""

    @property
    def folder(self) -> Path:
        """The job's part of the state folder."""
        return self.var / "mnr"

    def make_folders(self, lines: Path | None) -> None:
        """
        Make the folder, that of the logs, and that of the lines if they are read.

        Raises:
            ServicesError: the path cannot hold services, or a folder cannot be made.
        """
        self.refuse_unfit()
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o711)  # who sends lines passes through
            if lines is not None:
                lines.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServicesError(f"cannot make the folders of the streaming job: {error}") from error

    @property
    def cluster(self) -> Cluster:
        """Flink's files."""
        return Cluster(self.folder)


@dataclass(frozen=True)
class Ports:
    """What ``choose_ports`` asks of a configuration."""

    mnr_port: int


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.mnr", description=__doc__.split("\n\n")[0])
    parser.add_argument("command", choices=tuple(COMMANDS))
    command = parser.parse_args(arguments).command
    try:
        settings = load_settings()
        return COMMANDS[command](settings)
    except (BadSettings, ServicesError, FlinkMissing) as error:
        print(f"mnr {command}: {error}", file=sys.stderr)
        return 1


def start(settings: Settings, flink: Flink | None = None) -> int:
    """Start the cluster and the job; changes nothing where they run."""
    state, flink = MNRState(settings.var), flink or Flink(REPOSITORY / ".venv-flink")
    flink.refuse_missing()
    supervisor, job = Supervisor(state), job_config(settings, state.cluster)
    _refuse_unknown_store(job.store_url)
    state.make_folders(job.stream.lines)
    with state.lock():
        if supervisor.is_up():
            print("The streaming job's processes run already; new settings count after `make mnr-stop`")
        else:
            supervisor.stop()  # what a killed supervisor left
            port = choose_ports(Ports(settings.mnr_stream.rest_port), ["mnr"], state.folder / "ports.json")[
                "mnr"
            ]
            write_cluster(state.cluster, flink, job, port)
            write_private(state.supervisor_file, render_supervisor(_processes(state, flink), state, ""))
            if restored := state.cluster.newest_state():
                print(f"Going on from {restored}")
            supervisor.start()
        for role in ROLES:
            supervisor.start_process(role)
        _wait_until_running(_api(state), state)
    return status(settings)


def status(settings: Settings) -> int:
    """Print how the job stands; 1 where it does not run."""
    state = MNRState(settings.var)
    job = _api(state).job(JOB_NAME) if state.cluster.job_file.exists() else None
    if job is None:
        print(f"mnr: no streaming job answers for {settings.var}; `make mnr` starts it", file=sys.stderr)
        return 1
    api, config = _api(state), JobConfig.model_validate_json(state.cluster.job_file.read_text())
    source = config.stream.kafka.topic if config.stream.kafka else config.stream.lines
    print(f"job        {job.state}, {job.n_running} of {job.n_tasks} tasks, {config.stream.mode}; {api.url}")
    print(f"source     {source}")
    print(f"watermark  {_age(api.watermark(job.job_id))}")
    checkpoint = api.last_checkpoint(job.job_id)
    print(f"checkpoint {_age(checkpoint and checkpoint['latest_ack_timestamp'])}")
    counters = api.counters(job.job_id)
    print(
        "since its start: "
        + (", ".join(f"{name} {n}" for name, n in sorted(counters.items()) if n) or "nothing")
    )
    return 0 if job.is_running else 1


def run(settings: Settings) -> int:
    """Start it and stay, as a container does; a signal to end stops it with a savepoint."""
    stop_on_terminate()
    try:
        if failed := start(settings):
            return failed
        while Supervisor(MNRState(settings.var)).is_up():
            time.sleep(5)
        print("mnr run: supervisor has ended", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return stop(settings)


def take_savepoint(settings: Settings) -> int:
    """Take a savepoint of the running job."""
    state = MNRState(settings.var)
    print(_api(state).savepoint(_running_job(state).job_id, state.cluster.savepoints.as_uri()))
    return 0


def stop(settings: Settings) -> int:
    """Stop the job after a savepoint, then the cluster; one that does not run keeps its checkpoints."""
    state = MNRState(settings.var)
    supervisor = Supervisor(state)
    if not state.folder.is_dir() or not (supervisor.is_up() or supervisor.session()):
        print(f"No streaming job runs for {state.var}")
        return 0
    with state.lock():
        job = _api(state).job(JOB_NAME)
        if job is not None and job.is_running:
            print(
                f"Stopped at {_api(state).stop_with_savepoint(job.job_id, state.cluster.savepoints.as_uri())}"
            )
        take_down(supervisor, report=lambda name: print(f"  stopped  {name}", flush=True))
    return 0


def job_config(settings: Settings, cluster: Cluster) -> JobConfig:
    """Give what the job is told."""
    stream = settings.mnr_stream
    if stream.kafka is None:
        stream = stream.model_copy(update={"lines": (stream.lines or cluster.folder / "lines").absolute()})
    return JobConfig(
        mnr=settings.mnr.model_dump(include=set(MNRConfig.model_fields)),
        stream=stream,
        store_url=settings.online_store_url,
        malformed=cluster.refused,
    )


def _refuse_unknown_store(url: str) -> None:
    """Raise ServicesError for a URL that names no store; one that is away may come while lists wait."""
    try:
        open_store(url).close()
    except UnknownStore as error:
        raise ServicesError(str(error)) from error
    except StoreUnavailable as error:
        print(f"Lists will wait: {error}", flush=True)


def _processes(state: MNRState, flink: Flink) -> list[Process]:
    return [
        Process(
            name=role,
            stage=Stage.SERVERS,
            command=[
                sys.executable,
                "-m",
                "nearline.mnr_process",
                role,
                str(state.folder),
                str(flink.environment),
            ],
            address="",
            health="",
        )
        for role in ROLES
    ]


def _api(state: MNRState) -> FlinkApi:
    try:
        port = json.loads((state.folder / "ports.json").read_text())["mnr"]
    except OSError:
        raise ServicesError(f"no streaming job was started for {state.var}; `make mnr` starts it") from None
    return FlinkApi(f"http://127.0.0.1:{port}")


def _running_job(state: MNRState) -> JobState:
    job = _api(state).job(JOB_NAME)
    if job is None or not job.is_running:
        raise ServicesError(f"the streaming job of {state.var} does not run; `make mnr` starts it")
    return job


def _wait_until_running(api: FlinkApi, state: MNRState) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        job = api.job(JOB_NAME)
        if job is not None and job.is_running:
            return
        time.sleep(0.5)
    raise ServicesError(
        f"the streaming job does not run after {READY_SECONDS} s: see {state.logs}/jobmanager.log"
    )


def _age(milliseconds: int | None) -> str:
    if not milliseconds:
        return "none yet"
    time_of = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{time_of:%Y-%m-%d %H:%M:%S} UTC, {(datetime.now(UTC) - time_of).total_seconds():,.0f} s ago"


COMMANDS = {"start": start, "run": run, "status": status, "savepoint": take_savepoint, "stop": stop}

if __name__ == "__main__":
    sys.exit(main())
