import numpy as np
import pytest

from models.bootstrap import percentile_interval, resampled_ratios


def test_resamples_of_equal_users_are_that_figure():
    resamples = resampled_ratios(np.full((5, 2), [2.0, 1.0]), np.full(5, 4.0), seed=0, n_resamples=7)
    assert resamples.tolist() == [[0.5, 0.25]] * 7


def test_the_same_seed_gives_the_same_resamples_for_users_in_any_order():
    generator = np.random.default_rng(0)
    numerators, denominators = generator.random((50, 2)), generator.integers(1, 5, 50).astype(float)
    order = generator.permutation(50)
    first = resampled_ratios(numerators, denominators, seed=3)
    again = resampled_ratios(numerators[order], denominators[order], seed=3)
    assert first.shape == (1000, 2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, resampled_ratios(numerators, denominators, seed=4))


def test_blocks_do_not_change_the_resamples(monkeypatch):
    generator = np.random.default_rng(1)
    numerators, denominators = generator.random((40, 1)), np.ones(40)
    expected = resampled_ratios(numerators, denominators, seed=3)
    monkeypatch.setattr("models.bootstrap.WEIGHTS_PER_BLOCK", 300)
    assert np.allclose(resampled_ratios(numerators, denominators, seed=3), expected, rtol=1e-12)


def test_resamples_spread_like_the_standard_error():
    generator = np.random.default_rng(2)
    sample = generator.normal(3.0, 2.0, 400)
    resamples = resampled_ratios(sample[:, None], np.ones(400), seed=0, n_resamples=4000)
    assert resamples.mean() == pytest.approx(sample.mean(), abs=0.01)
    assert resamples.std() == pytest.approx(sample.std() / 20, rel=0.06)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(4)
    n_covered = 0
    for trial in range(200):
        n_targets = generator.integers(1, 6, 150)
        hits = generator.binomial(n_targets, 0.2)
        resamples = resampled_ratios(hits[:, None], n_targets.astype(float), seed=trial, n_resamples=400)
        low, high = percentile_interval(resamples[:, 0])
        n_covered += low <= 0.2 <= high
    assert 0.89 <= n_covered / 200 <= 0.99


def test_an_undefined_resample_makes_the_interval_undefined():
    assert np.isnan(percentile_interval(np.array([0.1, np.nan, 0.3]))).all()
    assert np.isnan(percentile_interval(np.array([0.1, np.inf]))).all()


@pytest.mark.parametrize("denominators", [[], [1.0, 0.0]])
def test_users_without_a_denominator_are_refused(denominators):
    with pytest.raises(ValueError, match="positive denominators"):
        resampled_ratios(np.zeros((len(denominators), 1)), np.array(denominators), seed=0)
