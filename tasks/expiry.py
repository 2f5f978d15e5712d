"""
What is past its limit, and needed by nothing? Decisions only: nothing is read or deleted here.

Days count back from the newest ingested day, so that a deployment that stands still loses nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from lakehouse import tables
from tasks.retention_config import PartitionDays, RetentionConfig

# Every table but initial_history: a deployment has one partition of it, which every day reads.
CLASSES = {
    "logs": (
        tables.EXPOSURE,
        tables.RANKING_LOG,
        tables.RETRIEVAL_LOG,
        tables.ITEM_SNAPSHOT,
        tables.USER_SNAPSHOT,
    ),
    "derived": (
        tables.CLICK,
        tables.USER_HISTORY,
        tables.ITEM_INDEX,
        tables.I2I_TABLE,
        tables.MNR_CANDIDATES,
        tables.TARGET_GROUP,
        tables.INCREC_SAMPLE,
        tables.PI2I_SAMPLE,
    ),
    "checkpoints": (tables.CHECKPOINT,),
    "figures": (tables.METRIC, tables.EXAMPLE, tables.GATE),
}


@dataclass(frozen=True)
class Partition:
    """A committed partition; ``committed_at`` has its zone."""

    table: str
    day: date
    part: str | None
    committed_at: datetime


def days_of_tables(config: RetentionConfig) -> dict[str, int | None]:
    """Give how many days of each table stay, quarantine included; None: all of them."""
    limits: PartitionDays = config.partition_days
    n_days = {table.name: getattr(limits, name) for name, of_class in CLASSES.items() for table in of_class}
    refused = (tables.quarantine(table).name for table in tables.TABLES.values())
    return n_days | dict.fromkeys(refused, config.quarantine_days)


def is_past(day: date, newest: date, n_days: int | None) -> bool:
    """Tell whether ``day`` is not among the ``n_days`` that end on ``newest``."""
    return n_days is not None and day <= newest - timedelta(days=n_days)


def unneeded_partitions(
    past: Collection[Partition], *, needed_days: int, fresh_after: datetime
) -> list[Partition]:
    """
    Give those of the partitions past their limit that go.

    A day with a partition written after ``fresh_after`` is being worked on, as in a backfill: it and the
    ``needed_days`` before it stay.
    """
    at_work = {partition.day for partition in past if partition.committed_at > fresh_after}
    reach = timedelta(days=needed_days)
    return [each for each in past if not any(day - reach <= each.day <= day for day in at_work)]


def tables_by_name() -> Mapping[str, tables.Table]:
    """Give every table, quarantine included, by its name."""
    refused = (tables.quarantine(table) for table in tables.TABLES.values())
    return dict(tables.TABLES) | {table.name: table for table in refused}
