"""
How does a query of ``sql/``, written for DuckDB, read on Spark?

sqlglot parses it and writes it for Spark; it drops without a word what it has no equal for, so nothing
passes but the functions listed here, each compared with DuckDB in ``tests/sql/test_spark.py``. Where the
engines differ in more than spelling, a rule below gives DuckDB's meaning:

- ``list(x order by k)`` keeps its order and its nulls, and is null where it has no rows;
- ``unnest`` and ``generate_subscripts`` of one list run beside each other;
- null is no member for ``list_contains`` and ``list_distinct``; null is neither NaN nor infinite nor finite;
- ``date_diff('second', ...)`` counts the seconds begun, not the whole ones between;
- what is read out of text, and what is written as text or JSON, is DuckDB's own doing: no two engines agree
  on which texts are numbers or times. Spark's workers call it on their columns (`Shim`).
"""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import ClassVar

from sqlglot import exp, parse_one
from sqlglot.dialects.spark import Spark

KNOWN = (
    *(exp.Abs, exp.And, exp.ArgMax, exp.ArgMin, exp.Array, exp.ArrayAgg, exp.ArrayContains),
    *(exp.ArrayDistinct, exp.ArraySort, exp.Case, exp.Cast, exp.Coalesce, exp.Concat, exp.Contains),
    *(exp.Count, exp.DateDiff, exp.DenseRank, exp.Explode, exp.Extract, exp.Floor, exp.If, exp.IsInf),
    *(exp.IsNan, exp.Lag, exp.Length, exp.Log, exp.MD5, exp.Max, exp.Min, exp.Or, exp.Pad, exp.Pow),
    *(exp.RegexpFullMatch, exp.RegexpLike, exp.RowNumber, exp.SplitPart, exp.StrPosition),
    *(exp.Substring, exp.Sum, exp.Transform, exp.TryCast),
)
KNOWN_BY_NAME = ("generate_subscripts", "isfinite", "to_json")
INFINITE = "double('Infinity')"
# The names that `unnest` gets; no column of a query may be called so.
UNNESTED, VALUE, PLACE = "_unnested", "_value", "_place"


class NoEqual(ValueError):
    """The query uses what has no checked equal on Spark; the message names it."""


@dataclass(frozen=True)
class Shim:
    """A function that DuckDB computes on Spark's workers: an expression of ``value``, and its Spark type."""

    name: str
    expression: str
    type: str


@dataclass
class SparkQuery:
    """The query's text for Spark, the values of its named parameters, and the functions that it needs."""

    text: str = ""
    parameters: dict[str, object] = field(default_factory=dict)
    shims: dict[str, Shim] = field(default_factory=dict)


class _Dialect(Spark):
    """Spark 4: it has ``qualify``, and unnests are written by the rule below."""

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
    for kind, rule in _RULES.items():
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
            column.replace(_call("struct", exp.Column(this=exp.Star(), table=exp.to_identifier(column.name))))


def _unnest_beside_rows(select: exp.Select) -> None:
    """Turn the select's ``unnest`` and ``generate_subscripts`` of one list into a lateral view."""
    found = [
        node
        for node in select.find_all(exp.Explode, exp.Anonymous)
        if node.parent_select is select
        and (isinstance(node, exp.Explode) or _is_call(node, "generate_subscripts"))
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


def _list_in_order(node: exp.ArrayAgg, _: SparkQuery) -> exp.Expression:
    """Sort structs of the keys, each behind whether it is null, and of the value; then take the values."""
    order = node.this
    if not isinstance(order, exp.Order):
        raise NoEqual("list() needs an order by on Spark, or its order is chance")
    directions = {bool(key.args.get("desc")) for key in order.expressions}
    if len(directions) > 1 or any(key.args.get("nulls_first") for key in order.expressions):
        raise NoEqual("the order by of list() must run one way, nulls last, on Spark")
    (is_falling,) = directions
    is_distinct = isinstance(order.this, exp.Distinct)
    value = order.this.expressions[0] if is_distinct else order.this
    if is_distinct and any(key.this != value for key in order.expressions):
        raise NoEqual("list(distinct x) must be ordered by x on Spark")
    fields = []
    for key in order.expressions:
        is_null = exp.paren(exp.Is(this=key.this.copy(), expression=exp.Null()))
        fields += [exp.Not(this=is_null) if is_falling else is_null, key.this.copy()]
    rows = _call("struct", *fields, exp.alias_(value.copy(), VALUE))
    collected = _call("collect_set" if is_distinct else "collect_list", rows)
    n_rows: exp.Expression = exp.Count(this=exp.Star())
    if isinstance(node.parent, exp.Filter):
        condition = node.parent.expression
        collected, n_rows = (
            exp.Filter(this=each, expression=condition.copy()) for each in (collected, n_rows)
        )
    ascending = exp.false() if is_falling else exp.true()
    row = exp.to_identifier("_row")
    values = _call(
        "transform",
        _call("sort_array", collected, ascending),
        exp.Lambda(this=exp.column(VALUE, table=row.copy()), expressions=[row]),
    )
    return exp.case().when(exp.GT(this=n_rows, expression=exp.Literal.number(0)), values)


def _lists(node: exp.Filter, query: SparkQuery) -> exp.Expression:
    return _list_in_order(node.this, query) if isinstance(node.this, exp.ArrayAgg) else node


def _is_held(node: exp.ArrayContains, _: SparkQuery) -> exp.Expression:
    values, value = node.this, node.expression
    return _spark(f"if({_sql(values)} is null or {_sql(value)} is null, null,"
                  f" coalesce(array_contains({_sql(values)}, {_sql(value)}), false))")  # fmt: skip


def _distinct(node: exp.ArrayDistinct, _: SparkQuery) -> exp.Expression:
    return _call("array_compact", _call("array_distinct", node.this))


def _length(node: exp.Length, _: SparkQuery) -> exp.Expression:
    return _call("array_size", node.this)


def _sorted(node: exp.ArraySort, _: SparkQuery) -> exp.Expression:
    is_falling = node.args.get("asc") == exp.false()
    return _call("sort_array", node.this, exp.false()) if is_falling else _call("array_sort", node.this)


def _is_nan(node: exp.IsNan, _: SparkQuery) -> exp.Expression:
    return _spark(f"({_sql(node.this)} = double('NaN'))")


def _is_infinite(node: exp.IsInf, _: SparkQuery) -> exp.Expression:
    return _spark(f"(abs({_sql(node.this)}) = {INFINITE})")


def _seconds_begun(node: exp.DateDiff, _: SparkQuery) -> exp.Expression:
    if node.args["unit"].name != "SECOND":
        raise NoEqual(f"date_diff counts seconds on Spark, not {node.args['unit'].name}")
    first, last = (f"date_trunc('second', {_sql(time)})" for time in (node.expression, node.this))
    return _call("timestampdiff", exp.var("SECOND"), _spark(first), _spark(last))


def _full_match(node: exp.RegexpFullMatch, _: SparkQuery) -> exp.Expression:
    pattern = node.expression
    if not isinstance(pattern, exp.Literal):
        raise NoEqual("the pattern of regexp_full_match must be written out")
    whole = exp.Literal.string(rf"\A(?:{pattern.this})\z")
    return exp.RegexpLike(this=node.this, expression=whole)


def _log2(node: exp.Log, query: SparkQuery) -> exp.Expression:
    """Leave log2 to DuckDB too: Java's may fall short of the whole number at a power of two."""
    columns = list(node.expression.find_all(exp.Column)) if node.expression else []
    if node.this != exp.Literal.number(2) or len(columns) != 1:
        raise NoEqual("of logarithms Spark has log2, of one column")
    column = columns[0].copy()
    columns[0].replace(exp.column("value"))
    return _shim(query, f"log2({_sql(node.expression)})", exp.DataType.build("double"), column)


def _cast(node: exp.Cast, query: SparkQuery) -> exp.Expression:
    """Leave text, and casts that may fail, to DuckDB."""
    if isinstance(node, exp.TryCast):
        return _shim(query, f"try_cast(value as {node.to.sql('duckdb')})", node.to, node.this)
    if _is_call(node.this, "to_json"):
        return _shim(query, "to_json(value)::varchar", node.to, node.this.expressions[0])
    if node.to.is_type(*exp.DataType.TEXT_TYPES):
        return _shim(query, "value::varchar", node.to, node.this)
    if node.to.is_type(exp.DataType.Type.TIMESTAMPTZ):
        raise NoEqual("a cast to timestamptz must be a try_cast on Spark")
    return node


def _by_name(node: exp.Anonymous, _: SparkQuery) -> exp.Expression:
    if _is_call(node, "isfinite"):
        value = _sql(node.expressions[0])
        return _spark(f"({value} <> double('NaN') and abs({value}) <> {INFINITE})")
    if _is_call(node, "to_json"):
        raise NoEqual("to_json must be cast to varchar")
    return node


def _shim(query: SparkQuery, expression: str, to: exp.DataType, value: exp.Expression) -> exp.Expression:
    is_with_zone = to.is_type(exp.DataType.Type.TIMESTAMPTZ)
    shim = Shim(
        f"duckdb_{len(query.shims)}", expression, "timestamp_ltz" if is_with_zone else to.sql(dialect="spark")
    )
    shim = query.shims.setdefault(expression, shim)
    return _call(shim.name, value.copy())


# In this order: a filter is written with the list that it is of.
_RULES = {
    exp.Filter: _lists,
    exp.ArrayAgg: _list_in_order,
    exp.ArrayContains: _is_held,
    exp.ArrayDistinct: _distinct,
    exp.ArraySort: _sorted,
    exp.Length: _length,
    exp.IsNan: _is_nan,
    exp.IsInf: _is_infinite,
    exp.DateDiff: _seconds_begun,
    exp.RegexpFullMatch: _full_match,
    exp.Log: _log2,
    exp.Cast: _cast,
    exp.Anonymous: _by_name,
}


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


def _call(name: str, *arguments: exp.Expression) -> exp.Anonymous:
    return exp.Anonymous(this=name, expressions=list(arguments))


def _is_call(node: exp.Expression, name: str) -> bool:
    return isinstance(node, exp.Anonymous) and node.name.lower() == name


def _sql(node: exp.Expression) -> str:
    return node.sql(dialect="duckdb")


def _spark(text: str) -> exp.Expression:
    return parse_one(text, read="duckdb")
