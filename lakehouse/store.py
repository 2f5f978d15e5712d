"""
Where are a table's rows of a day, and how do they get there whole?

A write puts a data file under a name unique to it, then the marker that names it, in one step: readers see
the old partition or the new one, and of two writers the last marker wins whole. Nothing is overwritten but
the marker, and readers open what markers name, nothing else.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.commit import DAY, MARKER, BrokenPartition, Commit, parse_marker, parse_place, partition_folder
from lakehouse.conform import SchemaMismatch, conform, conform_batches
from lakehouse.digest import RowDigest, digest_rows
from lakehouse.lineage import Reads, tell_reads, tell_write
from lakehouse.relation import Relation, placed, regrouped, schema_of
from lakehouse.storage import Storage, one_line
from lakehouse.tables import Table


class MissingPartition(LookupError):
    """A partition that was asked for is not committed; the message names table, days and root."""


class Lakehouse:
    """
    The partitions of all tables below one root: a local folder or any fsspec URL.

    What is read through one instance counts as an input of what it writes later; `commit`, `days` and
    `parts` only look.
    """

    def __init__(self, root: str | Path):
        """Open the root without touching it. Raises StorageError where it cannot be one."""
        self._storage = Storage(root)
        self._reads = Reads()

    @property
    def root(self) -> str:
        """The root as it was given."""
        return self._storage.root

    def replace(
        self,
        table: Table,
        day: date,
        rows: pa.Table,
        *,
        part: str | None = None,
        meta: dict[str, str] | None = None,
    ) -> Commit:
        """
        Make the rows the whole content of a partition; until this returns, readers see the old content.

        Raises:
            SchemaMismatch: the rows do not fit the table; nothing is written.
            StorageError: the root cannot be written; the old content stays.
        """
        folder = partition_folder(table, day, part)
        rows = conform(rows, table)
        digest = digest_rows(rows)
        file = f"{uuid4().hex}.parquet"
        self._storage.write_parquet(f"{folder}/{file}", rows)
        return self._put_marker(table, day, part, file, rows.num_rows, digest, meta or {})

    def replace_by_batches(
        self,
        table: Table,
        day: date,
        batches: Iterable[pa.Table | pa.RecordBatch],
        *,
        part: str | None = None,
        meta: Callable[[], dict[str, str]] = dict,
    ) -> Commit:
        """
        Replace a partition as `replace`, by rows in the table's order that need not fit in memory.

        Args:
            table: the table; its key starts with the column that its rows are ordered by first.
            day: the partition's day.
            batches: the rows, cut where that column changes its value.
            part: as `replace`.
            meta: called once all batches were written.

        Raises:
            SchemaMismatch: the rows do not fit the table or are not in its order; the old content stays.
            StorageError: the root cannot be written; the old content stays.
        """
        folder = partition_folder(table, day, part)
        digest, n_rows = RowDigest(table.schema), 0
        file = f"{uuid4().hex}.parquet"
        with self._storage.parquet_writer(f"{folder}/{file}", table.schema) as write:
            for rows in regrouped(conform_batches(batches, table)):
                digest.update(rows)
                write(rows)
                n_rows += rows.num_rows
        return self._put_marker(table, day, part, file, n_rows, digest.hexdigest(), meta())

    def _put_marker(
        self,
        table: Table,
        day: date,
        part: str | None,
        file: str,
        n_rows: int,
        digest: str,
        meta: dict[str, str],
    ) -> Commit:
        """Make a written file the whole content of its partition."""
        folder = partition_folder(table, day, part)
        commit = Commit(
            table=table.name,
            day=day,
            part=part,
            files=(file,),
            n_rows=n_rows,
            digest=digest,
            schema_version=table.version,
            committed_at=datetime.now(UTC).isoformat(),
            meta=meta,
            inputs=self._reads.inputs_of(folder, day),
        )
        self._storage.put(f"{folder}/{MARKER}", commit.to_json())
        tell_write(folder, commit)
        return commit

    def read(
        self, table: Table, day: date, *, part: str | None = None, columns: list[str] | None = None
    ) -> pa.Table:
        """
        Give a partition's rows in their stored order.

        Raises:
            MissingPartition: the partition is not committed.
            BrokenPartition: its marker, or a file that it names, cannot be read.
            SchemaMismatch: the table lacks one of the columns, or the partition is of another version of it.
        """
        commit = self.require(table, day, part=part)
        tell_reads(table, [commit])
        return self._read_commit(table, commit, columns)

    def read_days(self, table: Table, days: Iterable[date], *, columns: list[str] | None = None) -> pa.Table:
        """
        Give the rows of several days behind each other, with the column ``ds`` (date32) added.

        A table with ``part_by`` gives all parts of each day and gets that column (string) too. Raises as
        `read`; MissingPartition names every missing day.
        """
        no_rows = placed(schema_of(table, columns).empty_table(), table, None, None)
        commits = self._require_days(table, days)
        tell_reads(table, commits)
        pieces = [
            placed(self._read_commit(table, commit, columns), table, commit.day, commit.part)
            for commit in commits
        ]
        return pa.concat_tables(pieces or [no_rows])

    def relation(self, table: Table, days: Iterable[date]) -> Relation:
        """Give the committed files of several days as an input for SQL. Raises as `read_days`."""
        schema = placed(table.schema.empty_table(), table, None, None).schema
        commits = self._require_days(table, days)
        tell_reads(table, commits)
        files = [
            self._storage.address(f"{partition_folder(table, commit.day, commit.part)}/{file}")
            for commit in commits
            for file in commit.files
        ]
        return Relation(schema, table.part_by, tuple(files), self._storage.filesystem)

    def commit(self, table: Table, day: date, *, part: str | None = None) -> Commit | None:
        """Give what the partition's marker says, None where there is none. Raises BrokenPartition."""
        return self._read_marker(partition_folder(table, day, part))

    def require(self, table: Table, day: date, *, part: str | None = None) -> Commit:
        """Give what the partition's marker says. Raises as `read`."""
        commit = self.commit(table, day, part=part)
        if commit is None:
            raise self._missing(table, [day], part)
        self._check_version(table, commit)
        self._reads.add(table, commit)
        return commit

    def partitions(self, table: Table) -> list[tuple[date, str | None]]:
        """Give day and part of every committed partition, oldest first."""
        return sorted(self._places(table, table.name), key=lambda place: (place[0], place[1] or ""))

    def days(self, table: Table) -> list[date]:
        """Give the days that have a committed partition, oldest first."""
        return sorted({day for day, _ in self._places(table, table.name)})

    def parts(self, table: Table, day: date) -> list[str]:
        """Give the committed values of ``part_by`` of the day, sorted."""
        places = self._places(table, f"{table.name}/{DAY}={day:%Y-%m-%d}")
        return [part for _, part in places if part is not None]

    def remove(self, table: Table, day: date, *, part: str | None = None) -> None:
        """Take a partition away, if it is there; `sweep` deletes its files after the grace period."""
        self._storage.delete(f"{partition_folder(table, day, part)}/{MARKER}")

    def sweep(self, table: Table, grace: timedelta) -> int:
        """Delete the `superseded` files; give their number."""
        superseded = self.superseded(table, grace)
        for path in superseded:
            self._storage.delete(path)
        return len(superseded)

    def superseded(self, table: Table, grace: timedelta) -> dict[str, int]:
        """
        Give the files, with their bytes, that no marker names since the grace period or longer.

        The period must be longer than the longest write and the longest read: the data file of a write in
        progress has no marker yet, and a superseded file may still be being read.
        """
        if grace < timedelta(0):
            raise ValueError(f"the grace period must not be negative, got {grace}")
        before = datetime.now(UTC) - grace
        files_of = defaultdict(list)
        for path in self._storage.find(table.name):
            folder, _, file = path.rpartition("/")
            files_of[folder].append(file)
        return {
            path: self._storage.size(path)
            for folder, files in files_of.items()
            for path in self._superseded(folder, files, before)
        }

    def _superseded(self, folder: str, files: list[str], before: datetime) -> list[str]:
        """Give the files that were written before that time and superseded before it too."""
        commit = self._read_marker(folder)
        if commit and datetime.fromisoformat(commit.committed_at) > before:
            return []
        kept = {MARKER, *(commit.files if commit else ())}
        paths = [f"{folder}/{file}" for file in files if file not in kept]
        return [path for path in paths if (time := self._storage.modified(path)) and time <= before]

    def _places(self, table: Table, folder: str) -> list[tuple[date, str | None]]:
        places = (parse_place(path, table) for path in self._storage.find(folder))
        return [place for place in places if place is not None]

    def _read_marker(self, folder: str) -> Commit | None:
        path = f"{folder}/{MARKER}"
        content = self._storage.get(path)
        return None if content is None else parse_marker(content, self._storage.address(path))

    def _require_days(self, table: Table, days: Iterable[date]) -> list[Commit]:
        commits, missing = [], []
        for day in days:
            parts = self.parts(table, day) if table.part_by else [None]
            found = [commit for part in parts if (commit := self.commit(table, day, part=part))]
            commits += found
            if not found:
                missing.append(day)
        if missing:
            raise self._missing(table, missing, None)
        for commit in commits:
            self._check_version(table, commit)
            self._reads.add(table, commit)
        return commits

    def _missing(self, table: Table, days: list[date], part: str | None) -> MissingPartition:
        what = f"{table.name} ({table.part_by}={part})" if part else table.name
        return MissingPartition(
            f"no committed partition of {what} for {', '.join(map(str, days))} under {self.root};"
            f" first run the step of the daily cycle that writes {table.name} for that day"
        )

    def _check_version(self, table: Table, commit: Commit) -> None:
        if commit.schema_version != table.version:
            raise SchemaMismatch(
                f"table {table.name} has version {table.version}, but its partition of {commit.day} under"
                f" {self.root} is of version {commit.schema_version}; run that day again"
            )

    def _read_commit(self, table: Table, commit: Commit, columns: list[str] | None) -> pa.Table:
        schema = schema_of(table, columns)
        folder = partition_folder(table, commit.day, commit.part)
        files = [self._read_file(f"{folder}/{file}", schema) for file in commit.files]
        rows = pa.concat_tables(files or [schema.empty_table()])
        if rows.num_rows != commit.n_rows:
            raise BrokenPartition(
                f"{self._storage.address(folder)} has {rows.num_rows} rows where its marker says"
                f" {commit.n_rows}; run the step that writes this partition again"
            )
        return rows

    def _read_file(self, path: str, schema: pa.Schema) -> pa.Table:
        try:
            return self._storage.read_parquet(path, schema.names).cast(schema)
        except Exception:
            return self._read_whole_file(path, schema)

    def _read_whole_file(self, path: str, schema: pa.Schema) -> pa.Table:
        """Read a file at once: a file system that fails and a damaged file raise the same types otherwise."""
        content = self._storage.get(path)
        if content is None:
            raise self._broken(path, "is missing")
        try:
            return pq.ParquetFile(pa.BufferReader(content)).read(schema.names).cast(schema)
        except Exception as error:
            raise self._broken(path, f"is unreadable: {one_line(error)}") from error

    def _broken(self, path: str, fault: str) -> BrokenPartition:
        return BrokenPartition(
            f"data file {self._storage.address(path)}, which the marker beside it names, {fault};"
            " run the step that writes this partition again"
        )
