"""
How many of what users did next did a list hold? Hit@K and the rows of IncRec's tables.

A list is an item-id matrix: int64 [n_users, K], best first, distinct, padded with -1. Targets are lists of
distinct item ids, one per user; their *ranks* in a matrix are computed once and serve every K:

- Hit@K: ``hit_rate``, macro (PI2I Eq. 5, mean over the users with a target) or micro (hits / targets).
- Incremental hit rate (IncRec Eq. 9): ``hit_rate`` with ITG as targets; Eq. 9 is the micro average.
- Exposure hit: micro ``hit_rate`` with the primary scenario's exposed items as targets.
- Base@K, Sup@K, Inc@K and their filtered controls: the same, on ``base_at_k``, ``sup_at_k``, ``inc_at_k``.
- Two methods on the same users: ``paired_difference`` and ``paired_relative_difference``.
- A method at several seeds: wherever ranks are asked for, a tuple of them counts with its mean per user.

Intervals are 95% bootstrap intervals over users. A figure without any target is NaN; with fewer than two
users that have one its interval is NaN too.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numba import njit

from models.bootstrap import percentile_interval, resampled_ratios
from models.channels import remove
from models.ragged import NotAligned, flat_lists, flat_lists_of

NOT_RETRIEVED = np.int32(2**31 - 1)

Ranks = np.ndarray | tuple[np.ndarray, ...]
IdLists = np.ndarray | pa.ListArray | pa.ChunkedArray
Average = Literal["macro", "micro"]


class ShortList(ValueError):
    """A list ends before the K that is asked of it, although more items exist."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval, and what it was measured on; NaN where it is undefined."""

    value: float
    low: float
    high: float
    n_users: int
    """Users with at least one target."""
    n_targets: int


@dataclass(frozen=True)
class Cohort:
    """The part of the users, or of the targets, that a figure is about. None stands for all."""

    users: np.ndarray | None = None
    """bool [n_users]."""
    targets: np.ndarray | None = None
    """bool [n_targets], over the flattened target lists."""


EVERYONE = Cohort()


def target_ranks(retrieved: np.ndarray, targets: pa.ListArray | pa.ChunkedArray) -> np.ndarray:
    """
    Find the 0-based rank of every target in its user's list.

    Returns:
        int32 [n_targets], over the flattened target lists; NOT_RETRIEVED for those not in the list.
    """
    offsets, values = flat_lists_of(len(retrieved), targets, "targets")
    return _ranks(np.array(retrieved, np.int64), offsets, values)


def hit_rate(
    ranks: Ranks,
    targets: pa.ListArray | pa.ChunkedArray,
    k: int,
    *,
    average: Average = "macro",
    cohort: Cohort = EVERYONE,
    seed: int = 0,
    n_resamples: int = 1000,
) -> Interval:
    """
    Measure Hit@k.

    Args:
        ranks: what ``target_ranks`` gave for these targets.
        targets: the target lists.
        k: list length; targets of rank below k are hits.
        average: "macro", the mean over users of hits / targets, or "micro", hits / targets over all.
        cohort: the users and targets to measure on.
        seed: seed of the bootstrap.
        n_resamples: its resamples.
    """
    figures = _Figures([ranks], targets, k, average, cohort)
    if figures.n_users < 2:
        return figures.interval(figures.ratios()[0], None)
    return figures.interval(figures.ratios()[0], figures.resamples(seed, n_resamples)[:, 0])


def paired_difference(
    ranks: Ranks,
    other_ranks: Ranks,
    targets: pa.ListArray | pa.ChunkedArray,
    k: int,
    *,
    average: Average = "macro",
    cohort: Cohort = EVERYONE,
    seed: int = 0,
    n_resamples: int = 1000,
) -> Interval:
    """Measure Hit@k of one method minus that of another on the same users and targets."""
    figures = _Figures([ranks, other_ranks], targets, k, average, cohort)
    value, other = figures.ratios()
    if figures.n_users < 2:
        return figures.interval(value - other, None)
    resamples = figures.resamples(seed, n_resamples)
    return figures.interval(value - other, resamples[:, 0] - resamples[:, 1])


def paired_relative_difference(
    ranks: Ranks,
    other_ranks: Ranks,
    targets: pa.ListArray | pa.ChunkedArray,
    k: int,
    *,
    average: Average = "macro",
    cohort: Cohort = EVERYONE,
    seed: int = 0,
    n_resamples: int = 1000,
) -> Interval:
    """
    Measure (a - b) / b, a and b being Hit@k of one and another method on the same users and targets.

    The value is NaN if b is 0, and the interval is NaN if b is 0 in any resample: too few hits to tell.
    """
    figures = _Figures([ranks, other_ranks], targets, k, average, cohort)
    value, other = figures.ratios()
    if figures.n_users < 2 or other == 0:
        return figures.interval((value - other) / other if other > 0 else float("nan"), None)
    resamples = figures.resamples(seed, n_resamples)
    with np.errstate(divide="ignore", invalid="ignore"):
        return figures.interval((value - other) / other, resamples[:, 0] / resamples[:, 1] - 1.0)


def base_at_k(base: np.ndarray, k: int) -> np.ndarray:
    """Give Base@k: the base model's first k, int64 [n, k]."""
    return _first_k(base, base, k, "base")


def sup_at_k(base: np.ndarray, k: int, *, without: IdLists | None = None) -> np.ndarray:
    """
    Give Sup@k: the base model's ranks k+1 .. 2k; with ``without`` (R_u) the next k outside it.

    Raises:
        ShortList: a row ends before k items are left; retrieve 2k items, plus as many as R_u can hold.
    """
    base = _enough(base, 2 * k, without)
    rest = np.array(base[:, k:])
    return _first_k(rest if without is None else remove(rest, without), base, k, "base")


def inc_at_k(inc: np.ndarray, base: np.ndarray, k: int, *, without: IdLists | None = None) -> np.ndarray:
    """
    Give Inc@k: the first k of an incremental tower outside Base@k, and outside ``without`` (R_u).

    Raises:
        ShortList: a row ends before k items are left; retrieve 2k items, plus as many as R_u can hold.
    """
    inc = _enough(inc, 2 * k, without)
    rest = remove(inc, base_at_k(base, k))
    return _first_k(rest if without is None else remove(rest, without), inc, k, "incremental")


class _Figures:
    """Hits of one or more rankings per user: numerators over one denominator, as ``average`` says."""

    def __init__(
        self,
        rankings: list[Ranks],
        targets: pa.ListArray | pa.ChunkedArray,
        k: int,
        average: Average,
        cohort: Cohort,
    ) -> None:
        offsets, values = flat_lists(targets)
        n_users = len(offsets) - 1
        seeds = [ranks if isinstance(ranks, tuple) else (ranks,) for ranks in rankings]
        for ranks in sum(seeds, ()):
            _check_length("ranks", ranks, len(values))
        is_counted = np.ones(len(values), bool)
        user = np.repeat(np.arange(n_users), np.diff(offsets))
        if cohort.users is not None:
            _check_length("cohort.users", cohort.users, n_users)
            is_counted &= cohort.users[user]
        if cohort.targets is not None:
            _check_length("cohort.targets", cohort.targets, len(values))
            is_counted &= cohort.targets
        n_targets = np.bincount(user[is_counted], minlength=n_users)

        def count_hits(ranks: np.ndarray) -> np.ndarray:
            return np.bincount(user[is_counted & (ranks < k)], minlength=n_users)

        hits = np.column_stack([sum(map(count_hits, each)) / len(each) for each in seeds])
        has_target = n_targets > 0
        hits, n_targets = hits[has_target], n_targets[has_target]
        self.n_users, self.n_targets = len(n_targets), int(n_targets.sum())
        if average == "macro":
            self._numerators, self._denominators = hits / n_targets[:, None], np.ones(self.n_users)
        else:
            self._numerators, self._denominators = hits, n_targets.astype(float)

    def ratios(self) -> np.ndarray:
        """Give the figure of each ranking, NaN without users."""
        if not self.n_users:
            return np.full(self._numerators.shape[1], np.nan)
        return self._numerators.sum(axis=0) / self._denominators.sum()

    def resamples(self, seed: int, n_resamples: int) -> np.ndarray:
        return resampled_ratios(self._numerators, self._denominators, seed=seed, n_resamples=n_resamples)

    def interval(self, value: float, resamples: np.ndarray | None) -> Interval:
        low, high = (float("nan"),) * 2 if resamples is None else percentile_interval(resamples)
        return Interval(float(value), low, high, self.n_users, self.n_targets)


def _enough(retrieved: np.ndarray, k: int, without: IdLists | None) -> np.ndarray:
    """Cut the lists where ``k`` items are left even if all of ``without`` stood among them."""
    if without is None:
        return retrieved[:, :k]
    widest = (
        without.shape[1]
        if isinstance(without, np.ndarray)
        else np.diff(flat_lists(without)[0]).max(initial=0)
    )
    return retrieved[:, : k + widest]


def _check_length(name: str, array: np.ndarray, n: int) -> None:
    if len(array) != n:
        raise NotAligned(f"{name} has {len(array)} entries where {n} are needed")


def _first_k(rest: np.ndarray, source: np.ndarray, k: int, name: str) -> np.ndarray:
    """Give the first k columns of ``rest``, a part of ``source`` whose full rows may hide further items."""
    result = np.full((len(rest), k), -1, np.int64)
    result[:, : rest.shape[1]] = rest[:, :k]
    is_cut = np.ones(len(source), bool) if source.shape[1] == 0 else source[:, -1] >= 0
    n_short = int(np.sum((result < 0).any(axis=1) & is_cut))
    if n_short:
        raise ShortList(
            f"{n_short} of {len(source)} {name} lists of {source.shape[1]} items have fewer than {k} left; "
            f"retrieve more per user"
        )
    return result


@njit(cache=True, nogil=True)
def _ranks(retrieved, offsets, values):
    ranks = np.full(len(values), NOT_RETRIEVED, np.int32)
    for row in range(len(retrieved)):
        for place in range(offsets[row], offsets[row + 1]):
            for rank in range(retrieved.shape[1]):
                if retrieved[row, rank] == values[place]:
                    ranks[place] = rank
                    break
    return ranks
