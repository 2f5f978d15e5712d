"""What must a source of logs be able to tell?"""

from datetime import date
from typing import Protocol

import pyarrow as pa

NOTES = b"notes"


class SourceError(ValueError):
    """A source cannot be read as asked; the message says what, where and what to do."""


class Source(Protocol):
    """
    Logs and snapshots of one deployment, day by day.

    ``tables`` names the canonical inputs it has: exposure, item and user, maybe ranking_log,
    retrieval_log and initial_history. ``first_day`` and ``last_day`` are those of its log.
    """

    name: str
    timezone: str
    primary_scenario: str
    first_day: date
    last_day: date
    tables: frozenset[str]

    def read(self, table: str, day: date) -> pa.Table:
        """
        Give the day's mapped rows of one canonical table, before staging: canonical names, any types.

        A row that could not be read at all has a ``read_error`` and its ``raw_line``. Lines under the
        schema metadata key ``notes`` tell what the reader of a report should know.
        """
        ...


def require_day(source: Source, day: date) -> None:
    """
    Make sure that ``day`` lies in the range of the source's log.

    Raises:
        SourceError: it does not; names the first and the last day.
    """
    if not source.first_day <= day <= source.last_day:
        raise SourceError(
            f"source {source.name} has no {day}: its log runs from {source.first_day} to {source.last_day}; "
            "ask for a day in between"
        )


def notes_of(rows: pa.Table) -> list[str]:
    """Give the notes that a source attached to the rows it read."""
    text = (rows.schema.metadata or {}).get(NOTES, b"").decode()
    return text.splitlines()
