"""
How does a deployment stand? One screen for the engineer on call: what does ``make status`` print?

Everything is read where it is kept: the tables, the served pointer, the online store, MLflow, and Airflow
where a server runs. What cannot be read gives a line, and the rest is shown. The exit code is 0 when all that
was looked at is well, and 1 when something needs a person: the last line says what.
"""

import os
import shutil
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from lakehouse import tables
from lakehouse.commit import BrokenPartition
from lakehouse.lineage import Stale, stale_partitions
from lakehouse.sources import timezone_of
from lakehouse.store import Lakehouse
from services.airflow_api import day_of, open_airflow, seconds_of
from services.clicks import tell_click_workers
from services.findings import FAILURES, Findings, wrap
from services.served import has_pointer, has_tracking, tell_serving
from services.stale import stale_lines
from tasks.settings import Settings, load_settings

N_DAYS = 7
DAGS = ("daily_cycle", "publish_release")


@dataclass
class Runs:
    """What Airflow tells: the newest run per day, the days that its schedule knows, is publishing at work."""

    newest: dict[date, dict[str, Any]] = field(default_factory=dict)
    scheduled: set[date] = field(default_factory=set)
    is_publishing: bool = False


def main() -> int:
    """Run the command; give the exit code."""
    try:
        lines, is_well = describe(load_settings())
    except FAILURES as error:
        print(f"make status: {error}", file=sys.stderr)
        return 1
    try:
        print("\n".join(wrap(line) for line in lines), flush=True)
    except BrokenPipeError:
        # Who reads has seen enough (`make status | head`); Python would complain again as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if is_well else 1


def describe(settings: Settings) -> tuple[list[str], bool]:
    """Give the lines of the screen, and whether there is something and nothing of it needs a person."""
    lakehouse, found, runs = Lakehouse(settings.lakehouse_root), Findings(), Runs()
    if not settings.services.airflow_url:
        found.tell("Airflow", "not running")
    else:
        found.attempt("Airflow", lambda: _tell_airflow(settings, runs, found))
    there = found.attempt("tables", lambda: lakehouse.days(tables.EXPOSURE)) or []
    stale = found.attempt("tables", lambda: stale_partitions(lakehouse)) or []
    is_anything = bool(there or runs.newest or has_pointer(settings))
    days = _days(set(there), runs, found)
    rows: list[list[str]] = []
    if is_anything:
        tell_serving(settings, found, is_publishing=runs.is_publishing)
        versions = found.attempt("MLflow", lambda: _versions(days, settings)) or {}
        rows = [_row(day, lakehouse, runs.newest.get(day), versions, stale) for day in days]
        _tell_bad_days(rows, found)
    tell_click_workers(settings, found)
    found.tell("stale", "what is made from days that have changed:" if stale else "nothing")
    found.lines += stale_lines(stale)
    if stale:
        found.to_mend.append(f"{len({each.day for each in stale})} stale days")
    lines = [
        f"{settings.var}   source {settings.source.preset}   {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        *(_format(rows) if rows else [f"no day has been run yet below {settings.lakehouse_root}"]),
        "",
        *found.lines,
        _disk(settings),
        *found.unreadable,
    ]
    if is_anything:
        lines.append(f"to mend    {'; '.join(dict.fromkeys(found.to_mend)) or 'nothing'}")
    return lines, is_anything and not found.to_mend


def _tell_airflow(settings: Settings, runs: Runs, found: Findings) -> None:
    """Tell how Airflow is, and fill in what it knows of runs."""
    zone = timezone_of(settings.source)
    with open_airflow(settings) as airflow:
        for run in airflow.dag_runs("daily_cycle", limit=100):
            if (day := day_of(run, zone)) is not None:
                runs.newest.setdefault(day, run)
                if run["run_type"] != "manual":
                    runs.scheduled.add(day)
        answer = airflow.get("monitor/health")
        health = {name: answer[name]["status"] for name in ("scheduler", "dag_processor")}
        is_paused = {dag_id: airflow.is_paused(dag_id) for dag_id in DAGS}
        last = airflow.dag_runs("publish_release", limit=1)
        active = [each for each in airflow.backfills("daily_cycle") if each["completed_at"] is None]
    parts = [f"{name} {status}" for name, status in health.items()]
    parts += [f"{dag_id} is {'paused' if paused else 'on'}" for dag_id, paused in is_paused.items()]
    parts += [f"backfill {active[0]['id']} goes on"] if active else []
    bad = [f"Airflow's {name} is {status}" for name, status in health.items() if status != "healthy"]
    if last and last[0]["state"] == "failed":
        bad.append("publish_release failed")
    runs.is_publishing = not bad and not is_paused["publish_release"]
    found.tell("Airflow", f"{settings.services.airflow_url}: {', '.join(parts)}", "; ".join(bad))


def _days(there: set[date], runs: Runs, found: Findings) -> list[date]:
    """Choose the last days that tables or schedule know; tell of another that was run by hand apart."""
    known = there | runs.scheduled
    unfinished = {day for day, run in runs.newest.items() if run["state"] != "success"}
    for day in sorted(unfinished - known)[-1:]:
        found.tell("apart", f"{day} {runs.newest[day]['state']}: run by hand, neither in tables nor schedule")
    return sorted(there | (unfinished & known))[-N_DAYS:]


def _versions(days: list[date], settings: Settings) -> dict[date, str]:
    """Give the version registered for each day."""
    if not has_tracking(settings):
        return {}
    from tasks.tracking import find_version

    found = {day: find_version(day, settings) for day in days}
    return {day: str(version["version"]) for day, version in found.items() if version}


def _tell_bad_days(rows: list[list[str]], found: Findings) -> None:
    found.to_mend += [f"{day} failed" for day, state, *_ in rows if state == "failed"]
    found.to_mend += [f"{day} is unreadable" for day, _, verdict, *_ in rows if verdict == "unreadable"]


def _row(
    day: date,
    lakehouse: Lakehouse,
    run: dict[str, Any] | None,
    versions: dict[date, str],
    stale: list[Stale],
) -> list[str]:
    try:
        gate = lakehouse.commit(tables.GATE, day)
        verdict = gate.meta["verdict"] if gate else "-"
        refused = {
            table.name: commit.n_rows
            for table in tables.TABLES.values()
            if (commit := lakehouse.commit(tables.quarantine(table), day)) is not None
        }
    except (BrokenPartition, OSError, LookupError):
        verdict, refused = "unreadable", {}
    quarantined = ", ".join(f"{name} {n_rows}" for name, n_rows in refused.items() if n_rows)
    took = seconds_of(run) if run else None
    return [
        str(day),
        run["state"] if run else "-",
        verdict,
        versions.get(day, "-"),
        f"{took.total_seconds():.0f}" if took else "-",
        quarantined or ("0" if refused else "-"),
        str(len([each for each in stale if each.day == day]) or "-"),
    ]


def _format(rows: list[list[str]]) -> list[str]:
    rows = [["day", "Airflow", "verdict", "version", "seconds", "quarantined", "stale"], *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _disk(settings: Settings) -> str:
    state = f"disk       {settings.var} {_size(settings.var)}"
    if "://" in settings.lakehouse_root:
        return f"{state}, lakehouse in {settings.lakehouse_root}"
    place = next(folder for folder in (settings.var, *settings.var.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    return f"{state}, of it tables {_size(Path(settings.lakehouse_root))}; free {_bytes(free)}"


def _size(folder: Path) -> str:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            total += path.lstat().st_size if os.path.lexists(path) else 0
    return _bytes(total)


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


if __name__ == "__main__":
    sys.exit(main())
