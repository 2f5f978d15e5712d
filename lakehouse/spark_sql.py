"""
What does one SELECT of ``sql/`` give on Spark?

DuckDB has bound the query over no rows before (`lakehouse.sql`): that is where its mistakes are told, where
anything but its inputs is closed to it, and where the types of the result come from. Every run has a Spark
session of its own on the given one's context, so that queries do not see each other's inputs.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from lakehouse.commit import DAY
from lakehouse.relation import Relation
from lakehouse.spark_rules import Shim, SparkQuery

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SESSION = {
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.runSQLOnFiles": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
}
# How Hadoop's file systems call what fsspec calls otherwise.
SCHEMES = {"s3": "s3a", "gcs": "gs"}
GLOB = str.maketrans({letter: f"\\{letter}" for letter in "{}[]*?\\"})


def run_on_spark(
    query: SparkQuery, inputs: dict[str, pa.Table | Relation], schema: pa.Schema, spark: "SparkSession"
) -> pa.Table:
    """
    Run a translated query.

    Args:
        query: what `lakehouse.spark_dialect.translate` gave.
        inputs: Arrow tables, which go through this process to Spark, and relations, which Spark reads.
        schema: the result's columns.
        spark: a session whose workers have this package.

    Raises:
        pyspark.errors.PySparkException: the query does not run.
        pa.ArrowInvalid: the result does not fit the schema.
    """
    session = spark.newSession()
    for name, value in SESSION.items():
        session.conf.set(name, value)
    for shim in query.shims.values():
        session.udf.register(shim.name, _function(shim))
    with _quiet():
        for name, rows in inputs.items():
            _frame(session, rows).createOrReplaceTempView(_quote(name))
        try:
            result = session.sql(query.text, args=query.parameters).toArrow()
        finally:
            for name in inputs:
                session.catalog.dropTempView(name)
    if result.column_names != schema.names:
        raise pa.ArrowInvalid(f"Spark gives the columns {result.column_names}, DuckDB {schema.names}")
    return result.cast(schema)


def _frame(session: "SparkSession", rows: pa.Table | Relation) -> "DataFrame":
    if isinstance(rows, pa.Table):
        return session.createDataFrame(rows)
    no_rows = session.createDataFrame(rows.schema.empty_table())
    if not rows.files:
        return no_rows
    folder = rows.files[0].rpartition(f"/{DAY}=")[0]
    reader = session.read.schema(no_rows.schema).option("basePath", _address(folder, rows))
    files = [_address(file, rows).translate(GLOB) for file in rows.files]
    return reader.parquet(*files).select(*(f"`{name}`" for name in rows.schema.names))


def _address(path: str, relation: Relation) -> str:
    if isinstance(relation.filesystem, LocalFileSystem):
        return path
    scheme, separator, rest = path.partition("://")
    return SCHEMES.get(scheme, scheme) + separator + rest


def _function(shim: Shim):
    from pyspark.sql.functions import arrow_udf

    evaluate = partial(evaluate_with_duckdb, shim.expression)

    def function(values: pa.Array) -> pa.Array:
        return evaluate(values)

    return arrow_udf(function, shim.type)


def evaluate_with_duckdb(expression: str, values: pa.Array) -> pa.Array:
    """Evaluate an expression of ``value`` over a column, in its order."""
    session = _session()
    session.register("given", pa.table({"value": values}))
    column = session.sql(f"select {expression} as result from given").to_arrow_table()["result"]
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


@cache
def _session() -> duckdb.DuckDBPyConnection:
    session = duckdb.connect(config={"threads": 1, "python_enable_replacements": False})
    session.execute("set TimeZone = 'UTC'")
    session.execute("set enable_external_access = false")
    return session


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Spark's own log of failed queries out of the output: the error is raised and told once."""
    logger = logging.getLogger("SQLQueryContextLogger")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
