from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.item_to_item import retrieve_by_items


def i2i_table(scores):
    """scores: {(trigger, target): score}, ranked per trigger as the Swing index does."""
    rows = []
    for trigger in sorted({i for i, _ in scores}):
        targets = sorted((-s, j) for (i, j), s in scores.items() if i == trigger)
        rows += [(trigger, j, -s, rank) for rank, (s, j) in enumerate(targets, start=1)]
    columns = list(zip(*rows, strict=True)) or [()] * 4
    types = {
        "trigger_item_id": pa.int64(),
        "target_item_id": pa.int64(),
        "score": pa.float64(),
        "rank": pa.int32(),
    }
    return pa.table(
        {name: pa.array(column, type) for (name, type), column in zip(types.items(), columns, strict=True)}
    )


def id_lists(lists):
    return pa.array(lists, pa.list_(pa.int64()))


TABLE = i2i_table({(1, 2): 0.5, (1, 3): 0.25, (2, 3): 0.5, (2, 4): 0.125, (5, 1): 1.0})


def brute_force(scores, history, k, n_triggers, n_targets, allowed):
    distinct = []
    for item in reversed(history):
        if item not in distinct:
            distinct.append(item)
    total = defaultdict(float)
    for trigger in distinct[:n_triggers]:
        targets = sorted((-s, j) for (i, j), s in scores.items() if i == trigger)
        for negative_score, target in targets[:n_targets]:
            if target not in history and (allowed is None or target in allowed):
                total[target] -= negative_score
    best = sorted(total, key=lambda item: (-total[item], item))[:k]
    return best + [-1] * (k - len(best))


def test_scores_of_all_triggers_add_up():
    retrieved = retrieve_by_items(TABLE, id_lists([[1, 2], [2], [1, 9], [5, 2, 1]]), 3)
    assert retrieved.dtype == np.int64
    assert retrieved.tolist() == [[3, 4, -1], [3, 4, -1], [2, 3, -1], [3, 4, -1]]


def test_users_without_history_or_known_triggers_get_nothing():
    assert retrieve_by_items(TABLE, id_lists([[], None, [77]]), 2).tolist() == [[-1, -1]] * 3


def test_only_the_last_distinct_items_are_triggers_but_the_whole_history_is_excluded():
    assert retrieve_by_items(TABLE, id_lists([[3, 2, 1, 1]]), 2, n_triggers=1).tolist() == [[-1, -1]]
    assert retrieve_by_items(TABLE, id_lists([[5, 2, 2]]), 2, n_triggers=1).tolist() == [[3, 4]]
    assert retrieve_by_items(TABLE, id_lists([[5, 2, 2]]), 3, n_triggers=2).tolist() == [[1, 3, 4]]


def test_ties_are_broken_by_item_id():
    table = i2i_table({(1, 9): 0.1, (2, 9): 0.2, (1, 4): 0.2, (2, 4): 0.1, (3, 0): 0.3, (1, 8): 0.3})
    assert retrieve_by_items(table, id_lists([[1, 2, 3]]), 4).tolist() == [[0, 4, 8, 9]]


def test_only_allowed_items_are_retrieved():
    retrieved = retrieve_by_items(TABLE, id_lists([[1, 2], [5]]), 2, allowed_item_ids=np.array([4, 2]))
    assert retrieved.tolist() == [[4, -1], [-1, -1]]
    nothing = retrieve_by_items(TABLE, id_lists([[1]]), 2, allowed_item_ids=np.array([], np.int64))
    assert nothing.tolist() == [[-1, -1]]


def test_fewer_targets_per_trigger_can_be_used():
    assert retrieve_by_items(TABLE, id_lists([[1], [2]]), 2, n_targets=1).tolist() == [[2, -1], [3, -1]]


@pytest.mark.parametrize("histories", [[], [[1, 2]]])
def test_an_empty_table_or_no_users_give_padding_only(histories):
    retrieved = retrieve_by_items(i2i_table({}), id_lists(histories), 2)
    assert retrieved.tolist() == [[-1, -1]] * len(histories)


def test_table_rows_may_come_in_any_order_and_histories_in_chunks_and_slices():
    shuffled = TABLE.take([4, 2, 0, 3, 1])
    histories = pa.chunked_array([id_lists([[9], [1, 2]]).slice(1), id_lists([[2]])])
    assert retrieve_by_items(shuffled, histories, 2).tolist() == [[3, 4], [3, 4]]


@settings(max_examples=150, deadline=None)
@given(
    scores=st.dictionaries(
        st.tuples(st.integers(0, 6), st.integers(0, 9)), st.sampled_from([0.125, 0.25, 0.5, 1.0]), max_size=40
    ),
    histories=st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=6),
    k=st.integers(1, 12),
    n_triggers=st.integers(1, 9),
    n_targets=st.sampled_from([None, 1, 3]),
    allowed=st.one_of(st.none(), st.sets(st.integers(0, 9))),
    n_threads=st.sampled_from([1, 3]),
)
def test_every_option_equals_brute_force(scores, histories, k, n_triggers, n_targets, allowed, n_threads):
    retrieved = retrieve_by_items(
        i2i_table(scores),
        id_lists(histories),
        k,
        n_triggers=n_triggers,
        n_targets=n_targets,
        allowed_item_ids=None if allowed is None else np.array(sorted(allowed), np.int64),
        n_threads=n_threads,
    )
    expected = [brute_force(scores, history, k, n_triggers, n_targets, allowed) for history in histories]
    assert retrieved.tolist() == expected
