"""
What does one SELECT of ``sql/`` give?

A query is one file with one SELECT, its inputs are the names it selects from, its parameters are ``$name``.
DuckDB runs it in a session of its own that can read the inputs and nothing else: no other file, no network,
no extension that is not built in. Given a Spark session, DuckDB binds the query over no rows and Spark runs
it, with the same result (`lakehouse.spark_sql`).
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from lakehouse.commit import DAY
from lakehouse.relation import Relation
from lakehouse.storage import StorageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SQL_FOLDER = Path(__file__).resolve().parents[1] / "sql"
# How DuckDB's message starts when it comes from a file system of Python.
FILESYSTEM_RAISED = "Traceback (most recent call last)"
# How Spark's message starts when it comes from Python on a worker.
WORKER_RAISED = "An exception was thrown from the Python worker"
# What Spark's messages hold when disk, network or cluster failed, which a retry may mend.
SPARK_FAILED = ("java.io.IOException", "java.net.", "ExecutorLostFailure", "SparkContext was shut down")


class SqlError(ValueError):
    """A query is not there or did not run; the message names its file and line."""


def run_sql(
    name: str,
    inputs: dict[str, pa.Table | Relation],
    parameters: dict[str, object] | None = None,
    *,
    folder: Path = SQL_FOLDER,
    memory_limit: str | None = None,
    threads: int | None = None,
    spark: "SparkSession | None" = None,
) -> pa.Table:
    """
    Run ``<folder>/<name>.sql`` and give its rows, in the order of its final ``order by``.

    Args:
        name: e.g. ``marts/click``.
        inputs: Arrow tables and relations by the name that the query gives them; a relation has the column
            ``ds`` (date), one without files has no rows but the same columns.
        parameters: values of the ``$name`` parameters, all of them: dates, times, numbers, text, lists.
        memory_limit: e.g. ``"2GB"``; what does not fit goes to temporary files. DuckDB's default with None.
        threads: number of threads; one per core with None. Sums of floats may differ in their last bits
            with more than one.
        spark: run on this session, whose own configuration then bounds memory and threads.

    Returns:
        The columns that the SELECT gives, in DuckDB's types.

    Raises:
        SqlError: the file is missing, holds anything but one SELECT, or does not run.
        StorageError: an input's files, or the temporary ones, cannot be read or written now.
    """
    path = folder / f"{name}.sql"
    if not path.is_file():
        raise SqlError(f"no query {name}: there is no file {path}")
    with tempfile.TemporaryDirectory(prefix="tributary-sql-") as spill:
        try:
            given = inputs if spark is None else {name: _without_rows(rows) for name, rows in inputs.items()}
            with duckdb.connect(config=_configuration(spill, memory_limit, threads)) as session:
                _close(session, [relation for relation in given.values() if isinstance(relation, Relation)])
                for input_name, rows in given.items():
                    _add_input(session, input_name, rows)
                text = _one_select(path)
                selected = _select(session, text, parameters)
            return selected if spark is None else _on_spark(text, inputs, parameters, selected.schema, spark)
        except Exception as error:
            kind = StorageError if _is_storage_failure(error) else SqlError
            raise kind(_describe(error, path)) from error


def _configuration(spill: str, memory_limit: str | None, threads: int | None) -> dict[str, object]:
    given = {"memory_limit": memory_limit, "threads": threads}
    return {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        "preserve_insertion_order": True,
        "temp_directory": spill,
    } | {name: value for name, value in given.items() if value is not None}


def _close(session: duckdb.DuckDBPyConnection, relations: list[Relation]) -> None:
    """Set the session up, then close it for everything but the relations' files."""
    for filesystem in {relation.filesystem for relation in relations}:
        if not isinstance(filesystem, LocalFileSystem):
            session.register_filesystem(filesystem)
    files = [file for relation in relations for file in relation.files]
    session.execute("set TimeZone = 'UTC'")
    session.execute(f"set allowed_paths = {_literal(files)}")
    session.execute("set enable_external_access = false")
    session.execute("set lock_configuration = true")


def _add_input(session: duckdb.DuckDBPyConnection, name: str, rows: pa.Table | Relation) -> None:
    if isinstance(rows, pa.Table):
        session.register(name, rows)
    elif not rows.files:
        session.register(name, rows.schema.empty_table())
    else:
        columns = ", ".join(_quote(column) for column in rows.schema.names)
        of_folders = f"{{{DAY}: date" + (f", {_quote(rows.part_by)}: varchar}}" if rows.part_by else "}")
        session.execute(
            f"create view {_quote(name)} as select {columns} from read_parquet({_literal(rows.files)},"
            f" hive_partitioning = true, hive_types = {of_folders})"
        )


def _one_select(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if [statement.type for statement in duckdb.extract_statements(text)] != [duckdb.StatementType.SELECT]:
        raise SqlError("the file must hold one SELECT and nothing else")
    return text


def _select(session: duckdb.DuckDBPyConnection, text: str, parameters: dict[str, object] | None) -> pa.Table:
    session.execute(f"explain {text}", parameters)  # for its errors: those of sql() do not tell the line
    return session.sql(text, params=parameters).to_arrow_table()


def _without_rows(rows: pa.Table | Relation) -> pa.Table:
    return rows.schema.empty_table()


def _on_spark(
    text: str,
    inputs: dict[str, pa.Table | Relation],
    parameters: dict[str, object] | None,
    schema: pa.Schema,
    spark: "SparkSession",
) -> pa.Table:
    # these two need packages of the extra `spark`
    from lakehouse.spark_dialect import translate
    from lakehouse.spark_sql import run_on_spark

    query = translate(text, {name: rows.schema.names for name, rows in inputs.items()}, parameters or {})
    return run_on_spark(query, inputs, schema, spark)


def _is_storage_failure(error: Exception) -> bool:
    """Tell a failing disk or network, which a retry may mend, from a wrong query and a damaged file."""
    if any(sign in str(error) for sign in SPARK_FAILED):
        return "FileNotFoundException" not in str(error)
    if str(error).startswith(FILESYSTEM_RAISED):
        return "FileNotFoundError" not in str(error)
    return isinstance(error, duckdb.IOException) and "No files found" not in str(error)


def _describe(error: Exception, path: Path) -> str:
    """Put the engine's message on one line that names the file, and the line that DuckDB quotes."""
    message, _, excerpt = str(error).partition("\n\nLINE ")
    if message.startswith((FILESYSTEM_RAISED, WORKER_RAISED)):
        message = message.rstrip().rpartition("\n")[2]
    line = f", line {excerpt.split(':')[0]}" if excerpt else ""
    return f"{path}{line}: {' '.join(message.split())}"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(texts: Iterable[str]) -> str:
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"
