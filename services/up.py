"""
What does ``make up`` do? PostgreSQL, Redis, MLflow and Airflow as local processes under supervisor.

The same topology as ``docker-compose.yml``, for one state folder, on this machine's own address only. Running
it again starts what has stopped and tells what runs.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

from lakehouse.sources import SourceError, open_source
from services.credentials import forget_given, known_credentials
from services.databases import has_airflow_user, refuse_away
from services.environment import GIVEN_PREFIXES
from services.health import is_ready, last_words
from services.plan import Plan, find_programs, make_plan
from services.ports import refuse_taken_ports
from services.processes import BIN, Process, Stage
from services.state import ServicesError, State, stop_on_terminate, write_private
from services.supervisor import Supervisor, take_down
from services.table import print_services
from tasks.settings import REPOSITORY, BadSettings, Settings, load_settings

READY_SECONDS = 180
DEAD = ("BACKOFF", "FATAL", "EXITED", "STOPPED", "UNKNOWN")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    argparse.ArgumentParser(prog="python -m services.up", description=__doc__.split("\n\n")[0]).parse_args(
        arguments
    )
    stop_on_terminate()
    for name in [name for name, value in os.environ.items() if name.startswith(GIVEN_PREFIXES) and not value]:
        del os.environ[name]  # given empty: no longer set
    try:
        bring_up(load_settings())
    except (BadSettings, ServicesError, SourceError) as error:
        print(f"make up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make up: interrupted; what it had started is stopped", file=sys.stderr)
        return 130
    return 0


def bring_up(settings: Settings) -> None:
    """
    Bring the services of the settings' state folder up.

    A failure stops what this call started, and leaves the settings of later commands as they were.

    Raises:
        ServicesError: a program is missing, a port is taken, a server of the settings is away, a service died
            or another `make up` runs.
        SourceError: the source cannot be opened.
    """
    state, supervisor = State(settings.var), Supervisor(State(settings.var))
    refuse_run_folder(state)
    open_source(settings.source)
    find_programs(settings.services)
    state.refuse_unfit()
    if not (supervisor.is_up() or supervisor.session()):
        refuse_taken_ports(settings.services)
        refuse_away(settings.services)
    state.make_folders()
    with state.lock():
        if supervisor.is_up():
            start_missing(state, supervisor, settings)
            return
        supervisor.stop()
        with settings_put_back_on_failure(state):
            plan = make_plan(state, settings.services)
            plan.write_files()
            try:
                supervisor.start()
                start_all(plan, supervisor)
            except BaseException:
                take_down(supervisor, report=lambda _: None)
                raise
        print_services(plan, supervisor.states())


@contextmanager
def settings_put_back_on_failure(state: State) -> Iterator[None]:
    """Let a start that failed not change what later commands are given: environment and secrets file."""
    before = known_credentials(state)
    environment = state.environment_file.read_text() if state.environment_file.exists() else None
    try:
        yield
    except BaseException:
        forget_given(state, before)
        if environment is None:
            state.environment_file.unlink(missing_ok=True)
        else:
            write_private(state.environment_file, environment)
        raise


def refuse_run_folder(state: State) -> None:
    """
    Refuse a state folder of `make run`: its releases are in a registry that these services do not know.

    Raises:
        ServicesError: it is one.
    """
    if (state.var / "mlflow.db").exists() and not state.environment_file.exists():
        raise ServicesError(
            f"{state.var} holds days of `make run`, whose releases the services do not know; choose a new VAR"
        )


def start_all(plan: Plan, supervisor: Supervisor) -> None:
    """
    Start every process in order: databases, migrations, servers, the scheduler.

    Raises:
        ServicesError: one died or did not become ready.
    """
    print(f"Starting the services of {plan.state.var}; logs in {plan.state.logs}", flush=True)
    for stage, group in groupby(plan.processes, key=lambda process: process.stage):
        processes = list(group)
        if stage == Stage.TRACKING:
            plan.make_databases()
        for process in processes:
            supervisor.start_process(process.name)
        if stage == Stage.TRACKING:
            run_airflow(plan, "airflow-migration", ["db", "migrate"])
        if stage == Stage.SERVERS:
            make_first_user(plan)
        for process in processes:
            wait_until_ready(process, plan, supervisor)


def start_missing(state: State, supervisor: Supervisor, settings: Settings) -> None:
    """Where supervisor runs already: start what has stopped, in order, and tell what runs."""
    plan = make_plan(state, settings.services, is_up=True)
    states = supervisor.states()
    missing = [process for process in plan.processes if states.get(process.name, "RUNNING") != "RUNNING"]
    for process in missing:
        supervisor.start_process(process.name)
        wait_until_ready(process, plan, supervisor)
    if not missing:
        print(f"The services of {state.var} run already", flush=True)
    if plan.has_changed():
        print("Other settings than those that they run with: `make down`, then `make up` to use them")
    print_services(plan, supervisor.states())


def wait_until_ready(process: Process, plan: Plan, supervisor: Supervisor) -> None:
    """
    Wait until a process answers, and say so.

    Raises:
        ServicesError: it died, with its log's last words, or took too long.
    """
    started = time.monotonic()
    log = plan.state.logs / f"{process.name}.log"
    while not is_ready(process, plan.addresses, plan.credentials):
        state = supervisor.states().get(process.name, "UNKNOWN")
        seconds = time.monotonic() - started
        if state in DEAD or seconds > READY_SECONDS:
            what = "died at its start" if state in DEAD else f"does not answer after {seconds:.0f} s"
            raise ServicesError(f"{process.name} {what}: {last_words(log) or 'its log is empty'}; log: {log}")
        time.sleep(0.3)
    print(f"  {time.monotonic() - started:6.1f} s  {process.name}", flush=True)


def make_first_user(plan: Plan) -> None:
    """
    Make Airflow's first administrator, if it is not there.

    Raises:
        ServicesError: it failed, with the reason and the log.
    """
    credentials = plan.credentials
    username, password = credentials["AIRFLOW_ADMIN_USERNAME"], credentials["AIRFLOW_ADMIN_PASSWORD"]
    if not has_airflow_user(plan.addresses.airflow_database, credentials["AIRFLOW_DB_PASSWORD"], username):
        identity = [
            "--email",
            credentials["AIRFLOW_ADMIN_EMAIL"],
            "--firstname",
            "Airflow",
            "--lastname",
            "Admin",
        ]
        command = ["users", "create", "--username", username, "--role", "Admin", *identity]
        run_airflow(plan, "airflow-first-user", command, typed=f"{password}\n{password}\n")


def run_airflow(plan: Plan, name: str, arguments: list[str], typed: str = "") -> None:
    """
    Run one airflow command with the services' environment; ``typed`` answers its prompts.

    It has no terminal, so that prompts read from there.

    Raises:
        ServicesError: it failed; names its log.
    """
    started, log = time.monotonic(), plan.state.logs / f"{name}.log"
    script = '. "$0" && exec "$@"'
    command = ["/bin/sh", "-c", script, str(plan.state.environment_file), str(BIN / "airflow"), *arguments]
    write_private(log, "")
    with log.open("a") as file:
        ran = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "NO_COLOR": "1"},
            input=typed,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            start_new_session=True,
            umask=0o077,
        )
    if ran.returncode:
        raise ServicesError(f"{name} failed: {last_words(log)}; log: {log}")
    print(f"  {time.monotonic() - started:6.1f} s  {name}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
