"""
Which items of a logged ranking count? A ranking -> a visit (Eq. 4).

The log's order is trusted: the first item is the best, whatever its score. Left out are items whose id is
negative, which no catalogue has, those whose score is NaN or infinite, whose place nobody knows, and an
item's second and later places. What remains is truncated; rank_index counts what remains. Shapes: n ranked
items.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from models.mnr.config import MNRConfig

NO_CATEGORY = -1


class Visit(NamedTuple):
    """A cleaned, truncated ranking: distinct ids int64 [n], best first, and their categories, -1 for none."""

    request_id: int
    event_time: int  # microseconds since 1970, UTC
    item_ids: np.ndarray
    category_ids: np.ndarray


class Cleaning(NamedTuple):
    """How many items a ranking lost, of those before the truncation."""

    n_unknown: int
    n_bad_scores: int
    n_repeated: int


def clean_ranking(
    request_id: int,
    event_time: int,
    scenario: str,
    item_ids: np.ndarray,
    category_ids: np.ndarray | None,
    scores: np.ndarray | None,
    config: MNRConfig,
) -> tuple[Visit, Cleaning]:
    """
    Clean and truncate one ranking; a visit without items is none, and ``insert`` refuses it.

    Args:
        request_id: names the visit; the same one again is a duplicate.
        event_time: microseconds since 1970, UTC.
        scenario: decides the truncation.
        item_ids: int64 [n], best first.
        category_ids: int64 [n], any negative one for none; None where the log has no categories.
        scores: float64 [n]; None where the log has none.
        config: MNR's hyperparameters.

    Raises:
        UnknownScenario: of ``MNRConfig.truncation_of``.
        ValueError: arrays of different lengths.
    """
    truncation = config.truncation_of(scenario)
    n = len(item_ids)
    if category_ids is None:
        category_ids = np.full(n, NO_CATEGORY, np.int64)
    if scores is None:
        scores = np.zeros(n, np.float64)
    if len(category_ids) != n or len(scores) != n:
        raise ValueError(
            f"a ranking of {n} items has {len(category_ids)} categories and {len(scores)} scores"
        )
    items, categories = np.empty(min(n, truncation), np.int64), np.empty(min(n, truncation), np.int64)
    n_kept, *lost = clean_into(items, categories, item_ids, category_ids, scores, truncation)
    return Visit(request_id, event_time, items[:n_kept], categories[:n_kept]), Cleaning(*lost)


@njit(cache=True, nogil=True)
def clean_into(items, categories, ranked, their_categories, scores, truncation):
    """Write a ranking's kept items and categories; give their number and that of each kind left out."""
    slots = np.full(table_size(min(len(ranked), truncation)), -1, np.int64)
    n_kept = n_unknown = n_bad_scores = n_repeated = 0
    for place in range(len(ranked)):
        if n_kept == truncation:
            break
        item = ranked[place]
        if item < 0:
            n_unknown += 1
        elif not np.isfinite(scores[place]):
            n_bad_scores += 1
        elif not add_to(slots, item):
            n_repeated += 1
        else:
            items[n_kept] = item
            categories[n_kept] = max(their_categories[place], NO_CATEGORY)
            n_kept += 1
    return n_kept, n_unknown, n_bad_scores, n_repeated


@njit(cache=True, nogil=True)
def table_size(n):
    """Give the slots of a hash set that ``n`` entries fill by half at most."""
    size = 8
    while size < 2 * n:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def add_to(slots, key):
    """Add a key of 0 or more to a hash set, -1 where empty; tell whether it was new."""
    mask = len(slots) - 1
    slot = np.int64(mixed(np.uint64(key)) & np.uint64(mask))
    while slots[slot] >= 0:
        if slots[slot] == key:
            return False
        slot = (slot + 1) & mask
    slots[slot] = key
    return True


@njit(cache=True, nogil=True)
def mixed(key):
    """Scatter a uint64 (splitmix64)."""
    key = key + np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
