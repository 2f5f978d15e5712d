"""
What do ``make mnr``, ``mnr-status``, ``mnr-savepoint`` and ``mnr-stop`` do? The streaming job on this
machine.

Flink's two processes run under supervisor, which starts each again when it dies. The job goes on from its
newest checkpoint or savepoint; ``mnr-stop``, new settings or code, then ``make mnr`` is an upgrade.
"""

import argparse
import sys
import time
from dataclasses import dataclass

from models.mnr import MNRConfig
from nearline.flink_api import FINISHED, FlinkAway, NoSavepoint
from nearline.mnr_cluster import refuse_missing_jars, write_cluster
from nearline.mnr_config import JobConfig
from nearline.mnr_process import Cluster, Flink, FlinkMissing
from nearline.store import StoreUnavailable, UnknownStore, open_store
from services.mnr_state import MNRState, age
from services.ports import choose_ports
from services.processes import Process, Stage, render_supervisor
from services.state import ServicesError, stop_on_terminate, write_private
from services.supervisor import Supervisor, take_down
from tasks.settings import REPOSITORY, BadSettings, Settings, load_settings

READY_SECONDS = 240
ROLES = ("jobmanager", "taskmanager")


@dataclass(frozen=True)
class Ports:
    """What ``choose_ports`` asks of a configuration."""

    mnr_port: int


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.mnr", description=__doc__.split("\n\n")[0])
    parser.add_argument("command", choices=tuple(COMMANDS))
    parser.add_argument("--force", nargs="?", const="1", metavar="1", help="stop without a savepoint")
    options = parser.parse_args(arguments)
    command = options.command
    if options.force and command != "stop":
        parser.error("--force is for stop alone")
    if options.force not in (None, "1"):
        print(f"mnr stop: FORCE={options.force} is neither 1 nor left out", file=sys.stderr)
        return 1
    try:
        settings = load_settings()
        return stop(settings, force=True) if options.force else COMMANDS[command](settings)
    except (BadSettings, ServicesError, FlinkMissing, OSError) as error:
        print(f"mnr {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"mnr {command}: interrupted; `make mnr-status` tells how the job stands", file=sys.stderr)
        return 130


def start(settings: Settings, flink: Flink | None = None) -> int:
    """Start the cluster and the job; changes nothing where they run."""
    state, flink = MNRState(settings.var), flink or Flink(REPOSITORY / ".venv-flink")
    flink.refuse_missing()
    refuse_missing_jars(flink, settings.mnr_stream)
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
            print(f"The job goes on from {state.going_on()}")
            supervisor.start()
        for role in ROLES:
            supervisor.start_process(role)
        _wait_until_running(state)
    return status(settings)


def status(settings: Settings) -> int:
    """Print how the job stands; 1 where it does not run."""
    state = MNRState(settings.var)
    job = state.job()
    if job is None:
        print(f"mnr: no streaming job answers for {settings.var}; `make mnr` starts it", file=sys.stderr)
        return 1
    api, config = state.api(), state.told()
    source = config.stream.kafka.topic if config.stream.kafka else config.stream.lines
    print(f"job        {job.state}, {job.n_running} of {job.n_tasks} tasks, {config.stream.mode}; {api.url}")
    print(f"source     {source}")
    n_restarts = api.n_restarts(job.job_id)
    print(f"restarts   {'not told yet' if n_restarts is None else n_restarts}")
    print(f"watermark  {age(api.watermark(job.job_id))}")
    print(f"checkpoint {age(api.last_checkpoint(job.job_id))}")
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
        try:
            return stop(settings)
        except ServicesError as error:
            print(f"mnr run: {error}", file=sys.stderr)
            return stop(settings, force=True) or 1


def take_savepoint(settings: Settings) -> int:
    """Take a savepoint of the running job."""
    state = MNRState(settings.var)
    job = state.job()
    if job is None or not job.is_running:
        stands = f"is {job.state}" if job else "does not answer"
        raise ServicesError(
            f"no savepoint: the streaming job of {state.var} {stands}; `make mnr` starts it, "
            f"{state.logs}/jobmanager.log tells why"
        )
    try:
        print(state.api().savepoint(job.job_id, state.cluster.savepoints.as_uri()))
    except NoSavepoint as error:
        raise ServicesError(
            f"Flink could not take a savepoint in {state.cluster.savepoints}: {error}"
        ) from error
    return 0


def stop(settings: Settings, *, force: bool = False) -> int:
    """
    Stop the job after a savepoint, then the cluster; with ``force`` at once, without one.

    Raises:
        ServicesError: no savepoint could be taken; nothing was stopped.
    """
    state = MNRState(settings.var)
    supervisor = Supervisor(state)
    if not state.folder.is_dir() or not state.is_up():
        print(f"No streaming job runs for {state.var}")
        return 0
    with state.lock():
        if not force:
            _stop_with_savepoint(state)
        take_down(supervisor, report=lambda name: print(f"  stopped  {name}", flush=True))
    if force:
        print(f"Stopped without a savepoint; `make mnr` goes on from {state.going_on()}")
    return 0


def _stop_with_savepoint(state: MNRState) -> None:
    """Stop the job, unless a savepoint has stopped it already."""
    job = state.job()
    if job is not None and job.state == FINISHED:
        return
    try:
        if job is None:
            raise NoSavepoint("the job does not answer")
        if not job.is_running:
            raise NoSavepoint(f"the job is {job.state}, {job.n_running} of {job.n_tasks} tasks run")
        print(f"Stopped at {state.api().stop_with_savepoint(job.job_id, state.cluster.savepoints.as_uri())}")
    except (NoSavepoint, FlinkAway) as error:
        raise ServicesError(
            f"not stopped, as no savepoint can be taken in {state.cluster.savepoints}: {error}; mend that "
            f"({state.logs}/jobmanager.log) and try again, or `make mnr-stop FORCE=1` stops without one: "
            f"`make mnr` then goes on from {state.going_on()}"
        ) from error


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


def _wait_until_running(state: MNRState) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        job = state.job()
        if job is not None and job.is_running:
            return
        time.sleep(0.5)
    raise ServicesError(
        f"the streaming job does not run after {READY_SECONDS} s: see {state.logs}/jobmanager.log; "
        f"it goes on from {state.going_on()}"
    )


COMMANDS = {"start": start, "run": run, "status": status, "savepoint": take_savepoint, "stop": stop}

if __name__ == "__main__":
    sys.exit(main())
