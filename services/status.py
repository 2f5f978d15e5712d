"""
How does a deployment stand? One screen for the engineer on call: what does ``make status`` print?

Everything is read where it is kept: the tables, the served pointer, MLflow, and Airflow where a server runs.
What cannot be read gives a line, and the rest is shown.
"""

import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from lakehouse import tables
from lakehouse.commit import BrokenPartition
from lakehouse.lineage import Stale, stale_partitions
from lakehouse.serving import read_serving
from lakehouse.sources import timezone_of
from lakehouse.store import Lakehouse
from services.airflow_api import AirflowApi, day_of, open_airflow, seconds_of
from services.stale import stale_lines
from tasks.promotions import read_promotions
from tasks.settings import Settings, load_settings

N_DAYS = 7
WIDTH = 120
DAGS = ("daily_cycle", "publish_release")
FAILURES = (ValueError, LookupError, OSError)


def main() -> int:
    """Run the command; give the exit code: 1 where there is nothing at all, or no settings."""
    try:
        settings = load_settings()
        lines, is_anything = describe(settings)
    except FAILURES as error:
        print(f"make status: {error}", file=sys.stderr)
        return 1
    for line in lines:
        print(textwrap.fill(line, WIDTH, subsequent_indent=" " * 11, break_on_hyphens=False))
    return 0 if is_anything else 1


def describe(settings: Settings) -> tuple[list[str], bool]:
    """Give the lines of the screen, and whether there is anything to tell of."""
    lakehouse = Lakehouse(settings.lakehouse_root)
    troubles: list[str] = []
    runs: dict[date, dict[str, Any]] = {}
    airflow = _try(troubles, lambda: _airflow(settings, runs), "Airflow") or ["Airflow    not running"]
    there = _try(troubles, lambda: lakehouse.days(tables.EXPOSURE), "tables") or []
    stale = _try(troubles, lambda: stale_partitions(lakehouse), "tables") or []
    serving = _try(troubles, lambda: _serving(settings), "served") or ["served     nothing"]
    is_anything = bool(there or runs or (settings.release_root / "SERVING.json").exists())
    registry = (_try(troubles, lambda: _registry(settings), "MLflow") if is_anything else None) or []
    days = sorted({*there, *(day for day, run in runs.items() if run["state"] != "success")})[-N_DAYS:]
    versions = _try(troubles, lambda: _versions(days, settings), "MLflow") if is_anything else None
    table = [_row(day, lakehouse, runs.get(day), versions or {}, stale) for day in days]
    source = f"source {settings.source.preset}"
    lines = [
        f"{settings.var}   {source}   {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        *(_format(table) if days else [f"no day has been run yet below {settings.lakehouse_root}"]),
        "",
        *airflow,
        *registry,
        *serving,
        *(["stale      nothing"] if not stale else ["stale      what is made from days that have changed:"]),
        *stale_lines(stale),
        _disk(settings),
    ]
    return lines + list(dict.fromkeys(troubles)), is_anything


def _try(troubles: list[str], read: Callable[[], Any], what: str) -> Any | None:
    try:
        return read()
    except FAILURES as error:
        troubles.append(f"{what:<10} {' '.join(str(error).split())}")
        return None


def _airflow(settings: Settings, runs: dict[date, dict[str, Any]]) -> list[str]:
    """Fill in the newest run per day, and tell how Airflow is; nothing where none is set up."""
    if not settings.services.airflow_url:
        return []
    zone = timezone_of(settings.source)
    with open_airflow(settings) as airflow:
        for run in airflow.dag_runs("daily_cycle", limit=100):
            day = day_of(run, zone)
            if day is not None and day not in runs:
                runs[day] = run
        health = airflow.get("monitor/health")
        parts = [f"{name} {health[name]['status']}" for name in ("scheduler", "dag_processor")]
        parts += [f"{dag_id} {_mode(airflow, dag_id)}" for dag_id in DAGS]
        active = [each for each in airflow.backfills("daily_cycle") if each["completed_at"] is None]
        parts += [f"backfill {active[0]['id']} goes on"] if active else []
    return [f"Airflow    {settings.services.airflow_url}: {', '.join(parts)}"]


def _mode(airflow: AirflowApi, dag_id: str) -> str:
    return "is paused" if airflow.is_paused(dag_id) else "is on"


def _versions(days: list[date], settings: Settings) -> dict[date, str]:
    """Give the version registered for each day."""
    if not _has_tracking(settings):
        return {}
    from tasks.tracking import find_version

    found = {day: find_version(day, settings) for day in days}
    return {day: str(version["version"]) for day, version in found.items() if version}


def _registry(settings: Settings) -> list[str]:
    if not _has_tracking(settings):
        return ["champion   none", "challenger none"]
    from tasks import tracking

    lines = []
    for name, find in (("champion", tracking.champion), ("challenger", tracking.challenger)):
        version = find(settings)
        told = f"version {version.version} of {version.day}, {version.verdict}" if version else "none"
        lines.append(f"{name:<10} {told}")
    return lines


def _has_tracking(settings: Settings) -> bool:
    """Tell whether there is an MLflow to ask: asking for an absent file would make it."""
    path = settings.tracking_uri.removeprefix("sqlite:///")
    return path == settings.tracking_uri or Path(path).exists()


def _serving(settings: Settings) -> list[str]:
    serving = read_serving(settings.release_root)
    if serving is None:
        return []
    lines = [
        f"served     version {serving.version} of {serving.day}, {serving.release_digest[:12]}, published "
        f"{_age(serving.published_at)} ago"
    ]
    if promotions := read_promotions(settings.release_root):
        last = promotions[-1]
        before = f" after version {last.from_version}" if last.from_version else ""
        lines.append(
            f"published  {last.at[:16]} UTC: {last.kind} of version {last.version}{before} "
            f"({last.actor}: {' '.join(last.reason.split())})"
        )
    return lines


def _age(at: str) -> str:
    age = datetime.now(UTC).replace(tzinfo=None) - datetime.fromisoformat(at)
    if age < timedelta(hours=2):
        return f"{age.total_seconds() / 60:.0f} min"
    return f"{age.total_seconds() / 3600:.0f} h" if age < timedelta(days=3) else f"{age.days} days"


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
