"""How are methods run side by side? Each in a process of its own, in turns; a table, then one JSON object."""

import argparse
import json
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PEERS_PYTHON = REPOSITORY / ".venv-bench" / "bin" / "python"
RECBOLE_PYTHON = REPOSITORY / ".venv-bench" / "recbole" / "bin" / "python"


def require_peers(parser: argparse.ArgumentParser, *pythons: Path, without: str = "--no-peers") -> None:
    """End with one line where the peers' environments are not there; ``without`` is the way to do without."""
    for python in pythons:
        if not python.exists():
            parser.exit(2, f"no peers at {python}: run `make bench-env`, or give {without}\n")


def run_apart(command: list[str]) -> dict:
    """Run a command and read the JSON object on its last line."""
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_shown(command: list[str]) -> dict:
    """Run a command, its progress shown as it comes, and read the JSON object on its last line."""
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed; what it said is above")
    return json.loads(done.stdout.strip().splitlines()[-1])


def median_run(runs: list[dict]) -> dict:
    """Give the run of median seconds, with the seconds of all."""
    middle = sorted(runs, key=lambda figures: figures["seconds"])[len(runs) // 2]
    return {**middle, "all_seconds": [figures["seconds"] for figures in runs]}


def print_table(columns: tuple[str, ...], rows: list[tuple]) -> None:
    """Print the rows under their columns, to the right."""
    cells = [columns, *[tuple(map(str, row)) for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
