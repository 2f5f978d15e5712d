"""
Which folder is a partition, and which of its files count?

A partition is ``<table>/ds=YYYY-MM-DD/[<part_by>=<part>/]``; what counts is what its marker says.
"""

import re
from dataclasses import field
from datetime import date
from pathlib import PurePosixPath

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lakehouse.tables import Table

MARKER = "_COMMIT.json"
DAY = "ds"
FOLDER = re.compile(rf"[\w/]+/{DAY}=\d{{4}}-\d\d-\d\d(/\w+=[A-Za-z0-9][A-Za-z0-9_.-]*)?")


class BrokenPartition(ValueError):
    """A marker or a data file that it names is missing or unreadable; the message names that file."""


@dataclass(frozen=True)
class Commit:
    """
    What a marker says: the one valid content of a partition.

    ``files`` are names in the partition's folder. ``digest`` is that of the ordered logical rows
    (`lakehouse.digest`): equal whenever the same rows are written again. ``committed_at`` is an ISO time
    in UTC. ``inputs`` maps the folders of the partitions that the writer had read to the digests that it
    found; markers of before lineage was kept have none.
    """

    table: str
    day: date
    part: str | None
    files: tuple[str, ...]
    n_rows: int
    digest: str
    schema_version: int
    committed_at: str
    meta: dict[str, str]
    inputs: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Give the marker's content."""
        return _COMMIT.dump_json(self, indent=2)


_COMMIT = TypeAdapter(Commit)


def partition_folder(table: Table, day: date, part: str | None) -> str:
    """
    Give the partition's folder, relative to the root.

    Raises:
        ValueError: a part is given for a table without parts, none for one with parts, or not a plain name.
    """
    folder = f"{table.name}/{DAY}={day:%Y-%m-%d}"
    if table.part_by is None and part is None:
        return folder
    if table.part_by is None:
        raise ValueError(f"table {table.name} has no parts, got part={part!r}")
    if part is None or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", part):
        raise ValueError(
            f"table {table.name} has one partition per {table.part_by}: name it with part=, in letters,"
            f" digits, '_', '.' and '-'; got {part!r}"
        )
    return f"{folder}/{table.part_by}={part}"


def parse_folder(folder: str) -> tuple[str, date, str | None]:
    """Give table, day and part of a partition's folder, as `partition_folder` makes it."""
    table, _, rest = folder.partition(f"/{DAY}=")
    day, _, part = rest.partition("/")
    return table, date.fromisoformat(day), part.partition("=")[2] or None


def parse_place(marker_path: str, table: Table) -> tuple[date, str | None] | None:
    """Give day and part of a marker's path, None where the path is no marker of the table."""
    part = rf"/{table.part_by}=([^/]+)" if table.part_by else "()"
    found = re.fullmatch(rf"{re.escape(table.name)}/{DAY}=(\d{{4}}-\d\d-\d\d){part}/{MARKER}", marker_path)
    return (date.fromisoformat(found[1]), found[2] or None) if found else None


def parse_marker(content: bytes, address: str) -> Commit:
    """
    Read a marker's content; the address is for the error.

    Raises:
        BrokenPartition: it is cut off, not JSON, lacks a field, or names a file outside its folder.
    """
    try:
        commit = _COMMIT.validate_json(content)
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"]))
        raise BrokenPartition(
            f"broken commit marker {address}: {field + ': ' if field else ''}{fault['msg']};"
            " run the step that writes this partition again"
        ) from error
    if any(PurePosixPath(file).name != file for file in commit.files):
        raise BrokenPartition(
            f"broken commit marker {address}: it names files outside its folder: {', '.join(commit.files)}"
        )
    if strange := [folder for folder in commit.inputs if not FOLDER.fullmatch(folder)]:
        raise BrokenPartition(
            f"broken commit marker {address}: inputs that are no partitions: {', '.join(strange)}"
        )
    return commit
