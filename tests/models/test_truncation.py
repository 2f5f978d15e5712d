"""Depths of targets and numbers of candidates, by hand and against the Swing channel."""

import numpy as np
import pyarrow as pa
import pytest

from models.item_to_item import retrieve_by_items
from models.metrics import NOT_RETRIEVED, hit_rate, target_ranks
from models.truncation import BadTruncations, reach

IDS = pa.list_(pa.int64())


def table_of(lists: dict[int, list[int]]) -> pa.Table:
    rows = [(t, j, 1.0 / (r + 1), r + 1) for t, targets in lists.items() for r, j in enumerate(targets)]
    trigger, target, score, rank = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "trigger_item_id": pa.array(trigger, pa.int64()),
            "target_item_id": pa.array(target, pa.int64()),
            "score": pa.array(score, pa.float64()),
            "rank": pa.array(rank, pa.int32()),
        }
    )


def test_depth_is_the_best_rank_over_the_triggers() -> None:
    table = table_of({1: [10, 11, 12, 2], 2: [12, 13, 10, 14]})
    found = reach(table, pa.array([[1, 2]], IDS), pa.array([[12, 14, 11, 99]], IDS), (1, 2, 4))
    # depths: 10 -> 1, 11 -> 2, 12 -> 1, 13 -> 2, 14 -> 4; item 2 is of the history
    assert found.target_ranks.tolist() == [0, 3, 1, NOT_RETRIEVED]
    assert found.n_candidates.tolist() == [[2, 4, 5]]


def test_only_the_last_distinct_items_are_triggers() -> None:
    table = table_of({1: [10], 2: [20], 3: [30]})
    histories = pa.array([[1, 2, 3, 2]], IDS)
    found = reach(table, histories, pa.array([[10, 20, 30]], IDS), (1, 2), n_triggers=2)
    assert found.target_ranks.tolist() == [NOT_RETRIEVED, 0, 0]


def test_item_that_may_not_be_retrieved_keeps_its_place_in_the_list() -> None:
    table = table_of({1: [10, 11, 12]})
    found = reach(
        table, pa.array([[1]], IDS), pa.array([[12]], IDS), (1, 2, 3), allowed_item_ids=np.array([11, 12])
    )
    assert found.target_ranks.tolist() == [2]
    assert found.n_candidates.tolist() == [[0, 1, 2]]


def test_users_without_history_and_tables_without_rows_reach_nothing() -> None:
    targets = pa.array([[10], []], IDS)
    for table, histories in (
        (table_of({1: [10]}), pa.array([[], []], IDS)),
        (table_of({}), pa.array([[1], [2]], IDS)),
    ):
        found = reach(table, histories, targets, (1, 5))
        assert found.target_ranks.tolist() == [NOT_RETRIEVED]
        assert found.n_candidates.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_candidates_at_each_truncation_are_those_of_the_cut_table(n_threads: int) -> None:
    generator = np.random.default_rng(1)
    n_items, n_users, truncations = 80, 60, (1, 3, 10, 25, 40)
    table = table_of(
        {
            t: generator.permutation(np.delete(np.arange(n_items), t))[: generator.integers(0, 45)]
            for t in range(50)
        }
    )
    histories = [generator.integers(0, n_items, generator.integers(0, 9)).tolist() for _ in range(n_users)]
    targets = [np.setdiff1d(generator.permutation(n_items)[:6], one).tolist() for one in histories]
    histories, targets = pa.array(histories, IDS), pa.array(targets, IDS)
    allowed = np.arange(0, n_items, 2)
    found = reach(
        table, histories, targets, truncations, n_triggers=4, allowed_item_ids=allowed, n_threads=n_threads
    )
    for place, truncation in enumerate(truncations):
        lists = retrieve_by_items(
            table, histories, n_items, n_triggers=4, n_targets=truncation, allowed_item_ids=allowed
        )
        assert np.sum(lists >= 0, axis=1).tolist() == found.n_candidates[:, place].tolist()
        expected = hit_rate(target_ranks(lists, targets), targets, n_items)
        assert hit_rate(found.target_ranks, targets, truncation) == expected


@pytest.mark.parametrize(
    ("truncations", "message"),
    [
        ((0, 5), r"at least 1 and below 2\^31, got 0, 5"),
        ((-3, 5), "at least 1"),
        ((5, 2), "the T must ascend, but 2 comes after 5"),
        ((5, 5, 6), "T = 5 is given twice"),
        ((5,), "at least two T, got 5"),
        ((), "at least two T, got none"),
    ],
)
def test_truncations_that_cannot_be_compared_are_refused(truncations: tuple[int, ...], message: str) -> None:
    with pytest.raises(BadTruncations, match=message):
        reach(table_of({}), pa.array([], IDS), pa.array([], IDS), truncations)
