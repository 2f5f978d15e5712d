"""
Ingest tasks: a source's day -> exposure, item, user, what else the source has, and quarantine.

All tables of the day are staged before the first is written. Refused rows are kept even when there are too
many of them; then no canonical partition is written. The exposures come last: they say that a day is there.
"""

import logging
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.sources import Source, SourceConfig, SourceError, open_source
from lakehouse.sources.source import notes_of, require_day
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from tasks.days import start_of
from tasks.spark import EngineSettings, spark_session

# An event may be this much older than its log date: a log's partitions are cut by arrival.
EARLY = timedelta(hours=1)
# Repeated rows are refused without harm: what they say is kept. They do not count against the day.
REPEATED = "duplicate"
LOGS = (tables.RANKING_LOG, tables.RETRIEVAL_LOG, tables.EXPOSURE)
DAILY = (tables.ITEM_SNAPSHOT, tables.USER_SNAPSHOT, *LOGS)
MAY_BE_EMPTY = (tables.RANKING_LOG, tables.RETRIEVAL_LOG, tables.INITIAL_HISTORY)


class BadSource(ValueError):
    """Too many of a day's source rows are refused; the message names table, share and reasons."""


class IngestSettings(EngineSettings, Protocol):
    """The settings that ingestion reads."""

    lakehouse_root: str
    source: SourceConfig
    max_quarantine_share: float


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TableReport:
    """Rows of one table: what came in, what was kept, what was refused and why (reason -> rows)."""

    rows_in: int
    rows_out: int
    reasons: dict[str, int]

    @property
    def rows_quarantined(self) -> int:
        """Rows that were refused."""
        return sum(self.reasons.values())

    @property
    def bad_share(self) -> float:
        """Share of the rows that were refused for more than being repeated."""
        bad = self.rows_quarantined - self.reasons.get(REPEATED, 0)
        return bad / self.rows_in if self.rows_in else 0.0


@dataclass(frozen=True)
class IngestReport:
    """What ingesting one day did: per table its rows, and what the source has to say about its files."""

    day: date
    source: str
    tables: dict[str, TableReport]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Staged:
    """One table of the day, ready to be written at ``day``."""

    table: tables.Table
    day: date
    good: pa.Table
    refused: pa.Table
    report: TableReport
    notes: list[str]


def ingest_logs(day: date, settings: IngestSettings) -> IngestReport:
    """
    Replace the day's partitions of the canonical inputs and of their quarantines.

    ``initial_history`` is written at the source's first day: on that day, and on any other if it is not
    there yet.

    Raises:
        SourceError: the source cannot be read, or does not have the day.
        BadSource: the lakehouse holds days of another source, or of some table more than
            ``max_quarantine_share`` of the rows is bad; then the refused rows are written, nothing else.
    """
    source = open_source(settings.source)
    require_day(source, day)
    lakehouse = Lakehouse(settings.lakehouse_root)
    _refuse_another_source(lakehouse, source)
    planned = [(table, day) for table in DAILY if table.name in source.tables]
    if tables.INITIAL_HISTORY.name in source.tables and (
        day == source.first_day or lakehouse.commit(tables.INITIAL_HISTORY, source.first_day) is None
    ):
        planned.insert(0, (tables.INITIAL_HISTORY, source.first_day))
    staged = [_stage(source, table, at, settings) for table, at in planned]

    for each in staged:
        lakehouse.replace(tables.quarantine(each.table), each.day, each.refused)
    _refuse_bad_day(staged, settings)
    meta = {
        "source": source.name,
        "source_first_day": source.first_day.isoformat(),
        "primary_scenario": source.primary_scenario,
        "timezone": source.timezone,
    }
    for each in staged:
        lakehouse.replace(
            each.table, each.day, each.good, meta=meta if each.table is tables.EXPOSURE else None
        )
    notes = dict.fromkeys(note for each in staged for note in each.notes)
    for note in notes:
        log.warning("%s", note)
    return IngestReport(day, source.name, {each.table.name: each.report for each in staged}, tuple(notes))


def _refuse_another_source(lakehouse: Lakehouse, source: Source) -> None:
    days = lakehouse.days(tables.EXPOSURE)
    newest = lakehouse.commit(tables.EXPOSURE, days[-1]) if days else None
    if newest is not None and (there := newest.meta["source"]) != source.name:
        raise BadSource(
            f"the lakehouse {lakehouse.root} holds days of the source {there}, not of {source.name}; "
            "give each source a state folder (VAR) of its own"
        )


def _stage(source: Source, table: tables.Table, day: date, settings: IngestSettings) -> Staged:
    rows = source.read(table.name, day)
    if rows.num_rows == 0 and table not in MAY_BE_EMPTY:
        raise SourceError(
            f"source {source.name} has no {table.name} of {day}, though its log runs from "
            f"{source.first_day} to {source.last_day}: look for a missing or shortened file"
        )
    staged = run_sql(
        f"staging/{table.name}",
        {"source_rows": _complete(table, rows)},
        _parameters(source, table, day),
        spark=spark_session(settings),
    )
    is_good = pc.is_null(staged["reject_reason"])
    good = staged.filter(is_good).select(table.schema.names)
    refused = staged.filter(pc.invert(is_good)).select(["reject_reason", "source_row"])
    refused = refused.sort_by([("reject_reason", "ascending"), ("source_row", "ascending")])
    reasons = dict(Counter(refused["reject_reason"].to_pylist()))
    return Staged(
        table,
        day,
        good,
        pa.table(
            {
                "row_number": pa.array(range(refused.num_rows), pa.int64()),
                "reason": refused["reject_reason"],
                "row": refused["source_row"],
            }
        ),
        TableReport(rows.num_rows, good.num_rows, reasons),
        notes_of(rows),
    )


def _complete(table: tables.Table, rows: pa.Table) -> pa.Table:
    """Add what a source may leave out, as nulls: nullable columns and the reader's own two."""
    optional = [c.name for c in table.columns if c.nullable] + ["read_error", "raw_line"]
    for name in optional:
        if name not in rows.schema.names:
            rows = rows.append_column(name, pa.nulls(rows.num_rows, pa.string()))
    return rows.replace_schema_metadata(None)


def _parameters(source: Source, table: tables.Table, day: date) -> dict[str, object]:
    """Give the bounds of the day's events, in UTC, that the table's staging asks for."""
    start = start_of(day, source.timezone)
    if table is tables.INITIAL_HISTORY:
        return {"day_start": start}
    if table in LOGS:
        return {"earliest": start - EARLY, "day_end": start_of(day + timedelta(days=1), source.timezone)}
    return {}


def _refuse_bad_day(staged: list[Staged], settings: IngestSettings) -> None:
    limit = settings.max_quarantine_share
    for each in staged:
        report = each.report
        if report.bad_share > limit:
            bad = Counter({reason: n for reason, n in report.reasons.items() if reason != REPEATED})
            reasons = ", ".join(f"{n} x {reason}" for reason, n in bad.most_common(3))
            raise BadSource(
                f"{each.table.name} of {each.day}: {bad.total()} of {report.rows_in} rows are bad "
                f"({report.bad_share:.1%}, limit {limit:.1%}): {reasons}. No table was written; the refused "
                f"rows are in {tables.quarantine(each.table).name}/ds={each.day}. Mend the source and run "
                "again, or raise max_quarantine_share"
            )
