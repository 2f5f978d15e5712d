"""
Where does Spark mean something else than DuckDB by the same words, and how is DuckDB's meaning written?

One rule for each kind of node that sqlglot's translation gets wrong, or that no translation can get right.
"""

from dataclasses import dataclass, field

from sqlglot import exp, parse_one

INFINITE = "double('Infinity')"
VALUE = "_value"


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
    rows = call("struct", *fields, exp.alias_(value.copy(), VALUE))
    collected = call("collect_set" if is_distinct else "collect_list", rows)
    n_rows: exp.Expression = exp.Count(this=exp.Star())
    if isinstance(node.parent, exp.Filter):
        condition = node.parent.expression
        collected, n_rows = (
            exp.Filter(this=each, expression=condition.copy()) for each in (collected, n_rows)
        )
    ascending = exp.false() if is_falling else exp.true()
    row = exp.to_identifier("_row")
    values = call(
        "transform",
        call("sort_array", collected, ascending),
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
    return call("array_compact", call("array_distinct", node.this))


def _length(node: exp.Length, _: SparkQuery) -> exp.Expression:
    return call("array_size", node.this)


def _sorted(node: exp.ArraySort, _: SparkQuery) -> exp.Expression:
    is_falling = node.args.get("asc") == exp.false()
    return call("sort_array", node.this, exp.false()) if is_falling else call("array_sort", node.this)


def _is_nan(node: exp.IsNan, _: SparkQuery) -> exp.Expression:
    return _spark(f"({_sql(node.this)} = double('NaN'))")


def _is_infinite(node: exp.IsInf, _: SparkQuery) -> exp.Expression:
    return _spark(f"(abs({_sql(node.this)}) = {INFINITE})")


def _seconds_begun(node: exp.DateDiff, _: SparkQuery) -> exp.Expression:
    if node.args["unit"].name != "SECOND":
        raise NoEqual(f"date_diff counts seconds on Spark, not {node.args['unit'].name}")
    first, last = (f"date_trunc('second', {_sql(time)})" for time in (node.expression, node.this))
    return call("timestampdiff", exp.var("SECOND"), _spark(first), _spark(last))


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
    if is_call(node.this, "to_json"):
        return _shim(query, "to_json(value)::varchar", node.to, node.this.expressions[0])
    if node.to.is_type(*exp.DataType.TEXT_TYPES):
        return _shim(query, "value::varchar", node.to, node.this)
    if node.to.is_type(exp.DataType.Type.TIMESTAMPTZ):
        raise NoEqual("a cast to timestamptz must be a try_cast on Spark")
    return node


def _by_name(node: exp.Anonymous, _: SparkQuery) -> exp.Expression:
    if is_call(node, "isfinite"):
        value = _sql(node.expressions[0])
        return _spark(f"({value} <> double('NaN') and abs({value}) <> {INFINITE})")
    if is_call(node, "list_extract"):
        return call("try_element_at", *node.expressions)
    if is_call(node, "to_json"):
        raise NoEqual("to_json must be cast to varchar")
    return node


def _shim(query: SparkQuery, expression: str, to: exp.DataType, value: exp.Expression) -> exp.Expression:
    is_with_zone = to.is_type(exp.DataType.Type.TIMESTAMPTZ)
    shim = Shim(
        f"duckdb_{len(query.shims)}", expression, "timestamp_ltz" if is_with_zone else to.sql(dialect="spark")
    )
    shim = query.shims.setdefault(expression, shim)
    return call(shim.name, value.copy())


# In this order: a filter is written with the list that it is of.
RULES = {
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


def call(name: str, *arguments: exp.Expression) -> exp.Anonymous:
    """Call a function of Spark by its name."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def is_call(node: exp.Expression, name: str) -> bool:
    """Tell whether a node calls a function, known by its name alone."""
    return isinstance(node, exp.Anonymous) and node.name.lower() == name


def _sql(node: exp.Expression) -> str:
    return node.sql(dialect="duckdb")


def _spark(text: str) -> exp.Expression:
    return parse_one(text, read="duckdb")
