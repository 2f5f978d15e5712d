"""
What was a partition made from, and is that still what is there?

A marker names every partition that its writer had read, with the digest that it found. A partition is stale
when an input has another digest now, was taken away, or is stale itself; equal digests make nothing stale.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from lakehouse.commit import DAY, BrokenPartition, Commit, parse_folder, partition_folder
from lakehouse.tables import TABLES, Table

if TYPE_CHECKING:
    from lakehouse.store import Lakehouse


log = logging.getLogger(__name__)


class Stale(NamedTuple):
    """A partition that its inputs have moved away from, and the first such input."""

    table: str
    day: date
    part: str | None
    reason: str


class Reads:
    """What one `Lakehouse` has read so far: partition -> digest."""

    def __init__(self) -> None:
        """Start with nothing read."""
        self._digests: dict[str, str] = {}

    def add(self, table: Table, commit: Commit) -> None:
        """Keep that this content was read; of two reads of a partition the last counts."""
        self._digests[partition_folder(table, commit.day, commit.part)] = commit.digest

    def inputs_of(self, folder: str, day: date) -> dict[str, str]:
        """Give what a partition of that day was made from: never itself, never a later day."""
        return {
            read: digest
            for read, digest in sorted(self._digests.items())
            if read != folder and parse_folder(read)[1] <= day
        }


@dataclass
class Traffic:
    """What was read and written while `watch` looked on: partition -> rows."""

    read: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)


_traffic: ContextVar[Traffic | None] = ContextVar("traffic", default=None)


@contextmanager
def watch() -> Iterator[Traffic]:
    """Count what every `Lakehouse` of this thread reads and writes."""
    traffic = Traffic()
    token = _traffic.set(traffic)
    try:
        yield traffic
    finally:
        _traffic.reset(token)


def tell_reads(table: Table, commits: list[Commit]) -> None:
    """Log, and count for who watches, the rows that are about to be read; one line for all."""
    if not commits:
        return
    if traffic := _traffic.get():
        traffic.read |= {partition_folder(table, each.day, each.part): each.n_rows for each in commits}
    first, last = commits[0], commits[-1]
    what = partition_folder(table, first.day, first.part)
    if len(commits) > 1:
        what = f"{table.name}/{DAY}={first.day} .. {last.day} ({len(commits)} partitions)"
    log.info("read %s: %d rows", what, sum(each.n_rows for each in commits))


def tell_write(folder: str, commit: Commit) -> None:
    """Log, and count for who watches, what was written."""
    if traffic := _traffic.get():
        traffic.written[folder] = commit.n_rows
    log.info("wrote %s: %d rows, digest %s", folder, commit.n_rows, commit.digest[:12])


def stale_partitions(lakehouse: "Lakehouse") -> list[Stale]:
    """
    List the stale partitions of all tables, by day, then in the order of the daily cycle.

    Every marker is read once. An input of a day before the first that its table still has was dropped for its
    age: that makes nothing stale. A partition whose marker cannot be read is listed, and so is what was made
    from it.
    """
    commits: dict[str, Commit | None] = {}
    for table in TABLES.values():
        for day, part in lakehouse.partitions(table):
            try:
                commits[partition_folder(table, day, part)] = lakehouse.commit(table, day, part=part)
            except BrokenPartition:
                commits[partition_folder(table, day, part)] = None
    reasons = _reasons(commits)
    order = list(TABLES)
    found = [Stale(*parse_folder(folder), reason) for folder, reason in reasons.items()]
    return sorted(found, key=lambda stale: (stale.day, order.index(stale.table), stale.part or ""))


def _reasons(commits: dict[str, Commit | None]) -> dict[str, str]:
    """Give stale partition -> reason, without recursion: chains are as long as there are days."""
    first_days: dict[str, date] = {}
    users: dict[str, list[str]] = {}
    for folder, commit in commits.items():
        table, day, _ = parse_folder(folder)
        first_days[table] = min(day, first_days.get(table, day))
        for used in commit.inputs if commit else ():
            users.setdefault(used, []).append(folder)
    reasons: dict[str, str] = {}
    for folder, commit in commits.items():
        if commit is None:
            reasons[folder] = "its marker cannot be read"
        elif fault := _first_fault(commit, commits, first_days):
            reasons[folder] = fault
    spreading = list(reasons)
    while spreading:
        stale = spreading.pop()
        for user in users.get(stale, ()):
            if user not in reasons:
                reasons[user] = f"{stale} is stale"
                spreading.append(user)
    return reasons


def _first_fault(
    commit: Commit, commits: dict[str, Commit | None], first_days: dict[str, date]
) -> str | None:
    """Tell which input has changed or is gone, unless it was dropped for its age; None if none has."""
    for used, digest in commit.inputs.items():
        now = commits.get(used)
        if now is not None and now.digest != digest:
            return f"{used} has changed"
        table, day, _ = parse_folder(used)
        if used not in commits and not (table in first_days and day < first_days[table]):
            return f"{used} is gone"
    return None
