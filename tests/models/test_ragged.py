"""Lists put together: in order, each item once."""

import pyarrow as pa
import pytest

from models.ragged import NotAligned, unite_lists

IDS = pa.list_(pa.int64())


def test_united_lists_hold_each_item_once_first_come_first():
    one, other = pa.array([[3, 1], [], None, [5, 5]], IDS), pa.array([[1, 2, 3, 4], [7], [], [5, 6]], IDS)
    assert unite_lists(one, other).to_pylist() == [[3, 1, 2, 4], [7], [], [5, 6]]


def test_lists_of_other_rows_are_refused():
    with pytest.raises(NotAligned):
        unite_lists(pa.array([[1]], IDS), pa.array([[1], [2]], IDS))
