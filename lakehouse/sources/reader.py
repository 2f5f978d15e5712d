"""
How are the raw rows of a published layout read as canonical columns?

DuckDB scans the files per call and keeps the day's rows only; nothing is held in between but the row counts
of the log's days. Scalars come as text, as the file has them, so that staging can say what is wrong with
them. A line that cannot be read has no log date: it comes with the last day, with its text.
"""

import csv
from datetime import date
from functools import cached_property
from pathlib import Path

import duckdb
import pyarrow as pa

from lakehouse.sources.files import RawFile, find_files
from lakehouse.sources.mapping import INPUTS, SourceMapping, TableMapping
from lakehouse.sources.source import NOTES, SourceError, require_day

LOG = "exposure"
CUT = "the file ends inside this line"

MACROS = """
create macro epoch_to_utc(value, per_second) as coalesce(
    case when abs(try_cast(value as double)) < 100000000000.0 * per_second then
        make_timestamp(cast(try_cast(value as decimal(30, 6)) * 1000000 / per_second as bigint))::varchar end,
    value::varchar
);
create macro local_to_utc(value) as coalesce(
    timezone('UTC', timezone('{zone}', try_cast(value as timestamp)))::varchar, value::varchar
);
create macro local_date(value) as
    cast(timezone('{zone}', timezone('UTC', try_cast(value as timestamp))) as date);
"""


class MappedSource:
    """A published layout in a folder, read through its mapping: a ``Source``."""

    def __init__(self, mapping: SourceMapping, data: str | Path):
        """
        Look at the files of every mapped table; read none.

        Raises:
            SourceError: the folder or a demanded file is not there, lacks a column or is empty.
        """
        self.mapping = mapping
        self.name = mapping.name
        self.timezone = mapping.timezone
        self.primary_scenario = mapping.primary_scenario
        folder = Path(data).expanduser()
        if not folder.is_dir():
            raise SourceError(
                f"source {self.name}: no folder {folder}; set DATA (source.data) to the folder of its files"
            )
        found = {name: find_files(name, table, folder) for name, table in mapping.tables.items()}
        self.files: dict[str, list[RawFile]] = {name: files for name, files in found.items() if files}
        self.tables = frozenset(self.files)
        with self._session() as session:
            for name in sorted(self.tables):
                self._check_columns(session, name)

    @property
    def first_day(self) -> date:
        """First log date that has a row."""
        return min(self._rows_by_day)

    @property
    def last_day(self) -> date:
        """Last log date that has a row."""
        return max(self._rows_by_day)

    def read(self, table: str, day: date) -> pa.Table:
        """
        Give the mapped rows of ``table`` on ``day``: text columns (lists stay lists) with canonical names.

        Raises:
            SourceError: no such table, a day out of the log's range, or one without a row in it.
        """
        if table not in self.tables:
            raise SourceError(f"source {self.name} has no {table}; it has {', '.join(sorted(self.tables))}")
        require_day(self, day)
        if day not in self._rows_by_day:
            raise SourceError(
                f"source {self.name} has no exposure of {day}, though its log runs from {self.first_day} to "
                f"{self.last_day}: look for a missing or shortened log file"
            )
        mapping = self.mapping.tables[table]
        with self._session() as session:
            sql = self._day_sql(table)
            bounds = {"day": day, "first": self.first_day, "last": self.last_day}
            used = {name: value for name, value in bounds.items() if f"${name}" in sql}
            try:
                rows = session.sql(sql, params=used).to_arrow_table()
                broken = self._broken_lines(session, table)
            except duckdb.Error as error:
                raise SourceError(
                    f"source {self.name}: {table} of {day} cannot be read: {_one_line(error)}"
                ) from error
        notes = self._notes(table, len(broken))
        if broken and (mapping.take == "all" or (mapping.take == "day" and day == self.last_day)):
            rows = pa.concat_tables([rows, broken_rows(broken, rows.schema)])
        return rows.replace_schema_metadata({NOTES: "\n".join(notes).encode()})

    @cached_property
    def _rows_by_day(self) -> dict[date, int]:
        counts = self._counts
        first, last = self.mapping.first_day or date.min, self.mapping.last_day or date.max
        days = {day: n for day, n in counts.items() if day is not None and first <= day <= last}
        if not days:
            files = ", ".join(str(file.path) for file in self.files[LOG])
            expression = self.mapping.tables[LOG].log_date
            bounds = f" from {first} to {last}" if (self.mapping.first_day or self.mapping.last_day) else ""
            raise SourceError(
                f"source {self.name}: no row of {files} has a log date{bounds}, read as {expression}"
            )
        return days

    @cached_property
    def _counts(self) -> dict[date | None, int]:
        """Rows of the log by log date; one scan."""
        mapping = self.mapping.tables[LOG]
        selects = [
            f"select {_log_date(mapping)} as log_date from {self._relation(LOG, file)}{_where(mapping)}"
            for file in self.files[LOG]
        ]
        with self._session() as session:
            sql = f"select log_date, count(*) from ({' union all '.join(selects)}) group by log_date"
            parameters = {"day": self.mapping.last_day or date.max} if "$day" in (mapping.where or "") else {}
            try:
                return dict(session.execute(sql, parameters).fetchall())
            except duckdb.Error as error:
                raise SourceError(
                    f"source {self.name}: its log cannot be read: {_one_line(error)}"
                ) from error

    def _session(self) -> duckdb.DuckDBPyConnection:
        """Open a session that can read the source's files and nothing else, whatever a mapping says."""
        session = duckdb.connect()
        session.execute("set timezone = 'UTC'")
        session.execute(MACROS.format(zone=self.timezone))
        files = [file for files in self.files.values() for file in files]
        # DuckDB asks for a pattern by its text, then for the file that it finds.
        allowed = [text for file in files for text in (_literal(str(file.path)), file.sql_path)]
        session.execute(f"set allowed_paths = [{', '.join(allowed)}]")
        session.execute("set enable_external_access = false")
        session.execute("set lock_configuration = true")
        return session

    def _relation(self, table: str, file: RawFile) -> str:
        mapping = self.mapping.tables[table]
        if mapping.format == "parquet":
            return f"read_parquet({file.sql_path})"
        columns = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in file.columns)
        relation = (
            f"read_csv({file.sql_path}, auto_detect = false, header = {str(mapping.header).lower()}, "
            f"delim = {_literal(mapping.delimiter)}, quote = '\"', escape = '\"', "
            f"columns = {{{columns}}}, store_rejects = true)"
        )
        if file.cut_line is None:
            return relation
        values = next(csv.reader([file.cut_line], delimiter=mapping.delimiter), [])
        if len(values) != len(file.columns):
            return relation
        same = " and ".join(
            f"{_name(column)} is not distinct from nullif({_literal(value)}, '')"
            for column, value in zip(file.columns, values, strict=True)
        )
        return f"(select * from {relation} where not ({same}))"

    def _day_sql(self, table: str) -> str:
        mapping = self.mapping.tables[table]
        selects = []
        for file in self.files[table]:
            mapped = ", ".join(
                f"{sql} as {_name(name)}" for name, sql in _expressions(table, mapping).items()
            )
            log_date = "" if mapping.log_date is None else f", {_log_date(mapping)} as log_date"
            selects.append(f"select {mapped}{log_date} from {self._relation(table, file)}{_where(mapping)}")
        union = " union all ".join(selects)
        columns = ", ".join(_name(column.name) for column in INPUTS[table].columns)
        errors = "null::varchar as read_error, null::varchar as raw_line"
        if mapping.take == "all":
            return f"select {columns}, {errors} from ({union})"
        if mapping.take == "seen":
            key = ", ".join(_name(name) for name in INPUTS[table].key)
            return (
                f"select {columns}, {errors} from (select distinct on ({key}) * from ({union}) "
                f"where log_date between $first and $day order by {key}, log_date desc, {columns})"
            )
        no_date = "case when log_date is null then 'no readable log date' end as read_error"
        return (
            f"select {columns}, {no_date}, null::varchar as raw_line from ({union}) "
            "where log_date = $day or (log_date is null and $day = $last)"
        )

    def _broken_lines(self, session: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
        """Give (why, file and line) of each line that is no row of the layout, in a fixed order."""
        if self.mapping.tables[table].format == "parquet":
            return []
        cut = {(f.path.name, f.cut_line) for f in self.files[table] if f.cut_line is not None}
        rejected = session.execute(
            "select file_path, csv_line, arg_min(lower(error_type::varchar), column_idx) from reject_errors "
            "join reject_scans using (scan_id, file_id) group by file_path, file_id, scan_id, line, csv_line"
        ).fetchall()
        lines = [
            (f"broken line: {why}", Path(path).name, line.rstrip("\r\n")) for path, line, why in rejected
        ]
        lines = [line for line in lines if line[1:] not in cut]
        lines += [(CUT, name, line) for name, line in cut]
        return sorted((why, f"{name}: {line}") for why, name, line in lines)

    def _check_columns(self, session: duckdb.DuckDBPyConnection, table: str) -> None:
        mapping = self.mapping.tables[table]
        named = _expressions(table, mapping) | {
            "log_date": _log_date(mapping),
            "where": (mapping.where or "true").replace("$day", "date '2000-01-01'"),
        }
        for file in self.files[table]:
            relation = self._relation(table, file)
            for name, sql in named.items():
                try:
                    session.execute(f"describe select {sql} from {relation}")
                except duckdb.Error as error:
                    raise SourceError(
                        f"{file.path}: {table}.{name} cannot be read as {sql}: {_one_line(error)} "
                        f"The file has the columns {', '.join(file.columns)}"
                    ) from error

    def _notes(self, table: str, n_broken: int) -> list[str]:
        mapping = self.mapping.tables[table]
        notes = []
        for file in self.files[table] if mapping.layout else []:
            extra = [name for name in file.columns if name not in mapping.layout]
            if extra:
                notes.append(f"{file.path.name}: extra columns are ignored: {', '.join(extra)}")
        where = f"; they are quarantined with {self.last_day}" if mapping.take == "day" else ""
        if n_broken:
            notes.append(f"{table}: {n_broken} lines of the files cannot be read{where}")
        if table == LOG:
            undated = self._counts.get(None, 0)
            if undated:
                notes.append(f"{table}: {undated} rows have no readable log date{where}")
            left_out = sum(self._counts.values()) - undated - sum(self._rows_by_day.values())
            if left_out:
                notes.append(f"{table}: {left_out} rows lie outside {self.first_day} .. {self.last_day}")
        return notes


def broken_rows(broken: list[tuple[str, str]], schema: pa.Schema) -> pa.Table:
    """Give one row per broken line: all null but ``read_error`` and ``raw_line``."""
    columns = {"read_error": [why for why, _ in broken], "raw_line": [line for _, line in broken]}
    nothing = [None] * len(broken)
    return pa.table([pa.array(columns.get(f.name, nothing), f.type) for f in schema], schema=schema)


def _expressions(table: str, mapping: TableMapping) -> dict[str, str]:
    """Give an SQL expression for every canonical column: text, or a list."""
    given = dict(mapping.columns)
    if mapping.profile_columns:
        tokens = ", ".join(f"{_literal(name)} || '=' || {_name(name)}" for name in mapping.profile_columns)
        given["profile"] = f"list_sort(list_filter([{tokens}], lambda token: token is not null))"
    return {
        column.name: f"({given.get(column.name, 'null')})"
        + ("" if pa.types.is_list(column.type) else "::varchar")
        for column in INPUTS[table].columns
    }


def _log_date(mapping: TableMapping) -> str:
    return f"try_cast(({mapping.log_date or 'null'}) as date)"


def _where(mapping: TableMapping) -> str:
    return f" where ({mapping.where})" if mapping.where else ""


def _one_line(error: duckdb.Error) -> str:
    return str(error).split("\n\n")[0].replace("\n", " ")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
