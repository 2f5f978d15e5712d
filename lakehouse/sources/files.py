"""Which files hold a table's raw rows, and what do they look like from outside?"""

import csv
import glob
import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.sources.mapping import TableMapping
from lakehouse.sources.source import SourceError

LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class RawFile:
    """
    One file of a published layout.

    ``columns`` are its own, in its own order. ``cut_line`` is the last line of a CSV that does not end with
    a line end: the file may have been cut inside its last value, so the line cannot be trusted.
    """

    path: Path
    columns: tuple[str, ...]
    cut_line: str | None = None

    @property
    def sql_path(self) -> str:
        """The path as an SQL literal that no pattern character of it is read as one."""
        return "'" + glob.escape(str(self.path)).replace("'", "''") + "'"


def find_files(table: str, mapping: TableMapping, data: Path) -> list[RawFile]:
    """
    Find the files of one table under ``data``, in the order of their names; empty if optional and absent.

    Raises:
        SourceError: a file that is demanded is absent, or one of them is empty or has no readable header.
    """
    for folder in mapping.folders:
        found = {path for pattern in mapping.files for path in (data / folder).glob(pattern)}
        if found:
            return [_look_at(path, mapping) for path in sorted(found)]
    if mapping.optional:
        return []
    looked_in = " or ".join(str(Path(os.path.normpath(data / folder))) for folder in mapping.folders)
    raise SourceError(
        f"no {' or '.join(mapping.files)} in {looked_in}, from which {table} is read: "
        "set DATA (source.data) to the folder of the release as published, or put the file there"
    )


def _look_at(path: Path, mapping: TableMapping) -> RawFile:
    if not path.is_file():
        raise SourceError(f"{path} is no file")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty: fetch it again")
    if mapping.format == "parquet":
        return RawFile(path, _parquet_columns(path))
    return RawFile(path, _csv_columns(path, mapping), _cut_line(path))


def _parquet_columns(path: Path) -> tuple[str, ...]:
    try:
        return tuple(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path} is no readable Parquet file: {str(error).splitlines()[0]}") from error


def _csv_columns(path: Path, mapping: TableMapping) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            line = file.readline(LINE_BYTES).decode("utf-8-sig")
        first = next(csv.reader(line.splitlines(), delimiter=mapping.delimiter), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"the first line of {path} is not UTF-8 CSV: {error}") from error
    if not mapping.header:
        if len(first) != len(mapping.layout):
            raise SourceError(
                f"{path} has {len(first)} columns, not the {len(mapping.layout)} of its layout: "
                f"{', '.join(mapping.layout)}"
            )
        return mapping.layout
    names = tuple(name.strip() or f"column_{position}" for position, name in enumerate(first))
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SourceError(f"{path} names column {repeated[0]} more than once")
    return names


def _cut_line(path: Path) -> str | None:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LINE_BYTES))
        tail = file.read()
    if tail.endswith((b"\n", b"\r")):
        return None
    return tail[max(tail.rfind(b"\n"), tail.rfind(b"\r")) + 1 :].decode("utf-8", errors="replace")
