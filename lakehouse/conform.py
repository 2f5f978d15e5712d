"""Do these rows fit their declared table? If so: in its columns, types and order."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from lakehouse.tables import Column, Table


class SchemaMismatch(ValueError):
    """Rows or a stored partition do not fit their declared table; the message names table and column."""


def conform(rows: pa.Table, table: Table) -> pa.Table:
    """
    Give the rows with the table's schema, in its order of rows.

    A type may differ in how it stores its values (int32 for int64, large_string for string, decimal sums
    for integers), never in what they are (text for a number, a time with a zone for one without).

    Raises:
        SchemaMismatch: a column is missing, unknown, repeated, of another type, or holds a null or a value
            that it may not hold; or several rows have the same key.
    """
    rows = _conform_columns(rows, table)
    _check_key(rows, table)
    return rows.sort_by([(name, "ascending") for name in _order(table)])


def conform_batches(batches: Iterable[pa.Table | pa.RecordBatch], table: Table) -> Iterator[pa.Table]:
    """
    Give the rows of batches that are in the table's order already, each as `conform` would.

    The batches are cut where the first column of the order, which leads the key too, changes its value, so
    that no key can be in two of them.

    Raises:
        SchemaMismatch: as `conform`, or the rows are in another order or cut elsewhere.
    """
    order = _order(table)
    if order[0] != table.key[0]:
        raise ValueError(f"table {table.name} is ordered by {order[0]}, its key starts with {table.key[0]}")
    last = None
    for batch in batches:
        rows = _conform_columns(batch, table)
        if rows.num_rows == 0:
            continue
        first = rows[order[0]][0].as_py()
        if not _is_ascending(rows.select(order)) or (last is not None and first <= last):
            raise SchemaMismatch(
                f"table {table.name}: a batch that starts at {order[0]}={first} is not in the order of"
                f" {', '.join(order)}, or not cut between two values of {order[0]}"
            )
        _check_key(rows, table)
        last = rows[order[0]][-1].as_py()
        yield rows


def _order(table: Table) -> list[str]:
    return list(dict.fromkeys((*table.sort_columns, *table.key)))


def _is_ascending(rows: pa.Table) -> bool:
    """Tell whether no row comes before the one above it, by all columns in their order (no nulls)."""
    is_equal = pa.repeat(pa.scalar(True), max(0, rows.num_rows - 1))
    is_behind = pc.invert(is_equal)
    for column in rows.columns:
        above, below = column.slice(0, len(column) - 1), column.slice(1)
        is_behind = pc.or_(is_behind, pc.and_(is_equal, pc.greater(below, above)))
        is_equal = pc.and_(is_equal, pc.equal(below, above))
    return pc.all(pc.or_(is_behind, is_equal), min_count=0).as_py()


def _conform_columns(rows: pa.Table | pa.RecordBatch, table: Table) -> pa.Table:
    if isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    _check_names(rows.column_names, table)
    columns = [_conform_column(rows[column.name], column, table) for column in table.columns]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _check_names(found: list[str], table: Table) -> None:
    declared = table.schema.names
    faults = {
        "missing": [name for name in declared if name not in found],
        "not declared": [name for name in found if name not in declared],
        "given twice": sorted({name for name in found if found.count(name) > 1}),
    }
    texts = [f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names]
    if texts:
        raise SchemaMismatch(
            f"table {table.name}: columns {'; '.join(texts)} (declared: {', '.join(declared)})"
        )


def _conform_column(values: pa.ChunkedArray, column: Column, table: Table) -> pa.ChunkedArray:
    where = f"table {table.name}, column {column.name}"
    if values.null_count and not column.nullable:
        raise SchemaMismatch(f"{where}: {values.null_count} of {len(values)} rows are null; none may be")
    if not _is_same_kind(values.type, column.type):
        raise SchemaMismatch(f"{where}: {len(values)} rows of type {values.type}; declared is {column.type}")
    try:
        return values.cast(column.type)
    except pa.ArrowInvalid as error:
        raise SchemaMismatch(f"{where}: {values.type} does not fit {column.type}: {error}") from error


def _is_same_kind(found: pa.DataType, declared: pa.DataType) -> bool:
    if found == declared or types.is_null(found):
        return True
    if types.is_dictionary(found):
        return _is_same_kind(found.value_type, declared)
    if types.is_list(declared):
        is_list = types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)
        return is_list and _is_same_kind(found.value_type, declared.value_type)
    if types.is_timestamp(declared):
        return types.is_timestamp(found) and found.tz == declared.tz
    return any(is_declared(declared) and may_be(found) for is_declared, may_be in _STORED_AS)


def _is_integer(kind: pa.DataType) -> bool:
    return types.is_integer(kind) or types.is_decimal(kind)


def _is_number(kind: pa.DataType) -> bool:
    return _is_integer(kind) or types.is_floating(kind)


def _is_text(kind: pa.DataType) -> bool:
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


_STORED_AS = (
    (types.is_integer, _is_integer),
    (types.is_floating, _is_number),
    (types.is_date, types.is_date),
    (_is_text, _is_text),
    (_is_bytes, _is_bytes),
)


def _check_key(rows: pa.Table, table: Table) -> None:
    key = list(table.key)
    n_keys = rows.group_by(key).aggregate([]).num_rows
    if n_keys == rows.num_rows:
        return
    counts = rows.group_by(key).aggregate([([], "count_all")])
    example = counts.filter(pc.field("count_all") > 1).slice(0, 1).select(key).to_pylist()[0]
    raise SchemaMismatch(
        f"table {table.name}: {rows.num_rows - n_keys} of {rows.num_rows} rows repeat the key of another row"
        f" ({', '.join(f'{name}={value}' for name, value in example.items())})"
    )
