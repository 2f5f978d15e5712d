import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.metrics import (
    NOT_RETRIEVED,
    Cohort,
    ShortList,
    base_at_k,
    hit_rate,
    inc_at_k,
    paired_difference,
    paired_relative_difference,
    sup_at_k,
    target_ranks,
)
from models.ragged import NotAligned


def id_lists(lists):
    return pa.array(lists, pa.list_(pa.int64()))


RETRIEVED = np.array([[5, 3, 9], [1, -1, -1], [7, 8, 2], [4, 6, -1]])
TARGETS = id_lists([[9, 5, 100], [], [2], [11, 6]])
RANKS = target_ranks(RETRIEVED, TARGETS)


def test_ranks_are_0_based_and_missing_targets_are_marked():
    assert RANKS.dtype == np.int32
    assert RANKS.tolist() == [2, 0, NOT_RETRIEVED, 2, NOT_RETRIEVED, 1]


@pytest.mark.parametrize(
    ("k", "macro", "micro"), [(1, 1 / 9, 1 / 6), (2, 5 / 18, 2 / 6), (50, 13 / 18, 4 / 6)]
)
def test_hit_rates_by_hand(k, macro, micro):
    for average, value in (("macro", macro), ("micro", micro)):
        interval = hit_rate(RANKS, TARGETS, k, average=average)
        assert interval.value == pytest.approx(value)
        assert interval.low <= interval.value <= interval.high
        assert (interval.n_users, interval.n_targets) == (3, 6)


def test_a_cohort_of_users_leaves_out_the_others():
    interval = hit_rate(RANKS, TARGETS, 3, cohort=Cohort(users=np.array([True, True, False, True])))
    assert interval.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert (interval.n_users, interval.n_targets) == (2, 5)


def test_a_cohort_of_targets_leaves_out_users_who_have_none_of_them():
    known = np.array([True, False, True, False, True, True])
    interval = hit_rate(RANKS, TARGETS, 3, cohort=Cohort(targets=known))
    assert interval.value == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert (interval.n_users, interval.n_targets) == (2, 4)


def test_without_targets_the_figure_is_undefined():
    interval = hit_rate(np.empty(0, np.int32), id_lists([[], []]), 10)
    assert np.isnan([interval.value, interval.low, interval.high]).all()
    assert (interval.n_users, interval.n_targets) == (0, 0)
    none = target_ranks(np.empty((0, 5), np.int64), id_lists([]))
    assert np.isnan(paired_difference(none, none, id_lists([]), 10).value)
    assert np.isnan(paired_relative_difference(none, none, id_lists([]), 10).value)


def test_one_user_has_a_figure_but_no_interval():
    targets = id_lists([[5, 4]])
    interval = hit_rate(target_ranks(RETRIEVED[:1], targets), targets, 3)
    assert interval.value == 0.5
    assert np.isnan([interval.low, interval.high]).all()


def test_all_padded_lists_hit_nothing():
    ranks = target_ranks(np.full((4, 3), -1), TARGETS)
    assert (ranks == NOT_RETRIEVED).all()
    assert hit_rate(ranks, TARGETS, 2**31 - 1).value == 0.0


@settings(max_examples=60, deadline=None)
@given(
    lists=st.lists(
        st.tuples(
            st.lists(st.integers(0, 12), unique=True, max_size=6),
            st.lists(st.integers(0, 12), unique=True, max_size=5),
        ),
        max_size=8,
    ),
    k=st.integers(1, 8),
)
def test_hit_rates_equal_brute_force(lists, k):
    retrieved = np.array([[*items, *[-1] * (6 - len(items))] for items, _ in lists], np.int64).reshape(-1, 6)
    targets = id_lists([wanted for _, wanted in lists])
    ranks = target_ranks(retrieved, targets)
    hits = [(len(set(items[:k]) & set(wanted)), len(wanted)) for items, wanted in lists if wanted]
    macro = hit_rate(ranks, targets, k, n_resamples=20)
    micro = hit_rate(ranks, targets, k, average="micro", n_resamples=20)
    assert (micro.n_users, micro.n_targets) == (len(hits), sum(n for _, n in hits))
    if hits:
        assert macro.value == pytest.approx(np.mean([hit / n for hit, n in hits]))
        assert micro.value == pytest.approx(sum(hit for hit, _ in hits) / micro.n_targets)


def many_users(generator, n=400):
    targets = id_lists([generator.choice(100, 3, replace=False).tolist() for _ in range(n)])
    ranks = generator.integers(0, 100, 3 * n).astype(np.int32)
    return ranks, targets


def test_a_difference_is_paired_on_the_same_users():
    ranks, targets = many_users(np.random.default_rng(0))
    better = np.maximum(ranks - 1, 0)
    difference = paired_difference(better, ranks, targets, 20)
    assert difference.value == pytest.approx(
        hit_rate(better, targets, 20).value - hit_rate(ranks, targets, 20).value
    )
    assert 0 < difference.low < difference.value < difference.high
    alone = hit_rate(ranks, targets, 20)
    assert difference.high - difference.low < 0.5 * (alone.high - alone.low)
    same = paired_difference(ranks, ranks, targets, 20)
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_a_relative_difference_is_relative_to_the_other(average):
    ranks, targets = many_users(np.random.default_rng(1))
    relative = paired_relative_difference(ranks, ranks // 2, targets, 20, average=average)
    one, other = (hit_rate(r, targets, 20, average=average).value for r in (ranks, ranks // 2))
    assert relative.value == pytest.approx((one - other) / other)
    assert relative.low < relative.value < relative.high < -0.3


def test_a_relative_difference_with_too_few_hits_is_undefined():
    targets = id_lists([[1], [2], [3], [4]])
    one, few = np.array([0, 0, 0, 9], np.int32), np.array([0, 9, 9, 9], np.int32)
    relative = paired_relative_difference(one, few, targets, 5)
    assert relative.value == 2.0
    assert np.isnan([relative.low, relative.high]).all()
    none = np.array([9, 9, 9, 9], np.int32)
    assert np.isnan(paired_relative_difference(one, none, targets, 5).value)


def test_the_same_seed_gives_the_same_interval():
    ranks, targets = many_users(np.random.default_rng(2))
    assert hit_rate(ranks, targets, 20, seed=1) == hit_rate(ranks, targets, 20, seed=1)
    assert hit_rate(ranks, targets, 20, seed=1) != hit_rate(ranks, targets, 20, seed=2)


def test_base_sup_and_inc_by_hand():
    base = np.array([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, -1, -1]])
    inc = np.array([[2, 9, 1, 5, 3, 8], [7, 8, -1, -1, -1, -1]])
    assert base_at_k(base, 2).tolist() == [[1, 2], [7, 8]]
    assert sup_at_k(base, 2).tolist() == [[3, 4], [9, 10]]
    assert inc_at_k(inc, base, 2).tolist() == [[9, 5], [-1, -1]]
    r_u = id_lists([[3, 9], [10]])
    assert sup_at_k(base, 2, without=r_u).tolist() == [[4, 5], [9, -1]]
    assert inc_at_k(inc, base, 2, without=r_u).tolist() == [[5, 8], [-1, -1]]


def test_lists_that_were_cut_too_short_are_refused():
    base = np.array([[1, 2, 3], [4, -1, -1]])
    with pytest.raises(ShortList, match="1 of 2 base lists of 3 items have fewer than 4 left"):
        base_at_k(base, 4)
    with pytest.raises(ShortList):
        sup_at_k(base, 2)
    with pytest.raises(ShortList, match="incremental"):
        inc_at_k(base, base, 2)
    with pytest.raises(ShortList):
        sup_at_k(base, 1, without=id_lists([[2, 3], []]))


def test_of_several_seeds_each_users_mean_counts():
    other = RANKS[::-1].copy()
    for average in ("macro", "micro"):
        single = [hit_rate(ranks, TARGETS, 3, average=average) for ranks in (RANKS, other)]
        both = hit_rate((RANKS, other), TARGETS, 3, average=average)
        assert both.value == pytest.approx((single[0].value + single[1].value) / 2)
        assert both.n_users == single[0].n_users
    assert hit_rate((RANKS, RANKS), TARGETS, 3) == hit_rate(RANKS, TARGETS, 3)
    pair = paired_difference((RANKS, other), (other, RANKS), TARGETS, 3)
    assert (pair.value, pair.low, pair.high) == (0, 0, 0)
    with pytest.raises(NotAligned):
        hit_rate((RANKS, other[:2]), TARGETS, 3)


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(NotAligned, match="targets has 1 lists for 4 rows"):
        target_ranks(RETRIEVED, id_lists([[1]]))
    with pytest.raises(NotAligned, match="ranks has 2 entries where 6 are needed"):
        hit_rate(RANKS[:2], TARGETS, 3)
    with pytest.raises(NotAligned, match=r"cohort.users has 1 entries where 4"):
        hit_rate(RANKS, TARGETS, 3, cohort=Cohort(users=np.array([True])))
