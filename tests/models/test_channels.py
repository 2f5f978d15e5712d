import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.channels import BadQuota, marginal_hits, merge_channels, merge_with_origin, remove
from models.ragged import NotAligned


def id_lists(lists):
    return pa.array(lists, pa.list_(pa.int64()))


def padded(lists, width):
    return np.array([[*row, *[-1] * (width - len(row))] for row in lists], np.int64).reshape(-1, width)


def test_removed_items_leave_no_gap():
    retrieved = np.array([[5, 2, 8, 1], [3, 4, -1, -1]])
    assert remove(retrieved, np.array([[8, 5], [-1, -1]])).tolist() == [[2, 1, -1, -1], [3, 4, -1, -1]]
    assert remove(retrieved, id_lists([[8, 5, 99], None])).tolist() == [[2, 1, -1, -1], [3, 4, -1, -1]]


def test_removing_nothing_from_nothing_gives_nothing():
    assert remove(np.empty((0, 3), np.int64), id_lists([])).shape == (0, 3)
    assert remove(np.full((2, 2), -1), np.empty((2, 0), np.int64)).tolist() == [[-1, -1]] * 2


def test_lists_of_other_users_are_refused():
    with pytest.raises(NotAligned):
        remove(np.full((2, 2), -1), np.full((3, 2), -1))
    with pytest.raises(NotAligned, match="different numbers of users"):
        merge_channels({"a": np.full((2, 2), -1), "b": np.full((3, 2), -1)}, {"a": 1, "b": 1})


def test_channels_take_turns_in_proportion_to_their_quotas():
    lists = {"a": padded([[1, 2, 3, 4]], 4), "b": padded([[11, 12, 13]], 3)}
    assert merge_channels(lists, {"a": 4, "b": 2}).tolist() == [[1, 2, 11, 3, 4, 12]]
    assert merge_channels(lists, {"b": 2, "a": 2}).tolist() == [[11, 1, 12, 2]]


def test_a_duplicate_counts_for_the_channel_that_places_it_first():
    lists = {"a": padded([[1, 2, 3]], 3), "b": padded([[1, 2, 9]], 3)}
    assert merge_channels(lists, {"a": 2, "b": 2}).tolist() == [[1, 2, 3, 9]]


def test_a_channel_that_runs_out_gives_its_places_to_the_others():
    lists = {"a": padded([[1], []], 5), "b": padded([[11, 12, 13, 14], [11, 12, 13, 14]], 5)}
    merged = merge_channels(lists, {"a": 3, "b": 2})
    assert merged.tolist() == [[1, 11, 12, 13, 14], [11, 12, 13, 14, -1]]


def test_a_quota_of_zero_switches_a_channel_off():
    lists = {"a": padded([[1]], 2), "b": padded([[2, 3]], 2)}
    assert merge_channels(lists, {"a": 2, "b": 0}).tolist() == [[1, -1]]
    assert merge_channels(lists, {"a": 0}).shape == (1, 0)


def test_bad_quotas_are_refused():
    with pytest.raises(BadQuota, match="channel c has a quota of 1 but no list; there are a"):
        merge_channels({"a": np.full((1, 2), -1)}, {"c": 1})
    with pytest.raises(BadQuota, match="quota of channel a is -1"):
        merge_channels({"a": np.full((1, 2), -1)}, {"a": -1})


@settings(max_examples=200, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, 15), unique=True, max_size=10), min_size=1, max_size=3),
    quotas=st.lists(st.integers(0, 6), min_size=3, max_size=3),
)
def test_the_merged_list_is_as_long_as_the_quotas_wherever_possible(lists, quotas):
    channels = {str(c): padded([items], 10) for c, items in enumerate(lists)}
    quota_of = {name: quotas[c] for c, name in enumerate(channels)}
    (row,) = merge_channels(channels, quota_of).tolist()
    merged = [item for item in row if item >= 0]
    available = {item for c, items in enumerate(lists) if quotas[c] for item in items}
    assert len(row) == sum(quota_of.values())
    assert len(merged) == len(set(merged)) == min(len(row), len(available))
    assert row[: len(merged)] == merged


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=3),
    data=st.data(),
)
def test_channels_without_common_items_place_exactly_their_quotas(sizes, data):
    channels = {str(c): padded([[100 * c + place for place in range(8)]], 8) for c in range(len(sizes))}
    (row,) = merge_channels(channels, dict(zip(channels, sizes, strict=True))).tolist()
    assert [sum(item // 100 == c for item in row) for c in range(len(sizes))] == sizes


def test_marginal_hits_are_those_no_other_channel_finds_within_the_quotas():
    lists = {
        "a": padded([[1, 2, 3], [4, 5, 6]], 3),
        "b": padded([[2, 1, 9], [7, 4, 8]], 3),
        "c": padded([[], []], 3),
    }
    targets = id_lists([[1, 2, 3, 9], [4, 7, 99]])
    hits = marginal_hits(lists, {"a": 2, "b": 1, "c": 5}, targets)
    # user 1: a finds 1, 2; b finds 2. user 2: a finds 4; b finds 7
    assert {name: counts.tolist() for name, counts in hits.items()} == {"a": [1, 1], "b": [0, 1], "c": [0, 0]}


def test_marginal_hits_of_no_users_are_empty():
    hits = marginal_hits({"a": np.empty((0, 3), np.int64)}, {"a": 2}, id_lists([]))
    assert hits["a"].shape == (0,)


def test_every_place_names_the_channel_that_filled_it():
    lists = {"a": np.array([[1, 2, -1]]), "off": np.array([[7, 8, 9]]), "b": np.array([[1, 3, -1]])}
    merged, origin = merge_with_origin(lists, {"a": 2, "off": 0, "b": 3})
    assert merged.tolist() == [[1, 2, 3, -1, -1]]
    assert origin.tolist() == [[2, 0, 2, -1, -1]]
    assert merge_channels(lists, {"a": 2, "off": 0, "b": 3}).tolist() == merged.tolist()
    assert [part.shape for part in merge_with_origin(lists, {"a": 0})] == [(1, 0), (1, 0)]
