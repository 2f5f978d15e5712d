"""How is a synthetic world written as files that a generic mapping reads?"""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse import tables
from lakehouse.sources.synthetic.world import SyntheticWorld

_INPUTS = (tables.EXPOSURE, tables.RANKING_LOG, tables.ITEM_SNAPSHOT, tables.USER_SNAPSHOT)


def write_world(world: SyntheticWorld, folder: str | Path, days: Iterable[date] | None = None) -> int:
    """
    Write ``<folder>/<table>/<day>.parquet`` for each table and day, and give the rows written.

    Columns are the canonical ones and the log date ``ds``. Rows are written one block of users at a time;
    a file appears under its name when it is whole.
    """
    folder = Path(folder)
    every = (world.first_day + timedelta(days=n) for n in range((world.last_day - world.first_day).days + 1))
    return sum(_write_day(world, folder, day) for day in (every if days is None else days))


def mapping_of_written(world: SyntheticWorld) -> dict:
    """Give the generic mapping (``SourceMapping``) of a folder that ``write_world`` wrote."""
    return {
        "name": "written_world",
        "timezone": world.timezone,
        "primary_scenario": world.primary_scenario,
        "tables": {
            table.name: {
                "folders": [table.name],
                "files": ["*.parquet"],
                "format": "parquet",
                "take": "day",
                "log_date": "ds",
                "columns": {column.name: column.name for column in table.columns},
            }
            for table in _INPUTS
        },
    }


def _write_day(world: SyntheticWorld, folder: Path, day: date) -> int:
    paths = {table.name: folder / table.name / f"{day}.parquet" for table in _INPUTS}
    n_rows = 0
    with ExitStack() as stack:
        writers = {}
        for table in _INPUTS:
            path = paths[table.name]
            path.parent.mkdir(parents=True, exist_ok=True)
            schema = table.schema.append(pa.field("ds", pa.date32(), nullable=False))
            writers[table.name] = stack.enter_context(pq.ParquetWriter(_unfinished(path), schema))

        def write(name: str, rows: pa.Table) -> int:
            dated = rows.append_column(writers[name].schema.field("ds"), pa.repeat(day, rows.num_rows))
            writers[name].write_table(dated)
            return rows.num_rows

        for exposure, ranking_log in world.read_blocks(day):
            n_rows += write("exposure", exposure) + write("ranking_log", ranking_log)
        n_rows += write("item", world.read("item", day)) + write("user", world.read("user", day))
    for path in paths.values():
        os.replace(_unfinished(path), path)
    return n_rows


def _unfinished(path: Path) -> Path:
    return path.with_suffix(".unfinished")
