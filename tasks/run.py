"""
What does ``make run`` do? Several days of logs through the real Airflow DAGs, without services.

The DAG runs are those of ``airflow dags test``, in order in one process (``dags/in_order.py``), with the
state folder's own Airflow home. Prints progress, keeps each run's log, and ends with the table of
``tasks/summary.py``.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta

from lakehouse.sources import open_source
from tasks.days import day_range
from tasks.prepare import list_missing_days
from tasks.settings import REPOSITORY, Settings, load_settings
from tasks.spark import require_spark
from tasks.summary import print_summary, write_summary

DEFAULT_N_DAYS = 3
RUN = re.compile(r"\[RUN\] (\d+)$")
STEP = re.compile(r"\[DAG TEST\] starting task_id=(\S+)")
WARNING = re.compile(r"\[warning +\] (.*) \[tasks\.")
REASON = re.compile(r"(?:airflow\.sdk\.exceptions\.AirflowFailException: )?((?:[\w.]*\.)?[A-Z]\w+: .*)$")


class RunFailed(RuntimeError):
    """A DAG run failed; the message names the step, the reason and the log."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("--from", dest="first", metavar="DAY", help="first day, YYYY-MM-DD")
    parser.add_argument("--to", dest="last", metavar="DAY", help="last day, default the source's last")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        refuse_services(settings)
        require_spark(settings)
        days = choose_days(settings, options.first, options.last)
        run_days(days, settings)
    except (ValueError, LookupError, OSError, RunFailed) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    return 0


def refuse_services(settings: Settings) -> None:
    """
    Refuse a state folder whose days a scheduler runs: two would write its tables.

    Raises:
        RunFailed: `make up` has run on it.
    """
    if (settings.var / "services" / "environment.sh").exists():
        raise RunFailed(
            f"{settings.var} belongs to services (`make up`): use `make backfill FROM= TO=`, or a new VAR"
        )


def choose_days(settings: Settings, first: str | None, last: str | None) -> list[date]:
    """
    List the days to run; by default the source's last three.

    Raises:
        ValueError: not a date, FROM after TO, or a day that the source lacks.
    """
    source = open_source(settings.source)
    given = {name: _parse_day(name, text) for name, text in (("FROM", first), ("TO", last)) if text}
    for name, day in given.items():
        if not source.first_day <= day <= source.last_day:
            raise ValueError(
                f"{name}={day} is not in the source {source.name}, which has {source.first_day}.."
                f"{source.last_day}"
            )
    to = given.get("TO", source.last_day)
    start = given.get("FROM", max(source.first_day, to - timedelta(days=DEFAULT_N_DAYS - 1)))
    if start > to:
        raise ValueError(f"FROM={start} is after TO={to}")
    return day_range(start, to)


def run_days(days: list[date], settings: Settings) -> None:
    """
    Run the days through the DAGs, oldest first, publish the champion, and print the summary.

    Raises:
        RunFailed: a DAG run failed; the days after it are not started.
    """
    started = time.monotonic()
    print(f"{settings.source.preset}: {days[0]} .. {days[-1]}, state in {settings.var}", flush=True)
    missing = list_missing_days(days[0], settings)
    runs = [DagRun("prepare_window", days[0], f"{missing[0]} .. {missing[-1]}: steps 1-5")] if missing else []
    for day in days:
        runs += [DagRun("daily_cycle", day, str(day)), DagRun("publish_release", None, "the champion")]
    _airflow(settings, ["airflow", "db", "migrate"], [DagRun("airflow_db_migrate", None, "")])
    _airflow(
        settings, ["dags.in_order", json.dumps([(run.dag_id, run.day) for run in runs], default=str)], runs
    )
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    summary = write_summary(days, settings, seconds=seconds, peak_gib=peak)
    print_summary(summary, settings)


@dataclass(frozen=True)
class DagRun:
    """One DAG run: its DAG, its day, and what to tell about it."""

    dag_id: str
    day: date | None
    what: str

    @property
    def log_name(self) -> str:
        """Name of its log file."""
        return f"{self.dag_id}_{self.day}.log" if self.day else f"{self.dag_id}.log"


def _airflow(settings: Settings, module: list[str], runs: list[DagRun]) -> None:
    """
    Run a module with the state folder as Airflow's home; show each step as it starts, keep the logs apart.

    Raises:
        RunFailed: it failed; names the DAG run, the reason and the log.
    """
    logs = settings.var / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "TRIBUTARY_VAR": str(settings.var),
        "AIRFLOW_HOME": str(settings.var / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "PYTHONUNBUFFERED": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    run, reason, started = runs[0], "", time.monotonic()
    with ExitStack() as stack:
        log = stack.enter_context((logs / run.log_name).open("w"))
        for line in process.stdout:
            if found := RUN.match(line):
                run, reason, started = runs[int(found[1])], "", time.monotonic()
                log = stack.enter_context((logs / run.log_name).open("w"))
                print(f"{run.dag_id}  {run.what}", flush=True)
            log.write(line)
            if found := STEP.search(line):
                print(f"  {time.monotonic() - started:6.1f} s  {found[1]}", flush=True)
            if found := WARNING.search(line):
                print(f"           warning: {found[1].strip()}", flush=True)
            if found := REASON.match(line):
                reason = found[1]
    if process.wait():
        raise RunFailed(f"{run.dag_id} {run.day or ''} failed: {reason}; log: {logs / run.log_name}")


def _parse_day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name}={text} is not a day; write YYYY-MM-DD") from None


if __name__ == "__main__":
    sys.exit(main())
