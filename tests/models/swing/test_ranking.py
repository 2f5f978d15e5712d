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
    spread=st.sampled_from([1e-9, 0.1, 5.0, 200.0]),
    has_outlier=st.booleans(),
)
def test_ranking_equals_a_full_sort(seed, n, n_levels, truncation, spread, has_outlier):
    generator = np.random.default_rng(seed)
    codes = generator.choice(2**32 - 1, n, replace=False).astype(np.uint32)
    scores = np.exp(spread * (generator.integers(0, n_levels, n) / n_levels - 0.5))
    if has_outlier:  # so that the others, where they are close, all meet in one bucket
        scores[:1] = 1e300
    expected = np.lexsort((codes, -scores))[:truncation]
    np.testing.assert_array_equal(rank_targets(codes, scores, n, truncation, new_ranking(n)), expected)


@pytest.mark.parametrize("n", [40, 41, 5000])
def test_only_the_first_n_candidates_count(n):
    codes, scores = np.arange(n + 5, dtype=np.uint32), np.arange(1.0, n + 6)
    assert rank_targets(codes, scores, n, 3, new_ranking(n)).tolist() == [n - 1, n - 2, n - 3]
