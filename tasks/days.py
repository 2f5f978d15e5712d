"""
Which days does a task read?

A window ends on a named day and starts at the source's first day at the earliest: before it there is
nothing to miss. The day before the source's first day is its *eve*: it holds what users brought along.
"""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from lakehouse import tables
from lakehouse.store import Commit, Lakehouse

ONE_DAY = timedelta(days=1)


def day_range(first: date, last: date) -> list[date]:
    """List the days from ``first`` to ``last``, both included; empty if ``last`` is before ``first``."""
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def ingested(lakehouse: Lakehouse, day: date) -> Commit:
    """
    Give the commit of the day's exposures; its ``meta`` tells the source's facts.

    On the eve of the source's first day there is none of its own: the first day's is given.

    Raises:
        MissingPartition: the day was not ingested.
    """
    own = lakehouse.commit(tables.EXPOSURE, day)
    if own is None:
        next_day = lakehouse.commit(tables.EXPOSURE, day + ONE_DAY)
        if next_day is not None and source_first_day(next_day) == day + ONE_DAY:
            return next_day
    return own or lakehouse.require(tables.EXPOSURE, day)


def source_first_day(commit: Commit) -> date:
    """Read the first day of the source's log from an exposure commit."""
    return date.fromisoformat(commit.meta["source_first_day"])


def window(last: date, n_days: int, first_day: date) -> list[date]:
    """List the days of the window that ends on ``last``; none before the source's ``first_day``."""
    return day_range(max(last - timedelta(days=n_days - 1), first_day), last)


def start_of(day: date, timezone: str) -> datetime:
    """Give the instant at which ``day`` starts in ``timezone``, as naive UTC."""
    return datetime.combine(day, time(), ZoneInfo(timezone)).astimezone(UTC).replace(tzinfo=None)
