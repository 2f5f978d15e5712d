"""
How does a query of ``sql/``, written for DuckDB, read on Spark?

sqlglot parses it and writes it for Spark; it drops without a word what it has no equal for, so nothing
passes but the functions listed here, each compared with DuckDB in ``tests/sql/test_spark.py``. Where the
engines differ in more than spelling, a rule (`lakehouse.spark_rules`) gives DuckDB's meaning:

- ``list(x order by k)`` keeps its order and its nulls, and is null where it has no rows;
- ``unnest`` and ``generate_subscripts`` of one list run beside each other; ``list_extract`` counts from 1;
- null is no member for ``list_contains`` and ``list_distinct``; null is neither NaN nor infinite nor finite;
- ``date_diff('second', ...)`` counts the seconds begun, not the whole ones between;
- what is read out of text, and what is written as text or JSON, is DuckDB's own doing: no two engines agree
  on which texts are numbers or times. Spark's workers call it on their columns (`Shim`).
"""

from datetime import date, datetime
from typing import ClassVar

from sqlglot import exp, parse_one
from sqlglot.dialects.spark import Spark

from lakehouse.spark_rules import RULES, VALUE, NoEqual, SparkQuery, call, is_call

KNOWN = (
    *(exp.Abs, exp.And, exp.ArgMax, exp.ArgMin, exp.Array, exp.ArrayAgg, exp.ArrayContains),
    *(exp.ArrayDistinct, exp.ArraySort, exp.Case, exp.Cast, exp.Coalesce, exp.Concat, exp.Contains),
    *(exp.Count, exp.DateDiff, exp.DenseRank, exp.Explode, exp.Extract, exp.Floor, exp.If, exp.IsInf),
    *(exp.IsNan, exp.Lag, exp.Length, exp.Log, exp.MD5, exp.Max, exp.Min, exp.Or, exp.Pad, exp.Pow),
    *(exp.RegexpFullMatch, exp.RegexpLike, exp.RowNumber, exp.SplitPart, exp.StrPosition),
    *(exp.Substring, exp.Sum, exp.Transform, exp.TryCast),
)
KNOWN_BY_NAME = ("generate_subscripts", "isfinite", "list_extract", "to_json")
# The names that `unnest` gets; no column of a query may be called so.
UNNESTED, PLACE = "_unnested", "_place"


class _Dialect(Spark):
    """Spark 4: it has ``qualify``; unnests are written by `_unnest_beside_rows`."""

    class Generator(Spark.Generator):
        """Spark's, without the rewriting of whole selects."""

        TRANSFORMS: ClassVar = {
            kind: rule for kind, rule in Spark.Generator.TRANSFORMS.items() if kind is not exp.Select
        }


def translate(text: str, inputs: dict[str, list[str]], parameters: dict[str, object]) -> SparkQuery:
    """
    Write a query for Spark.

    Args:
        text: one SELECT that DuckDB has accepted.
        inputs: the columns of each input.
        parameters: values by name.

    Raises:
        NoEqual: a function, or a use of one, that is not among those compared with DuckDB.
    """
    query = SparkQuery()
    tree = parse_one(text, read="duckdb")
    for function in tree.find_all(exp.Func):
        name = (function.name if isinstance(function, exp.Anonymous) else function.sql_name()).lower()
        if not isinstance(function, KNOWN) and name not in KNOWN_BY_NAME:
            raise NoEqual(
                f"the function {name} has no checked equal on Spark; see lakehouse/spark_dialect.py"
            )
    for select in list(tree.find_all(exp.Select)):
        _write_rows_as_structs(select, inputs)
        _unnest_beside_rows(select)
    for kind, rule in RULES.items():
        for node in _deepest_first(tree, kind):
            node.replace(rule(node, query))
    for node in list(tree.find_all(exp.Placeholder)):
        node.replace(_bind(node, parameters, query))
    query.text = tree.sql(dialect=_Dialect, comments=False)
    return query


def _deepest_first(tree: exp.Expression, kind: type[exp.Expression]) -> list[exp.Expression]:
    return list(tree.find_all(kind))[::-1]


def _write_rows_as_structs(select: exp.Select, inputs: dict[str, list[str]]) -> None:
    """Read the name of an input, where a column is expected, as its row."""
    tables = {table.alias_or_name: table.name for table in select.find_all(exp.Table)}
    for column in list(select.find_all(exp.Column)):
        source = tables.get(column.name)
        is_row = source in inputs and column.name not in inputs[source]
        if is_row and not column.table and column.parent_select is select:
            column.replace(call("struct", exp.Column(this=exp.Star(), table=exp.to_identifier(column.name))))


def _unnest_beside_rows(select: exp.Select) -> None:
    """Turn the select's ``unnest`` and ``generate_subscripts`` of one list into a lateral view."""
    found = [
        node
        for node in select.find_all(exp.Explode, exp.Anonymous)
        if node.parent_select is select
        and (isinstance(node, exp.Explode) or is_call(node, "generate_subscripts"))
    ]
    if not found:
        return
    lists = {_argument(node).sql() for node in found}
    if len(lists) > 1:
        raise NoEqual(f"one select may unnest one list on Spark, not {', '.join(sorted(lists))}")
    view = parse_one(f"select 1 lateral view posexplode(x) {UNNESTED} as {PLACE}, {VALUE}", read="spark")
    (lateral,) = view.args["laterals"]
    lateral.this.set("this", _argument(found[0]).copy())
    select.append("laterals", lateral)
    for node in found:
        is_value = isinstance(node, exp.Explode)
        column = exp.column(VALUE if is_value else PLACE, table=UNNESTED)
        node.replace(
            column if is_value else exp.paren(exp.Add(this=column, expression=exp.Literal.number(1)))
        )


def _argument(node: exp.Expression) -> exp.Expression:
    return node.this if isinstance(node, exp.Explode) else node.expressions[0]


def _bind(node: exp.Placeholder, parameters: dict[str, object], query: SparkQuery) -> exp.Expression:
    """Keep a parameter a parameter; a time goes as text, which no time zone of this process can shift."""
    value = parameters[node.name]
    if isinstance(value, datetime) and value.tzinfo is None:
        query.parameters[node.name] = value.isoformat(sep=" ")
        return exp.cast(node.copy(), "timestamp")
    if value is not None and not isinstance(value, bool | int | float | str | date):
        raise NoEqual(
            f"the parameter {node.name} is a {type(value).__name__}, which Spark does not take here"
        )
    query.parameters[node.name] = value
    return node
