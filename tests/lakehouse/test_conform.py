"""Rows that fit their table come out in its types and order; others are refused with the reason."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from lakehouse.conform import SchemaMismatch, conform
from lakehouse.tables import TIME, Column, Table

RANKED = Table(
    "ranked",
    "A ranked item of a user.",
    (
        Column("user_id", pa.int64(), "the user"),
        Column("item_id", pa.int64(), "the item"),
        Column("rank", pa.int32(), "its rank"),
        Column("time", TIME, "when", True),
        Column("name", pa.string(), "its name", True),
        Column("item_ids", pa.list_(pa.int64()), "others", True),
        Column("score", pa.float32(), "its score", True),
    ),
    key=("user_id", "item_id"),
    order_by=("user_id", "rank"),
)


def ranked(**columns: object) -> pa.Table:
    """Two good rows, with some columns replaced."""
    good = {"user_id": [2, 1], "item_id": [7, 8], "rank": pa.array([1, 1], pa.int32())}
    nothing = {c.name: pa.nulls(2, c.type) for c in RANKED.columns if c.nullable}
    return pa.table(good | nothing | columns)


def test_rows_come_in_the_declared_columns_types_and_order() -> None:
    rows = ranked(rank=[1, 1], score=[0.5, None]).select(RANKED.schema.names[::-1])
    fitted = conform(rows, RANKED)
    assert fitted.schema == RANKED.schema
    assert fitted["user_id"].to_pylist() == [1, 2]
    assert fitted["score"].to_pylist() == [None, 0.5]


def test_rows_that_order_by_leaves_equal_are_ordered_by_the_key() -> None:
    one = ranked(user_id=[1, 1])
    other = one.take([1, 0])
    assert conform(one, RANKED) == conform(other, RANKED)
    assert conform(one, RANKED)["item_id"].to_pylist() == [7, 8]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rank", pa.array([1, 2], pa.decimal128(38, 0))),
        ("rank", pa.array([1, 2], pa.uint8())),
        ("name", pa.array(["a", "b"]).dictionary_encode()),
        ("name", pa.array(["a", "b"], pa.large_string())),
        ("name", pa.nulls(2)),
        ("time", pa.array([0, 1], pa.timestamp("ms"))),
        ("score", pa.array([1, 2], pa.int64())),
        ("score", pa.array([0.1, 2], pa.float64())),
        ("item_ids", pa.array([[1], None], pa.large_list(pa.field("l", pa.int32())))),
        ("item_ids", pa.array([[], []], pa.list_(pa.null()))),
    ],
)
def test_another_way_to_store_the_same_values_is_cast(name: str, values: pa.Array) -> None:
    assert conform(ranked(**{name: values}), RANKED).schema == RANKED.schema


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ranked().drop_columns(["rank"]), "table ranked: columns missing: rank"),
        (ranked(surplus=[1, 2]), "table ranked: columns not declared: surplus"),
        (ranked().append_column("rank", pa.array([1, 2])), "table ranked: columns given twice: rank"),
        (ranked(item_id=[7, None]), "table ranked, column item_id: 1 of 2 rows are null"),
        (
            ranked(item_id=["7", "8"]),
            "column item_id: 2 rows of type string; declared is int64",
        ),
        (ranked(item_id=[7.0, 8.0]), "column item_id: 2 rows of type double"),
        (ranked(rank=[True, False]), "column rank: 2 rows of type bool"),
        (ranked(rank=[1, 2**40]), "column rank: int64 does not fit int32"),
        (ranked(time=[datetime.now(UTC)] * 2), r"column time: 2 rows of type timestamp\[us, tz=UTC\]"),
        (ranked(item_ids=[["a"], []]), "column item_ids: 2 rows of type list"),
        (ranked(user_id=[1, 1], item_id=[7, 7]), r"1 of 2 rows repeat the key .*user_id=1, item_id=7"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows: pa.Table, message: str) -> None:
    with pytest.raises(SchemaMismatch, match=message) as refused:
        conform(rows, RANKED)
    assert "\n" not in str(refused.value)
