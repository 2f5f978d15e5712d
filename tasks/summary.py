"""
What happened on these days? The table that ends ``make run``, and the same facts as ``summary.json``.

Everything is read back from the tables, MLflow and the served pointer, so it shows what is there.
"""

import argparse
import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

from lakehouse import tables
from lakehouse.store import Lakehouse
from tasks.settings import Settings, load_settings

SHOWN_KS = (50, 100, 200)
COLUMNS = ("hit_rate", "base", "sup", "inc")


def write_summary(days: list[date], settings: Settings, **figures: float) -> dict[str, Any]:
    """Collect the facts of the days and replace ``<var>/summary.json`` with them."""
    from tasks.publish import served_release

    summary = {
        "source": settings.source.preset,
        **{name: round(value, 2) for name, value in figures.items()},
        "days": [describe_day(day, settings) for day in days],
        "served_release": served_release(settings),
    }
    path = settings.var / "summary.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(summary, indent=2, default=str) + "\n")
    os.replace(temporary, path)
    return summary


def describe_day(day: date, settings: Settings) -> dict[str, Any]:
    """Give one day's ``{day, methods: {name: {metric: value}}, gates, verdict, release}``."""
    from tasks.tracking import find_version

    lakehouse = Lakehouse(settings.lakehouse_root)
    methods: dict[str, dict[str, float | None]] = {}
    for row in lakehouse.read(tables.METRIC, day, part="evaluate").to_pylist():
        if row["cohort"] == "all":
            name = f"{row['metric']}@{row['k']}" if row["k"] else row["metric"]
            methods.setdefault(row["method"], {})[name] = row["value"]
    verdict = lakehouse.require(tables.GATE, day).meta
    return {
        "day": day.isoformat(),
        "methods": methods,
        "gates": lakehouse.read(tables.GATE, day).to_pylist(),
        "verdict": verdict["verdict"],
        "release": find_version(day, settings),
    }


def print_summary(summary: dict[str, Any], settings: Settings) -> None:
    """Print a row per day and method, the verdicts, the served release and where to look next."""
    header = ["day", "method"]
    header += [f"Hit@{k}" for k in SHOWN_KS]
    header += [f"{name}@{SHOWN_KS[1]}" for name in ("Base", "Sup", "Inc")] + ["marginal hits"]
    rows = []
    for day in summary["days"]:
        for method, metrics in day["methods"].items():
            if "hit_rate@100" not in metrics:
                continue
            cells = [metrics.get(f"hit_rate@{k}") for k in SHOWN_KS]
            cells += [metrics.get(f"{name}@{SHOWN_KS[1]}") for name in ("base", "sup", "inc")]
            marginal = next((v for name, v in metrics.items() if name.startswith("marginal_hits@")), None)
            rows.append(
                [day["day"], method]
                + ["" if cell is None else f"{cell:.4f}" for cell in cells]
                + ["" if marginal is None else f"{marginal:.0f}"]
            )
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print()
    for row in [header, *rows]:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        print("  ".join(left + right))
    print()
    for day in summary["days"]:
        release = day["release"]
        print(f"{day['day']}  {day['verdict']}" + (f", version {release['version']}" if release else ""))
        if release and release.get("promotion"):
            print(f"    {release['promotion']}")
        for gate in day["gates"]:
            print(f"    {gate['status']:<14} {gate['gate']}: {gate['detail']}")
    served = summary["served_release"]
    print()
    if served:
        print(
            f"served release: version {served['version']} of {served['day']}, {served['release_digest'][:12]}"
        )
    else:
        print("served release: none")
    if "seconds" in summary:
        print(f"{summary['seconds']:.0f} s, peak memory of a process {summary['peak_gib']:.2f} GiB")
    print(f"facts: {settings.var / 'summary.json'}   logs: {settings.var / 'logs'}")
    print(f"data docs: {settings.var / 'data_docs'}")
    print(f"MLflow: .venv/bin/mlflow server --backend-store-uri {settings.tracking_uri}")


def print_figures(days: list[date], k: int, settings: Settings) -> None:
    """Print every figure of the days at one K, over all users, with its 95% interval."""
    lakehouse = Lakehouse(settings.lakehouse_root)
    for day in days:
        for row in lakehouse.read(tables.METRIC, day, part="evaluate").to_pylist():
            if row["k"] == k and row["cohort"] == "all" and row["value"] is not None:
                low, high = (float("nan") if row[end] is None else row[end] for end in ("low", "high"))
                interval = f"{row['value']:9.4f} [{low:.4f}, {high:.4f}]"
                print(f"{day}  {row['method']:<20} {row['metric']:<24} {interval}  {row['n_users']} users")


def main(arguments: list[str] | None = None) -> int:
    """Print the last summary again, or every figure of its days at one K."""
    parser = argparse.ArgumentParser(prog="python -m tasks.summary", description=__doc__)
    parser.add_argument("--k", type=int, help="print every figure at this K with its interval")
    options = parser.parse_args(arguments)
    from tasks.publish import served_release

    try:
        settings = load_settings()
        path = Path(settings.var) / "summary.json"
        if not path.exists():
            raise LookupError(f"no {path}; run `make run` first")
        summary = json.loads(path.read_text())
        if options.k:
            print_figures([date.fromisoformat(day["day"]) for day in summary["days"]], options.k, settings)
        else:
            print_summary(summary | {"served_release": served_release(settings)}, settings)
    except (ValueError, LookupError, OSError) as error:
        print(f"make summary: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
