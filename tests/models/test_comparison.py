"""Rows of IncRec's tables: hand-counted hits, and the same figures as the metrics of single lists."""

import math

import numpy as np
import pyarrow as pa
import pytest

from models.comparison import Behaviour, Hits, count_base, count_method, count_reseeded, difference, rate
from models.metrics import (
    ShortList,
    base_at_k,
    hit_rate,
    inc_at_k,
    paired_difference,
    sup_at_k,
    target_ranks,
)

KS = (1, 2)
IDS = pa.list_(pa.int64())


def lists(*rows: list[int]) -> pa.ListArray:
    return pa.array(rows, IDS)


# The second user has no ITG, as one without a request; for the third nothing had been retrieved.
USERS = Behaviour(itg=lists([2, 4], [], [5]), retrieved=lists([3], [1], []), exposed=lists([7], [1, 2], [5]))
BASE = np.array([[1, 2, 3, 4, 5, 6]] * 3)
INC = np.array([[3, 1, 2, 7, 8, 9], [2, 1, 3, 4, 5, 6], [5, 6, 1, 2, 3, 4]])


def test_hits_of_the_base_are_those_counted_by_hand():
    counted = count_base(BASE, USERS, KS)
    assert counted["base"].tolist() == [[0, 1], [0, 0], [0, 0]]
    assert counted["sup"].tolist() == [[1, 1], [0, 0], [0, 0]]
    # outside R_u = {3}: [2] behind [1], and [4, 5] behind [1, 2]
    assert counted["sup_minus_r_u"].tolist() == [[1, 1], [0, 0], [0, 0]]


def test_hits_of_a_method_are_those_counted_by_hand():
    counted = count_method("it", INC, BASE, USERS, KS)
    assert counted["inc/it"].tolist() == [[0, 0], [0, 0], [1, 1]]
    assert counted["inc_minus_r_u/it"].tolist() == [[1, 0], [0, 0], [1, 1]]
    # Inc@1 and Inc@2: [3], [3, 7]; [2], [3, 4]; [5], [5, 6]
    assert counted["exposure/it"].tolist() == [[0, 1], [1, 0], [1, 1]]


def test_the_base_of_another_seed_is_measured_as_a_method():
    assert (
        count_reseeded(INC, BASE, USERS, KS)["reseeded"] == count_method("x", INC, BASE, USERS, KS)["inc/x"]
    ).all()


def test_base_by_itself_adds_what_sup_adds():
    assert (
        count_method("base", BASE, BASE, USERS, KS)["inc/base"] == count_base(BASE, USERS, KS)["sup"]
    ).all()


def test_a_list_that_is_too_short_for_k_is_refused():
    with pytest.raises(ShortList, match="retrieve more per user"):
        count_base(BASE[:, :4], USERS, (3,))


def hits_of(n_itg: list[int], **by_row: list[int]) -> Hits:
    rows = {name.replace("__", "/"): np.array(hits)[:, None] for name, hits in by_row.items()}
    return Hits((5,), np.array(n_itg), np.array([1] * len(n_itg)), rows)


def test_rate_is_hits_over_targets_and_a_difference_is_paired():
    hits = hits_of([2, 0, 2], sup=[1, 0, 0], inc__a=[1, 0, 2])
    found = rate(hits, "inc/a", 5, seed=1, n_resamples=200)
    assert (found.value, found.n_users, found.n_targets) == (0.75, 2, 4)
    paired = difference(hits, "inc/a", "sup", 5, seed=1, n_resamples=200)
    assert paired.value == 0.5
    # the users' differences are 0 and 2 of 2: a resample has 0, 0.5 or 1
    assert (paired.low, paired.high) == (0.0, 1.0)


def test_equal_rows_differ_by_exactly_nothing():
    hits = hits_of([2, 1, 3], sup=[1, 0, 2], inc__a=[1, 0, 2])
    paired = difference(hits, "inc/a", "sup", 5, seed=1, n_resamples=200)
    assert (paired.value, paired.low, paired.high) == (0.0, 0.0, 0.0)


def test_days_without_a_target_have_no_figure_and_one_user_no_interval():
    none = rate(hits_of([0, 0], sup=[0, 0]), "sup", 5, seed=1, n_resamples=200)
    assert math.isnan(none.value)
    assert (none.n_users, none.n_targets) == (0, 0)
    one = rate(hits_of([2, 0], sup=[1, 0]), "sup", 5, seed=1, n_resamples=200)
    assert one.value == 0.5
    assert math.isnan(one.low)


def test_exposures_are_not_compared_with_incremental_targets():
    hits = hits_of([1, 1], sup=[1, 1], exposure__a=[0, 1])
    with pytest.raises(ValueError, match="different targets"):
        difference(hits, "exposure/a", "sup", 5, seed=1, n_resamples=200)


def test_figures_are_those_of_the_metrics_on_the_same_lists():
    generator = np.random.default_rng(0)
    n, n_items, ks = 60, 80, (3, 9)
    base, inc = (np.array([generator.permutation(n_items) for _ in range(n)]) for _ in range(2))
    drawn = [
        lists(
            *(generator.choice(n_items, generator.integers(0, 6), replace=False).tolist() for _ in range(n))
        )
        for _ in range(3)
    ]
    users = Behaviour(*drawn)
    counted = count_base(base, users, ks) | count_method("it", inc, base, users, ks)
    sizes = [np.diff(each.offsets.to_numpy()) for each in drawn]
    hits = Hits(ks, sizes[0], sizes[2], counted)
    options = {"seed": 3, "n_resamples": 300}
    for k in ks:
        given = {
            "base": (base_at_k(base, k), users.itg),
            "sup": (sup_at_k(base, k), users.itg),
            "sup_minus_r_u": (sup_at_k(base, k, without=users.retrieved), users.itg),
            "inc/it": (inc_at_k(inc, base, k), users.itg),
            "inc_minus_r_u/it": (inc_at_k(inc, base, k, without=users.retrieved), users.itg),
            "exposure/it": (inc_at_k(inc, base, k), users.exposed),
        }
        for row, (retrieved, targets) in given.items():
            ranks = target_ranks(retrieved, targets)
            assert rate(hits, row, k, **options) == hit_rate(ranks, targets, k, average="micro", **options)
        ranks = [target_ranks(given[row][0], users.itg) for row in ("inc/it", "sup")]
        assert difference(hits, "inc/it", "sup", k, **options) == paired_difference(
            *ranks, users.itg, k, average="micro", **options
        )
