"""
How sure is a figure that was measured on these users? A seeded bootstrap over users.

Every figure here is a ratio of sums over users, sum(numerator) / sum(denominator): a macro mean has
denominator 1 for each user, a micro rate the user's number of targets. Several numerators over one
denominator are resampled together, which makes differences paired.
"""

import numpy as np

WEIGHTS_PER_BLOCK = 1 << 22
CONFIDENCE = 0.95


def resampled_ratios(
    numerators: np.ndarray, denominators: np.ndarray, *, seed: int, n_resamples: int = 1000
) -> np.ndarray:
    """
    Draw users with replacement, as many as there are, and compute every ratio on each draw.

    Users with the same figures are interchangeable, so a draw is multinomial over the distinct rows of
    figures; it is the same for the same users in any order.

    Args:
        numerators: float64 [n_users, c].
        denominators: float64 [n_users], positive.
        seed: seed of the draws.
        n_resamples: number of draws.

    Returns:
        float64 [n_resamples, c].

    Raises:
        ValueError: no users, or a denominator that is not positive.
    """
    n_users = len(denominators)
    if n_users == 0 or not np.all(denominators > 0):
        raise ValueError(f"a ratio needs users with positive denominators; got {n_users} users")
    figures, n_alike = np.unique(np.column_stack([numerators, denominators]), axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    block = max(1, WEIGHTS_PER_BLOCK // len(figures))
    sums = [
        generator.multinomial(n_users, n_alike / n_users, size=min(block, n_resamples - first)) @ figures
        for first in range(0, n_resamples, block)
    ]
    totals = np.concatenate(sums)
    return totals[:, :-1] / totals[:, -1:]


def percentile_interval(resamples: np.ndarray) -> tuple[float, float]:
    """
    Give the central 95% interval of ``resamples`` [n_resamples].

    It is (NaN, NaN) if any resample is undefined: then there are too few users to tell.
    """
    if not np.isfinite(resamples).all():
        return float("nan"), float("nan")
    low, high = np.quantile(resamples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
