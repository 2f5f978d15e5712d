"""All scenarios' lists as one: by score, each item once."""

import numpy as np
import pyarrow as pa

from models.mnr.merging import merge_scenarios
from models.mnr.replay import CANDIDATES_SCHEMA
from tests.models.mnr.logs import NIGHT


def candidates(*lists: tuple[int, str, list[int], list[float]]) -> pa.Table:
    rows = [
        {"moment": m, "user_id": 7, "scenario": s, "event_time": NIGHT, "item_ids": i, "scores": v}
        for m, s, i, v in lists
    ]
    return pa.Table.from_pylist(rows, CANDIDATES_SCHEMA)


def test_the_better_score_comes_first_and_an_item_comes_once():
    found = merge_scenarios(
        candidates((0, "search", [1, 2, 3], [1.0, 0.5, 0.2]), (0, "shop", [2, 4], [0.9, 0.4])), 1, 5
    )
    assert found.tolist() == [[1, 2, 4, 3, -1]]


def test_ties_go_to_the_better_place_then_to_the_scenarios_name():
    found = merge_scenarios(
        candidates((0, "search", [9, 8], [1.0, 1.0]), (0, "shop", [1, 8, 2], [1.0, 1.0, 0.5])), 1, 4
    )
    assert found.tolist() == [[9, 1, 8, 2]]


def test_a_moment_without_lists_is_empty_and_k_cuts():
    found = merge_scenarios(candidates((1, "search", [1, 2, 3], [1.0, 0.5, 0.2])), 3, 2)
    assert found.tolist() == [[-1, -1], [1, 2], [-1, -1]]


def test_merging_agrees_with_sorting_by_hand():
    generator = np.random.default_rng(1)
    lists = []
    for moment in range(20):
        for scenario in ("a", "b", "c")[: generator.integers(0, 4)]:
            n = int(generator.integers(1, 8))
            values = np.sort(generator.integers(0, 5, n))[::-1] / 4
            lists.append((moment, scenario, generator.permutation(12)[:n].tolist(), values.tolist()))
    found = merge_scenarios(candidates(*lists), 20, 6)
    for moment in range(20):
        entries = [
            (-value, place, scenario, item)
            for m, scenario, items, values in lists
            if m == moment
            for place, (item, value) in enumerate(zip(items, values, strict=True))
        ]
        expected = list(dict.fromkeys(item for *_, item in sorted(entries)))[:6]
        assert [item for item in found[moment].tolist() if item >= 0] == expected
