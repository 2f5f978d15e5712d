"""
Run a range of days through the running scheduler: what does ``make backfill`` do?

It is Airflow's own backfill, one day at a time, oldest first; this command brings in the days before it,
waits, shows each step, and ends with a row per day and what is stale downstream of them.
"""

import argparse
import sys
from datetime import date, datetime
from typing import Any

from lakehouse import tables
from lakehouse.lineage import stale_partitions
from lakehouse.sources import timezone_of
from lakehouse.store import Lakehouse
from services.airflow_api import AirflowApi, day_of, open_airflow, seconds_of, span_of_days
from services.stale import print_stale
from services.watch import ENDED, Progress, wait_until, why_failed
from tasks.prepare import list_missing_days
from tasks.run import choose_days
from tasks.settings import Settings, load_settings

DAG, PREPARE = "daily_cycle", "prepare_window"
REPROCESS = ("failed", "completed")
CANCEL = "on Airflow's page of daily_cycle, or with `python -m services.backfill --cancel`"


class BackfillFailed(RuntimeError):
    """A run of the backfill failed; the message names the first, its step and the reason."""


class BadRange(ValueError):
    """What is asked for cannot be backfilled; the message tells why."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.backfill", description=__doc__.split("\n\n")[0])
    parser.add_argument("--from", dest="first", metavar="DAY", help="first day, YYYY-MM-DD")
    parser.add_argument("--to", dest="last", metavar="DAY", help="last day")
    parser.add_argument("--reprocess", metavar="WHICH", help="failed or completed: runs to do again")
    parser.add_argument("--cancel", action="store_true", help="cancel the backfill that goes on")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        days = [] if options.cancel else _choose(settings, options.first, options.last, options.reprocess)
        with open_airflow(settings) as airflow:
            if options.cancel:
                cancel(airflow)
            else:
                backfill(days, options.reprocess or "none", settings, airflow)
    except (ValueError, LookupError, OSError, BackfillFailed) as error:
        print(f"make backfill: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def backfill(days: list[date], reprocess: str, settings: Settings, airflow: AirflowApi) -> None:
    """
    Run the days and wait for them; print progress, a row per day, and what is stale.

    With ``reprocess`` ``none`` only days without a run are run; with ``failed`` also those that failed, with
    ``completed`` all.

    Raises:
        BadRange: a backfill goes on already.
        BackfillFailed: a run failed, in the end or before.
        AirflowUnavailable: Airflow stopped answering; what was started goes on.
    """
    zone = timezone_of(settings.source)
    _refuse_beside_another(airflow)
    from_date, to_date = span_of_days(days, zone)
    body = {
        "dag_id": DAG,
        "from_date": from_date,
        "to_date": to_date,
        "reprocess_behavior": reprocess,
        "max_active_runs": 1,
        "run_backwards": False,
    }
    to_run = airflow.dry_run_backfill(body)
    print(
        f"{settings.source.preset}: {days[0]} .. {days[-1]}, {len(to_run)} of {len(days)} days to run",
        flush=True,
    )
    if to_run:
        with _Unpaused(airflow, DAG) as unpaused:
            _prepare(days[0], settings, airflow)
            unpaused.keep_on_interrupt = True
            _run_and_wait(body, to_run, days, zone, airflow)
    _print_end(days, zone, settings, airflow)


def cancel(airflow: AirflowApi) -> None:
    """Cancel the backfill that goes on; the day that it is at is finished. Raises BadRange: there is none."""
    active = _active(airflow)
    if not active:
        raise BadRange("no backfill goes on")
    for each in active:
        airflow.put(f"backfills/{each['id']}/cancel")
        print(f"backfill {each['id']} is cancelled; the day that it is at is finished")


def _refuse_beside_another(airflow: AirflowApi) -> None:
    """Airflow takes one backfill at a time; one whose days have all ended it closes within a minute."""
    active = _active(airflow)
    if active and airflow.dag_runs(DAG, run_type="backfill", state=["running", "queued"]):
        raise BadRange(
            f"backfill {active[0]['id']}, begun at {active[0]['created_at'][:16]}, goes on; wait or cancel it"
            f" {CANCEL}"
        )
    if active:
        print(f"waiting for Airflow to close backfill {active[0]['id']}, whose days are done", flush=True)
        wait_until(lambda: not _active(airflow))


def _active(airflow: AirflowApi) -> list[dict[str, Any]]:
    return [each for each in airflow.backfills(DAG) if each["completed_at"] is None]


class _Unpaused:
    """Let a DAG run for a while; pause it again if it was paused and no run of the schedule has begun."""

    def __init__(self, airflow: AirflowApi, dag_id: str):
        self._airflow, self._dag_id = airflow, dag_id
        self.keep_on_interrupt = False

    def __enter__(self) -> "_Unpaused":
        self._was_paused = self._airflow.is_paused(self._dag_id)
        if self._was_paused:
            self._airflow.set_paused(self._dag_id, False)
            if self._dag_id == DAG:
                print(f"{DAG} was paused: it runs for this backfill, last night's run too", flush=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._was_paused:
            return
        if kind is not None and self.keep_on_interrupt:
            print(f"{self._dag_id} stays unpaused; pause it in Airflow when that is over", flush=True)
            return
        active = self._airflow.dag_runs(self._dag_id, state=["running", "queued"])
        if active:
            print(f"{self._dag_id} stays unpaused: {active[0]['dag_run_id']} is at work", flush=True)
        else:
            self._airflow.set_paused(self._dag_id, True)


def _choose(settings: Settings, first: str | None, last: str | None, reprocess: str | None) -> list[date]:
    if not (first and last):
        raise BadRange(
            "name the days: make backfill FROM=YYYY-MM-DD TO=YYYY-MM-DD [REPROCESS=failed|completed]"
        )
    if reprocess and reprocess not in REPROCESS:
        raise BadRange(
            f"REPROCESS={reprocess} is neither failed (runs that failed) nor completed (all runs); leave it "
            "out for days that have no run yet"
        )
    return choose_days(settings, first, last)


def _prepare(first_day: date, settings: Settings, airflow: AirflowApi) -> None:
    """Bring in the days before the first, where some are missing."""
    missing = list_missing_days(first_day, settings)
    if not missing:
        return
    print(
        f"{PREPARE}  {missing[0]} .. {missing[-1]}: {len(missing)} days before the first are missing",
        flush=True,
    )
    progress = Progress(airflow)
    with _Unpaused(airflow, PREPARE):
        run_id = airflow.trigger_dag(PREPARE, {"day": first_day.isoformat()})

        def is_done() -> bool:
            run = airflow.dag_run(PREPARE, run_id)
            progress.show(run)
            return run["state"] in ENDED

        try:
            wait_until(is_done)
        except KeyboardInterrupt:
            print(f"\n{PREPARE} goes on in Airflow; no day of the backfill was started", flush=True)
            raise
    run = airflow.dag_run(PREPARE, run_id)
    if run["state"] != "success":
        raise BackfillFailed(f"{PREPARE} failed at {why_failed(airflow, run)}")


def _run_and_wait(
    body: dict[str, Any], to_run: list[datetime], days: list[date], zone: str, airflow: AirflowApi
) -> None:
    started = airflow.start_backfill(body)
    progress = Progress(airflow)
    begun: set[str] = set()
    ended: set[str] = set()

    def is_done() -> bool:
        is_completed = airflow.backfill(started)["completed_at"] is not None
        runs = [
            run for run in _runs(days, zone, airflow) if datetime.fromisoformat(run["logical_date"]) in to_run
        ]
        for run in runs:
            run_id, has_ended = run["dag_run_id"], run["state"] in ENDED
            if run["start_date"] is None or run["state"] == "queued" or run_id in ended:
                continue
            if run_id not in begun:
                begun.add(run_id)
                print(f"{day_of(run, zone)}  starts", flush=True)
            progress.show(run)
            if has_ended:
                ended.add(run_id)
                print(f"{day_of(run, zone)}  {run['state']}  {_seconds(run)} s", flush=True)
        return is_completed or len(ended) == len(to_run)

    try:
        wait_until(is_done)
    except KeyboardInterrupt:
        print(f"\nbackfill {started} goes on in Airflow; cancel it {CANCEL}", flush=True)
        raise


def _print_end(days: list[date], zone: str, settings: Settings, airflow: AirflowApi) -> None:
    """Print a row per day and what is stale; raise BackfillFailed if a day failed."""
    lakehouse = Lakehouse(settings.lakehouse_root)
    runs = {day_of(run, zone): run for run in _runs(days, zone, airflow)}
    print(f"\n{'day':<12}{'state':<10}{'verdict':<15}{'version':<9}seconds")
    for day in days:
        run = runs.get(day)
        gate = lakehouse.commit(tables.GATE, day) if run and run["state"] == "success" else None
        verdict = gate.meta["verdict"] if gate else ""
        state = run["state"] if run else "no run"
        print(
            f"{day!s:<12}{state:<10}{verdict:<15}{_version(day, settings) if gate else '':<9}{_seconds(run)}"
        )
    print_stale(stale_partitions(lakehouse))
    failed = [run for run in runs.values() if run["state"] == "failed"]
    if failed:
        raise BackfillFailed(
            f"{len(failed)} of {len(days)} days failed; first {day_of(failed[0], zone)} at"
            f" {why_failed(airflow, failed[0])}; mend it, then run again with REPROCESS=failed"
        )
    if len(runs) < len(days):
        raise BackfillFailed(
            f"{len(days) - len(runs)} of {len(days)} days have no run: not over yet, or cancelled"
        )


def _runs(days: list[date], zone: str, airflow: AirflowApi) -> list[dict[str, Any]]:
    found = airflow.dag_runs_between(DAG, *span_of_days(days, zone))
    return [run for run in found if run["run_type"] != "manual"]


def _seconds(run: dict[str, Any] | None) -> str:
    took = seconds_of(run) if run else None
    return f"{took.total_seconds():.0f}" if took else ""


def _version(day: date, settings: Settings) -> str:
    from tasks.tracking import find_version

    try:
        found = find_version(day, settings)
    except OSError:
        return "?"
    return str(found["version"]) if found else ""


if __name__ == "__main__":
    sys.exit(main())
