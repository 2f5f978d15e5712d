"""The digest sees values and order, nothing else."""

import time
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.digest import digest_rows

SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "small": pa.int8(),
        "is_click": pa.bool_(),
        "score": pa.float32(),
        "weight": pa.float64(),
        "time": pa.timestamp("us"),
        "day": pa.date32(),
        "name": pa.string(),
        "content": pa.large_binary(),
        "item_ids": pa.list_(pa.int64()),
        "scores": pa.list_(pa.float32()),
        "times": pa.list_(pa.timestamp("us")),
        "profile": pa.list_(pa.string()),
    }
)
times = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1))
of_column = {
    "id": st.integers(-(2**63), 2**63 - 1),
    "small": st.integers(-128, 127),
    "is_click": st.booleans(),
    "score": st.floats(width=32),
    "weight": st.floats(),
    "time": times,
    "day": st.dates(),
    "name": st.text(max_size=3),
    "content": st.binary(max_size=3),
    "item_ids": st.lists(st.none() | st.integers(0, 9), max_size=3),
    "scores": st.lists(st.floats(width=32), max_size=3),
    "times": st.lists(times, max_size=3),
    "profile": st.lists(st.text(max_size=2), max_size=3),
}
row = st.fixed_dictionaries({name: st.none() | values for name, values in of_column.items()})
rows = st.lists(row, max_size=8)


def table_of(python_rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(python_rows, schema=SCHEMA)


@settings(max_examples=60, deadline=None)
@given(rows, st.data())
def test_chunks_and_slices_do_not_count(python_rows: list[dict], data: st.DataObject) -> None:
    table = table_of(python_rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(python_rows)), max_size=3)))
    pieces = [
        pa.concat_tables([table_of(python_rows[:1]), table, table_of(python_rows[-1:])])
        .combine_chunks()
        .slice(len(python_rows[:1]) + first, last - first)
        for first, last in zip([0, *cuts], [*cuts, len(python_rows)], strict=True)
    ]
    assert digest_rows(pa.concat_tables(pieces)) == digest_rows(table)


@settings(max_examples=60, deadline=None)
@given(rows.filter(bool), st.data())
def test_another_value_gives_another_digest(python_rows: list[dict], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(python_rows) - 1))
    name = data.draw(st.sampled_from(SCHEMA.names))
    changed = [dict(r) for r in python_rows]
    changed[place][name] = data.draw(st.none() | of_column[name])
    same = repr(changed[place][name]) == repr(python_rows[place][name])
    assert (digest_rows(table_of(changed)) == digest_rows(table_of(python_rows))) == same


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ([None], [float("nan")], pa.float32()),
        ([None], [0], pa.int64()),
        ([None], [""], pa.string()),
        ([None], [[]], pa.list_(pa.int64())),
        ([[]], [[None]], pa.list_(pa.int64())),
        ([[1], [2, 3]], [[1, 2], [3]], pa.list_(pa.int64())),
        (["a", "bc"], ["ab", "c"], pa.string()),
        ([1, 2], [2, 1], pa.int64()),
        ([], [None], pa.int64()),
    ],
)
def test_values_that_are_easily_confused_differ(one: list, other: list, kind: pa.DataType) -> None:
    digests = {digest_rows(pa.table({"x": pa.array(values, kind)})) for values in (one, other)}
    assert len(digests) == 2


def test_names_and_types_count() -> None:
    digests = {
        digest_rows(pa.table({name: pa.array([1], kind)}))
        for name, kind in (("a", pa.int64()), ("b", pa.int64()), ("a", pa.timestamp("us")), ("a", pa.int32()))
    }
    assert len(digests) == 4


def test_name_of_list_items_does_not_count() -> None:
    one, other = (
        pa.array([[1, 2], None], pa.list_(pa.field(name, pa.int64(), nullable)))
        for name, nullable in (("item", True), ("element", False))
    )
    assert digest_rows(pa.table({"x": one})) == digest_rows(pa.table({"x": other}))


def test_bytes_under_a_null_do_not_count() -> None:
    validity = pa.array([True, False, True]).buffers()[1]
    offsets = pa.array([0, 1, 3, 4], pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), 3, [validity, offsets, pa.py_buffer(b"aXXb")])
    numbers = pa.Array.from_buffers(pa.int64(), 3, [validity, pa.array([1, 7, 2]).buffers()[1]])
    lists = pa.Array.from_buffers(
        pa.list_(pa.int64()), 3, [validity, offsets], children=[pa.array([1, 8, 9, 2])]
    )
    clean = pa.table({"text": ["a", None, "b"], "numbers": [1, None, 2], "lists": [[1], None, [2]]})
    dirty = pa.table({"text": text, "numbers": numbers, "lists": lists})
    assert dirty.equals(clean)
    assert digest_rows(dirty) == digest_rows(clean)


def test_every_nan_is_the_same() -> None:
    bits = np.array([0x7FF8000000000000, 0xFFF8000000000000, 0x7FF8000000000001], np.uint64).view(np.float64)
    assert len({digest_rows(pa.table({"x": pa.array(bits[i : i + 1])})) for i in range(3)}) == 1


def test_digest_never_changes_between_versions() -> None:
    rows = pa.table({"id": [1, None], "name": ["a", ""], "item_ids": [[1, 2], None]})
    assert digest_rows(rows) == "d3442adc63e5d358f7f67ca42cf74bfb576364b57e58aff3822923a225ed19b0"


def test_column_of_a_type_without_digest_is_named() -> None:
    with pytest.raises(TypeError, match=r"struct<a: int64>"):
        digest_rows(pa.table({"x": [{"a": 1}]}))


def test_a_million_rows_take_about_a_second() -> None:
    n = 1_000_000
    rng = np.random.default_rng(0)
    offsets = pa.array(np.arange(n + 1) * 5, pa.int32())
    table = pa.table(
        {
            "id": rng.integers(0, n, n),
            "scenario": pa.array(np.array(["home", "search"])[rng.integers(0, 2, n)]),
            "item_ids": pa.ListArray.from_arrays(offsets, pa.array(rng.integers(0, n, 5 * n))),
        }
    )
    start = time.process_time()
    digest_rows(table)
    assert time.process_time() - start < 3
