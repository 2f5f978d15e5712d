"""
What does ``make run`` do? Several days of logs through the real Airflow DAGs, without services.

Each DAG run is ``airflow dags test`` in a process of its own, with the state folder's own Airflow home.
Prints progress, keeps each run's log, and ends with the summary of ``tasks/summary.py``.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from lakehouse.sources import open_source
from tasks.days import day_range
from tasks.prepare import list_missing_days
from tasks.settings import REPOSITORY, Settings, load_settings
from tasks.summary import print_summary, write_summary

DEFAULT_N_DAYS = 3
STEP = re.compile(r"\[DAG TEST\] starting task_id=(\S+)(?: map_index=(-?\d+))?")


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
        days = choose_days(settings, options.first, options.last)
        run_days(days, settings)
    except (ValueError, LookupError, OSError, RunFailed) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    return 0


def choose_days(settings: Settings, first: str | None, last: str | None) -> list[date]:
    """
    List the days to run; by default the source's last three.

    Raises:
        ValueError: not a date, FROM after TO, or a day that the source lacks.
    """
    source = open_source(settings.source)
    to = _parse_day("TO", last) if last else source.last_day
    default = max(source.first_day, to - timedelta(days=DEFAULT_N_DAYS - 1))
    start = _parse_day("FROM", first) if first else default
    if start > to:
        raise ValueError(f"FROM={start} is after TO={to}")
    for name, day in (("FROM", start), ("TO", to)):
        if not source.first_day <= day <= source.last_day:
            raise ValueError(
                f"{name}={day} is not in the source {source.name}, which has {source.first_day}.."
                f"{source.last_day}"
            )
    return day_range(start, to)


def run_days(days: list[date], settings: Settings) -> None:
    """
    Run the days through the DAGs, oldest first, publish the champion, and print the summary.

    Raises:
        RunFailed: a DAG run failed; the days after it are not started.
    """
    started = time.monotonic()
    airflow = Airflow(settings)
    print(f"{settings.source.preset}: {days[0]} .. {days[-1]}, state in {settings.var}", flush=True)
    airflow.migrate()
    if missing := list_missing_days(days[0], settings):
        airflow.test("prepare_window", days[0], f"{missing[0]} .. {missing[-1]}: steps 1-5")
    for day in days:
        airflow.test("daily_cycle", day, str(day))
    airflow.test("publish_release", None, "the champion, if there is one")
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    summary = write_summary(days, settings, seconds=seconds, peak_gib=peak)
    print_summary(summary, settings)


class Airflow:
    """The ``airflow`` command with the state folder as its home."""

    def __init__(self, settings: Settings) -> None:
        self.logs = settings.var / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **os.environ,
            "TRIBUTARY_VAR": str(settings.var),
            "AIRFLOW_HOME": str(settings.var / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "PYTHONUNBUFFERED": "1",
        }

    def migrate(self) -> None:
        """Bring Airflow's own database up to date."""
        lines, code = self._run(["db", "migrate"], self.logs / "airflow_db.log")
        for _ in lines:
            pass
        if code():
            raise RunFailed(f"airflow db migrate failed, see {self.logs / 'airflow_db.log'}")

    def test(self, dag_id: str, day: date | None, what: str) -> None:
        """
        Run a DAG once, in order, showing each step as it starts.

        Raises:
            RunFailed: a step failed.
        """
        started = time.monotonic()
        log = self.logs / (f"{dag_id}_{day}.log" if day else f"{dag_id}.log")
        conf = ["-c", f'{{"day": "{day}"}}'] if day else []
        print(f"{dag_id}  {what}", flush=True)
        lines, code = self._run(["dags", "test", dag_id, *conf], log)
        reason = ""
        for line in lines:
            if found := STEP.search(line):
                print(f"  {time.monotonic() - started:6.1f} s  {found[1]}", flush=True)
            if "AirflowFailException" in line or re.match(r"\w*(Error|Exception): ", line):
                reason = line.strip()
        if code():
            raise RunFailed(f"{dag_id} {day or ''} failed: {reason or 'no reason given'}; log: {log}")

    def _run(self, arguments: list[str], log: Path):
        command = [str(Path(sys.executable).with_name("airflow")), *arguments]
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        return _copy_lines(process.stdout, log), process.wait


def _copy_lines(stream, log: Path) -> Iterator[str]:
    with log.open("w") as file:
        for line in stream:
            file.write(line)
            yield line


def _parse_day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{name}={text} is not a day; write YYYY-MM-DD") from None


if __name__ == "__main__":
    sys.exit(main())
