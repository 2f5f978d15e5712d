"""Which columns and rows does a reader of several days see? Some columns, their places, groups of rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
from fsspec import AbstractFileSystem

from lakehouse.commit import DAY
from lakehouse.conform import SchemaMismatch
from lakehouse.storage import ROWS_PER_GROUP
from lakehouse.tables import Table

BYTES_PER_GROUP = 128 * 2**20


@dataclass(frozen=True)
class Relation:
    """
    The committed files of some days, as an input of `lakehouse.sql.run_sql`.

    ``schema`` is the table's, then its ``part_by`` column if it has one, then ``ds`` (date32); the last two
    are read from the folders' names. ``files`` are local paths or URLs of ``filesystem``.
    """

    schema: pa.Schema
    part_by: str | None
    files: tuple[str, ...]
    filesystem: AbstractFileSystem


def regrouped(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Put small tables together, so that row groups are not cut short, and long values not held together."""
    waiting, n_rows, n_bytes = [], 0, 0
    for rows in batches:
        waiting.append(rows)
        n_rows += rows.num_rows
        n_bytes += rows.nbytes
        if n_rows >= ROWS_PER_GROUP or n_bytes >= BYTES_PER_GROUP:
            yield pa.concat_tables(waiting)
            waiting, n_rows, n_bytes = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)


def schema_of(table: Table, columns: list[str] | None) -> pa.Schema:
    """Give the schema of some columns, in the given order; of all with None."""
    if columns is None:
        return table.schema
    unknown = [name for name in columns if name not in table.schema.names]
    if unknown:
        raise SchemaMismatch(
            f"table {table.name} has no column {', '.join(unknown)}; it has {', '.join(table.schema.names)}"
        )
    return pa.schema([table.schema.field(name) for name in columns])


def placed(rows: pa.Table, table: Table, day: date | None, part: str | None) -> pa.Table:
    """Add the columns that the folders' names hold: ``part_by`` if the table has one, then ``ds``."""
    if table.part_by:
        rows = rows.append_column(table.part_by, pa.repeat(pa.scalar(part, pa.string()), rows.num_rows))
    return rows.append_column(DAY, pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows))
