"""
Which items did each method's list find, and what do two methods differ by? (IncRec, Tables 1-3)

Everything is of one backbone and one seed. A row of the arrays is one user of one evaluated day, a column one
K. The rows of the tables, by name:

- ``base``, ``sup``: Base@K and Sup@K of the base model, TB-Online; ``sup_minus_r_u``: its next K outside R_u;
- ``reseeded``: Inc@K of the base model trained with another seed, what chance alone adds;
- ``inc/<method>``, ``inc_minus_r_u/<method>``: Inc@K of a method, and the same outside R_u;
- ``exposure/<method>``: the primary scenario's exposures in a method's Inc@K.

ITG = incremental target group, R_u = what the existing channels returned.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.bootstrap import percentile_interval, resampled_ratios
from models.metrics import NOT_RETRIEVED, Interval, base_at_k, inc_at_k, sup_at_k, target_ranks
from models.ragged import flat_lists

EXPOSURE = "exposure"


@dataclass(frozen=True)
class Behaviour:
    """What n users of a day did, one list each: their ITG, R_u, and the exposed items."""

    itg: pa.ListArray
    retrieved: pa.ListArray
    exposed: pa.ListArray


@dataclass(frozen=True)
class Hits:
    """Hits of every row of the tables: int64 [n, n_ks] by name, over int64 [n] targets of each kind."""

    ks: tuple[int, ...]
    n_itg: np.ndarray
    n_exposed: np.ndarray
    by_row: Mapping[str, np.ndarray]

    def targets_of(self, row: str) -> np.ndarray:
        """Give the number of targets that a row's hits are out of, int64 [n]."""
        return self.n_exposed if row.startswith(EXPOSURE) else self.n_itg


def count_base(base: np.ndarray, users: Behaviour, ks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """
    Count the hits of the base model's rows.

    Args:
        base: the base model's list, int64 [n, 2 max(ks) + the longest R_u], padded with -1.
        users: what the users did.
        ks: list lengths.

    Raises:
        ShortList: the list is too short for K.
    """
    lists = {
        "base": lambda k: base_at_k(base, k),
        "sup": lambda k: sup_at_k(base, k),
        "sup_minus_r_u": lambda k: sup_at_k(base, k, without=users.retrieved),
    }
    return {row: _per_k([_hits(of_k(k), users.itg) for k in ks]) for row, of_k in lists.items()}


def count_reseeded(
    reseeded: np.ndarray, base: np.ndarray, users: Behaviour, ks: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Count the hits of the base model of another seed. Arguments and errors as ``count_base``."""
    return {"reseeded": _per_k([_hits(inc_at_k(reseeded, base, k), users.itg) for k in ks])}


def count_method(
    name: str, retrieved: np.ndarray, base: np.ndarray, users: Behaviour, ks: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Count the hits of a method's rows; ``retrieved`` is its list. The rest is as in ``count_base``."""
    inc = [inc_at_k(retrieved, base, k) for k in ks]
    filtered = [inc_at_k(retrieved, base, k, without=users.retrieved) for k in ks]
    return {
        f"inc/{name}": _per_k([_hits(of_k, users.itg) for of_k in inc]),
        f"inc_minus_r_u/{name}": _per_k([_hits(of_k, users.itg) for of_k in filtered]),
        f"{EXPOSURE}/{name}": _per_k([_hits(of_k, users.exposed) for of_k in inc]),
    }


def rate(hits: Hits, row: str, k: int, *, seed: int, n_resamples: int) -> Interval:
    """Give hits / targets of a row at ``k`` (Eq. 9) with its bootstrap interval; NaN without a target."""
    value, resamples = _ratios(hits, [row], k, seed, n_resamples)
    return _interval(hits, row, float(value[0]), None if resamples is None else resamples[:, 0])


def difference(hits: Hits, row: str, other: str, k: int, *, seed: int, n_resamples: int) -> Interval:
    """
    Give the rate of ``row`` less that of ``other``, paired on the same users; NaN without a target.

    Raises:
        ValueError: the rows are out of different targets.
    """
    if hits.targets_of(row) is not hits.targets_of(other):
        raise ValueError(f"{row} and {other} are out of different targets: no difference means anything")
    value, resamples = _ratios(hits, [row, other], k, seed, n_resamples)
    differences = None if resamples is None else resamples[:, 0] - resamples[:, 1]
    return _interval(hits, row, float(value[0] - value[1]), differences)


def _hits(retrieved: np.ndarray, targets: pa.ListArray) -> np.ndarray:
    """Count each user's targets in the list: int64 [n]."""
    offsets, _ = flat_lists(targets)
    is_hit = target_ranks(retrieved, targets) != NOT_RETRIEVED
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.bincount(user[is_hit], minlength=len(offsets) - 1)


def _per_k(columns: list[np.ndarray]) -> np.ndarray:
    return np.column_stack(columns)


def _ratios(
    hits: Hits, rows: list[str], k: int, seed: int, n_resamples: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Give the rates of rows over the same targets, and their resamples (None with fewer than two users)."""
    n_targets = hits.targets_of(rows[0])
    has_target = n_targets > 0
    denominators = n_targets[has_target].astype(float)
    place = hits.ks.index(k)
    numerators = np.column_stack([hits.by_row[row][has_target, place] for row in rows]).astype(float)
    if not len(denominators):
        return np.full(len(rows), np.nan), None
    values = numerators.sum(axis=0) / denominators.sum()
    if len(denominators) < 2:
        return values, None
    return values, resampled_ratios(numerators, denominators, seed=seed, n_resamples=n_resamples)


def _interval(hits: Hits, row: str, value: float, resamples: np.ndarray | None) -> Interval:
    n_targets = hits.targets_of(row)
    low, high = (float("nan"),) * 2 if resamples is None else percentile_interval(resamples)
    return Interval(value, low, high, int((n_targets > 0).sum()), int(n_targets.sum()))
