"""
How far has something moved from how it was: what comes in, what was learned, what is retrieved?

Row-aligned embeddings of two models are compared by their nearest neighbours, which no rotation, reflection
or scale of either space changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.channels import remove
from models.search import exact_top_k

OTHER = "other"
HALF_A_ROW = 0.5


@dataclass(frozen=True)
class Distribution:
    """Rows per value, now and before: ``values`` [v], ``now`` and ``before`` int64 [v]."""

    values: tuple[str, ...]
    now: np.ndarray
    before: np.ndarray

    @property
    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares now and before, float64 [v] each; NaN where there are no rows."""
        with np.errstate(invalid="ignore"):
            return self.now / self.now.sum(), self.before / self.before.sum()


def distribution(now: Mapping[str, int], before: Mapping[str, int], n_values: int = 20) -> Distribution:
    """
    Keep the ``n_values`` values that were most frequent before, ties by name; the rest is one: ``other``.

    A value that is new counts as ``other``, so that thin values cannot make a stable input look moved. With
    no rows before, what is frequent now is kept.
    """
    ranked = before if sum(before.values()) else now
    names = sorted(ranked, key=lambda name: (-ranked[name], name))[:n_values]
    rest = (now.keys() | before.keys()) - set(names)
    columns = [
        [counts.get(name, 0) for name in names] + [sum(counts.get(name, 0) for name in rest)][: len(rest)]
        for counts in (now, before)
    ]
    values = (*names, OTHER) if rest else tuple(names)
    return Distribution(values, *(np.array(column, np.int64) for column in columns))


def population_stability_index(now: np.ndarray, before: np.ndarray) -> float:
    """
    Sum (p - q) ln(p / q) over the values, p and q being the shares of rows now and before.

    Half a row is added to each value, so that an empty one gives no infinity. Below 0.1 counts as stable,
    above 0.25 as moved. NaN where either has no rows.
    """
    if not np.sum(now) or not np.sum(before):
        return float("nan")
    p, q = ((np.asarray(n) + HALF_A_ROW) / (np.sum(n) + HALF_A_ROW * len(now)) for n in (now, before))
    return float(np.sum((p - q) * np.log(p / q)))


def list_overlap(lists: np.ndarray, others: np.ndarray) -> np.ndarray:
    """
    Measure per row the share of equal items, whatever their order.

    Args:
        lists: int64 [n, K], distinct items, padded with -1.
        others: int64 [n, L], the same.

    Returns:
        float64 [n]: common items over the items of the longer list; NaN where both are empty.
    """
    sizes = np.sum(lists >= 0, axis=1)
    n_common = sizes - np.sum(remove(lists, others) >= 0, axis=1)
    longest = np.maximum(sizes, np.sum(others >= 0, axis=1))
    with np.errstate(invalid="ignore"):
        return np.where(longest > 0, n_common / longest, np.nan)


def neighbour_overlap(
    vectors: np.ndarray, others: np.ndarray, *, k: int = 10, n_sample: int = 1000, seed: int = 0
) -> float:
    """
    Measure the share of equal ``k`` nearest neighbours by cosine, as the mean over a seeded sample of rows.

    Args:
        vectors: float32 [n, d].
        others: float32 [n, e], the same rows in another space.

    Returns:
        A share in [0, 1]; NaN with fewer than two rows.
    """
    n, k = len(vectors), min(k, len(vectors) - 1)
    if len(others) != n:
        raise ValueError(f"{n} vectors and {len(others)} others are not the same rows")
    if k < 1:
        return float("nan")
    sample = np.sort(np.random.default_rng(seed).choice(n, min(n_sample, n), replace=False))
    itself = pa.ListArray.from_arrays(pa.array(np.arange(len(sample) + 1), pa.int32()), pa.array(sample))
    neighbours = []
    for space in (vectors, others):
        unit = _unit(space)
        neighbours.append(exact_top_k(unit[sample], unit, np.arange(n), k, exclude=itself))
    return float(list_overlap(*neighbours).mean())


def mean_norm(vectors: np.ndarray) -> float:
    """Give the mean length of float32 [n, d] vectors; NaN without any."""
    return float(np.linalg.norm(vectors, axis=-1).mean()) if len(vectors) else float("nan")


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scale to length 1; a zero vector stays as it is."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (np.asarray(vectors) / np.where(norms > 0, norms, 1)).astype(np.float32)
