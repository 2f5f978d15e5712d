"""Eq. 6 by hand, and beside the plain Python of the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings

from models.mnr import MNRConfig, score
from tests.models.mnr.logs import configs, queue, ranking, rankings
from tests.models.mnr.oracle import best_candidates


def listed(rows, **config) -> list[int]:
    config = MNRConfig(**config)
    return score(queue(rows, config), config).item_ids.tolist()


def test_scores_equal_the_formula_by_hand():
    config = MNRConfig(alpha=50, beta=10)
    found = score(queue([ranking(1, 10, [1, 2]), ranking(2, 20, [3, 1])], config), config)
    # newest: 3 at rank 0, 1 at rank 1; before it: 1 at rank 0, 2 at rank 1
    assert found.item_ids.tolist() == [3, 1, 2]
    assert found.scores == pytest.approx([1, 50 / 51, 50 / 51 * 10 / 11], rel=1e-6)
    assert (found.item_ids.dtype, found.scores.dtype) == (np.int64, np.float32)


def test_item_of_several_visits_keeps_its_best_score():
    config = MNRConfig(alpha=1, beta=10)
    found = score(queue([ranking(1, 10, [1]), ranking(2, 20, [2, 3, 1])], config), config)
    assert found.item_ids.tolist() == [2, 1, 3]
    assert found.scores == pytest.approx([1, 10 / 11, 1 / 2])


def test_equal_scores_go_to_the_later_visit():
    # alpha = beta: rank 1 of the newest scores as rank 0 of the one before
    assert listed([ranking(1, 10, [1]), ranking(2, 20, [3, 2])], alpha=10, beta=10) == [3, 2, 1]


def test_large_alpha_prefers_the_newest_visit_and_small_alpha_the_top_ranks():
    rows = [ranking(1, 10, [1, 2]), ranking(2, 20, [3, 4])]
    assert listed(rows, alpha=500) == [3, 4, 1, 2]
    assert listed(rows, alpha=5) == [3, 1, 4, 2]


def test_no_category_fills_a_list():
    rows = [ranking(1, 10, [1, 2, 3, 4, 5], [7, 7, 7, 8, 7])]
    assert listed(rows, max_per_category=2) == [1, 2, 4]
    assert listed(rows, max_per_category=2, k=2) == [1, 2]
    assert listed(rows, max_per_category=None) == [1, 2, 3, 4, 5]


def test_category_of_an_items_best_place_counts_and_a_dispersed_item_does_not_come_back():
    rows = [ranking(1, 10, [3], [9]), ranking(2, 20, [1, 2, 3], [7, 7, 7])]
    assert listed(rows, alpha=500, max_per_category=2) == [1, 2]


def test_items_without_a_category_are_not_limited():
    assert listed([ranking(1, 10, [1, 2, 3, 4])], max_per_category=1) == [1, 2, 3, 4]


def test_visits_before_a_long_pause_do_not_count():
    rows = [ranking(1, 0, [1]), ranking(2, 100, [2]), ranking(3, 199, [3])]
    assert listed(rows, idle_seconds=100) == [3, 2]
    assert listed(rows, idle_seconds=101) == [3, 2, 1]


def test_no_visits_give_no_candidates():
    assert score(None, MNRConfig()).item_ids.tolist() == []
    assert listed([ranking(1, 10, [])]) == []


@settings(max_examples=300, deadline=None)
@given(log=rankings(), config=configs)
def test_every_option_equals_the_oracle(log, config):
    found = score(queue(log, config), config)
    expected = best_candidates(log, config, "search")
    assert found.item_ids.tolist() == [item for item, _ in expected]
    assert found.scores.tolist() == np.array([value for _, value in expected], np.float32).tolist()


@settings(max_examples=100, deadline=None)
@given(log=rankings(), config=configs)
def test_scores_fall_in_rank_and_age_and_no_limit_is_exceeded(log, config):
    state = queue(log, config, "shop")
    found = score(state, config)
    assert len(found.item_ids) == len(set(found.item_ids.tolist())) <= config.k
    assert (np.diff(found.scores) <= 0).all()
    assert len(found.item_ids) <= 2 * config.n_visits


def test_each_place_down_and_each_visit_back_lowers_the_score():
    rows = [ranking(time, time, [10 * time + place for place in range(5)]) for time in range(4)]
    for order in (rows, rows[::-1]):
        config = MNRConfig(max_per_category=None)
        found = score(queue(order, config), config)
        value = dict(zip(found.item_ids.tolist(), found.scores.tolist(), strict=True))
        for time in range(4):
            assert np.diff([value[10 * time + place] for place in range(5)]).max() < 0
        for place in range(5):
            assert np.diff([value[10 * time + place] for time in range(4)]).min() > 0


def test_long_queue_with_many_repeats_equals_the_oracle():
    generator = np.random.default_rng(3)
    rows = [
        ranking(
            request, request, generator.permutation(700)[:500].tolist(), [place % 9 for place in range(500)]
        )
        for request in range(12)
    ]
    for config in (MNRConfig(k=600), MNRConfig(k=200, max_per_category=3, alpha=10, beta=1)):
        expected = best_candidates(rows, config, "search")
        assert listed(rows, **config.model_dump()) == [item for item, _ in expected]


def test_fifo_lists_whole_visits_newest_first_and_ignores_ranks():
    rows = [ranking(time, time, list(range(10 * time, 10 * time + 10))) for time in range(1, 4)]
    found = listed(rows, order="fifo", n_visits=3)
    assert [sorted(found[at : at + 10]) for at in (0, 10, 20)] == [
        list(range(t, t + 10)) for t in (30, 20, 10)
    ]
    assert found[:10] != sorted(found[:10])
    first_places = [
        listed([ranking(request, 1, list(range(10)))], order="fifo", k=1)[0] for request in range(400)
    ]
    assert np.bincount(first_places, minlength=10).min() > 15


def test_random_draws_every_item_alike_and_the_same_again():
    rows = [ranking(time, time, list(range(10 * time, 10 * time + 10))) for time in range(1, 4)]
    found = listed(rows, order="random", k=5)
    assert found == listed(rows[::-1], order="random", k=5)
    assert found != listed(rows, order="random", k=5, seed=1)
    counts = np.zeros(40, int)
    for seed in range(400):
        counts[listed(rows, order="random", k=5, seed=seed)] += 1
    assert counts[10:].min() > 35
    assert counts[10:].max() < 105
