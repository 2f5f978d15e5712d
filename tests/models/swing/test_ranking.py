"""Targets come best first, ties by the lower code."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.swing.ranking import new_ranking, rank_targets


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(0, 400),
    n_levels=st.sampled_from([1, 3, 1000]),
    truncation=st.sampled_from([1, 10, 39, 400]),
    spread=st.sampled_from([0.1, 5.0, 200.0]),
)
def test_ranking_equals_a_full_sort(seed, n, n_levels, truncation, spread):
    generator = np.random.default_rng(seed)
    codes = generator.choice(2**32 - 1, n, replace=False).astype(np.uint32)
    scores = np.exp(spread * (generator.integers(0, n_levels, n) / n_levels - 0.5))
    expected = np.lexsort((codes, -scores))[:truncation]
    scratch = new_ranking(n)
    np.testing.assert_array_equal(rank_targets(codes, scores, n, truncation, False, scratch), expected)
    by_code = np.argsort(codes)
    places = rank_targets(codes[by_code], scores[by_code], n, truncation, True, scratch)
    np.testing.assert_array_equal(by_code[places], expected)


@pytest.mark.parametrize("n", [40, 41, 5000])
def test_only_the_first_n_candidates_count(n):
    codes, scores = np.arange(n + 5, dtype=np.uint32), np.arange(1.0, n + 6)
    assert rank_targets(codes, scores, n, 3, True, new_ranking(n)).tolist() == [n - 1, n - 2, n - 3]
