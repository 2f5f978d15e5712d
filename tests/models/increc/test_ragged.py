import numpy as np
import pyarrow as pa

from models.increc.ragged import Ragged, ids_from_arrow


def rows_of(ragged: Ragged) -> list[list[int]]:
    return [part.tolist() for part in np.split(ragged.values, ragged.offsets[1:-1])]


def ragged(*rows) -> Ragged:
    return ids_from_arrow(pa.array(list(rows), pa.list_(pa.int64())))


def test_lists_are_read_with_nulls_as_empty():
    assert rows_of(ragged([1, 2], None, [], [3])) == [[1, 2], [], [], [3]]


def test_sliced_and_chunked_lists_are_read():
    lists = pa.array([[9], [1, 2], None, [3]], pa.list_(pa.int64()))
    assert rows_of(ids_from_arrow(lists.slice(1))) == [[1, 2], [], [3]]
    assert rows_of(ids_from_arrow(pa.chunked_array([lists.slice(1, 1), lists.slice(3)]))) == [[1, 2], [3]]


def test_take_gathers_rows_in_order():
    assert rows_of(ragged([1, 2], [], [3]).take(np.array([2, 0, 1, 0]))) == [[3], [1, 2], [], [1, 2]]


def test_last_keeps_the_end_of_each_row():
    assert rows_of(ragged([1, 2, 3], [4], []).last(2)) == [[2, 3], [4], []]


def test_where_shortens_rows_but_keeps_them():
    assert rows_of(ragged([1, 2], [3]).where(np.array([True, False, False]))) == [[1], []]


def test_fill_empty_puts_the_value_into_empty_rows():
    assert rows_of(ragged([], [1, 2], [], []).fill_empty(0)) == [[0], [1, 2], [0], [0]]


def test_owners_name_the_row_of_each_value():
    assert ragged([1, 2], [], [3]).owners().tolist() == [0, 0, 2]
