"""
How does a click worker do? Counters and latencies, in two small files that are replaced every second.

    <folder>/<worker>.json     for `make status`
    <folder>/<worker>.prom     Prometheus' text format, e.g. for the textfile collector of node_exporter
"""

import json
import os
import time
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

COUNTERS = {
    "clicks": "events that are clicks",
    "repeated": "of them, those that changed nothing: known, older than a later one of the item, or too old",
    "put_aside": "events that are no clicks, or were never finished",
    "failed": "times that a user's clicks could not be answered; they are given again",
    "unknown_users": "clicks of users whom the release does not know",
    "unknown_items": "clicks on items that the release does not know",
    "lists": "lists written to the store",
    "fallbacks": "of them, lists of popular items because no trigger is known",
    "outdated": "lists not taken by the store, which has a newer one",
    "retries": "times that store or stream did not answer",
    "release_exchanges": "releases taken over while at work",
    "release_failures": "releases refused or removed while at work",
}
BOUNDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0)
"""Upper bounds in seconds of the latencies' buckets, from an event's arrival to its list in the store."""

WRITE_SECONDS = 1.0
FORGET_SECONDS = 86_400.0
PREFIX = "tributary_click_worker"


@dataclass(frozen=True)
class WorkerStatus:
    """What a worker told last, ``written_at`` in seconds since 1970."""

    worker: str
    state: str
    release: str
    day: str
    written_at: float
    backlog: int
    counts: dict[str, int]
    latency_buckets: list[int]

    def quantile(self, share: float) -> float | None:
        """Give the upper bound, in seconds, of the bucket in which the quantile lies; None without clicks."""
        total, seen = sum(self.latency_buckets), 0
        for bound, n in zip((*BOUNDS, float("inf")), self.latency_buckets, strict=True):
            seen += n
            if total and seen >= share * total:
                return bound
        return None


class ClickMetrics:
    """The counters of this process."""

    def __init__(self, folder: Path, worker: str) -> None:
        """Make the folder; forget workers that have been silent for a day."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._worker = folder / worker, worker
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.release = self.day = ""
        self.backlog = 0
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._total_seconds = 0.0
        self._write_at = 0.0
        for path in folder.glob("*.*"):
            if path.suffix in (".json", ".prom") and time.time() - path.stat().st_mtime > FORGET_SECONDS:
                path.unlink(missing_ok=True)

    def count(self, name: str, n: int = 1) -> None:
        """Add to one of `COUNTERS`."""
        self.counts[name] += n

    def took(self, seconds: float) -> None:
        """Note how long a click took from its arrival to its list."""
        self._buckets[bisect_left(BOUNDS, seconds)] += 1
        self._total_seconds += seconds

    @property
    def is_due(self) -> bool:
        """Tell whether the files are a second old."""
        return time.monotonic() >= self._write_at

    def write(self, state: str = "running") -> None:
        """Replace both files; ``state``: running, waiting (for store or stream), stopped or failed."""
        self._write_at = time.monotonic() + WRITE_SECONDS
        status = WorkerStatus(
            self._worker,
            state,
            self.release,
            self.day,
            time.time(),
            self.backlog,
            self.counts,
            self._buckets,
        )
        _replace(self._path.with_name(f"{self._path.name}.json"), json.dumps(vars(status)) + "\n")
        _replace(self._path.with_name(f"{self._path.name}.prom"), self._prometheus(status))

    def _prometheus(self, status: WorkerStatus) -> str:
        label = f'worker="{status.worker}"'
        lines = []
        for name, about in COUNTERS.items():
            lines += [
                f"# HELP {PREFIX}_{name}_total {about}",
                f"# TYPE {PREFIX}_{name}_total counter",
                f"{PREFIX}_{name}_total{{{label}}} {status.counts[name]}",
            ]
        for name, about, value in (
            ("backlog", "events that are not finished", status.backlog),
            ("heartbeat_seconds", "when this was written, seconds since 1970", f"{status.written_at:.3f}"),
            ("up", "1 while it is at work, 0 while it waits or has stopped", int(status.state == "running")),
        ):
            lines += [
                f"# HELP {PREFIX}_{name} {about}",
                f"# TYPE {PREFIX}_{name} gauge",
                f"{PREFIX}_{name}{{{label}}} {value}",
            ]
        name, seen = f"{PREFIX}_latency_seconds", 0
        lines += [f"# HELP {name} from an event's arrival to its list", f"# TYPE {name} histogram"]
        for bound, n in zip((*map(str, BOUNDS), "+Inf"), self._buckets, strict=True):
            seen += n
            lines.append(f'{name}_bucket{{{label},le="{bound}"}} {seen}')
        lines += [f"{name}_sum{{{label}}} {self._total_seconds:.6f}", f"{name}_count{{{label}}} {seen}"]
        return "\n".join(lines) + "\n"


def read_statuses(folder: Path) -> list[WorkerStatus]:
    """Read what every worker told last, by name; a file that is being taken away is passed over."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(WorkerStatus(**json.loads(path.read_text())))
        except FileNotFoundError:
            continue
    return found


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
