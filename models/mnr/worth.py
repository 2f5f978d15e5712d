"""
What were a channel's lists worth at the moments of requests? Stand-ins for MNR's online figures (3.1).

- normalised hit rate: items that the user turned to later, in any scenario, per retrieved item;
- replay PVR: share of the items exposed in the primary scenario that the channel held at that moment;
- replay conversion: clicks (orders) per exposed item that it held, relative to all exposed items', less 1.

All are ratios of sums over requests, with bootstrap intervals over users; two channels are compared by the
interval of their difference on the same users. A figure that divides by nothing is NaN. Shapes: n requests,
m pairs (request, item), U users.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.bootstrap import percentile_interval, resampled_ratios
from models.metrics import Interval
from models.ragged import flat_lists

# Columns of counts, per request or user.
RETRIEVED, HITS, HELD, HELD_CLICKS, HELD_ORDERS, EXPOSED, CLICKS, ORDERS = range(8)
N_COUNTS = 8

FIGURES = ("hit_rate", "pvr", "click_conversion", "order_conversion")


@dataclass(frozen=True)
class Requests:
    """n requests: whose, what was known before, what the user did later, what was exposed and came of it."""

    user_ids: np.ndarray
    """int64 [n]."""
    histories: pa.ListArray
    """Items of the history before the request: no list holds them."""
    targets: pa.ListArray
    """Distinct items that the user turned to from the request on."""
    exposed: pa.ListArray
    """Distinct items that the request showed."""
    is_click: np.ndarray
    """bool, aligned with the flattened exposed items; the same for ``is_order``."""
    is_order: np.ndarray


@dataclass(frozen=True)
class Lists:
    """What a channel held: m pairs of a request's row and an item, int64 each; a pair may come twice."""

    request: np.ndarray
    item: np.ndarray


def lists_of_matrix(retrieved: np.ndarray, rows: np.ndarray | None = None) -> Lists:
    """Give the pairs of a matrix int64 [r, K] padded with -1; ``rows`` int64 [n] names each request's row."""
    of_request = retrieved if rows is None else retrieved[rows]
    request, place = np.nonzero(of_request >= 0)
    return Lists(request, of_request[request, place])


def lists_of_candidates(candidates: pa.Table, k: int) -> Lists:
    """Give the pairs of the first ``k`` items of the lists of ``candidates_at``; moments are requests."""
    offsets, items = flat_lists(candidates["item_ids"])
    lengths = np.diff(offsets)
    places = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
    request = np.repeat(candidates["moment"].to_numpy(), lengths)
    return Lists(request[places < k], items[places < k])


def count(lists: Lists, requests: Requests) -> np.ndarray:
    """Count what a channel's lists, less the history, were worth at each request: int64 [n, N_COUNTS]."""
    n = len(requests.user_ids)
    ids = _distinct(lists.item)
    held = _distinct(lists.request * len(ids) + np.searchsorted(ids, lists.item))
    held = held[~_is_among(held, np.sort(_keys(requests.histories, ids)[0]))]
    counts = np.zeros((n, N_COUNTS), np.int64)
    counts[:, RETRIEVED] = np.bincount(held // max(len(ids), 1), minlength=n)
    targets, of_target = _keys(requests.targets, ids)
    counts[:, HITS] = np.bincount(of_target[_is_among(targets, held)], minlength=n)
    exposed, of_exposed = _keys(requests.exposed, ids)
    is_held = _is_among(exposed, held)
    for column, which in (
        (HELD, is_held),
        (HELD_CLICKS, is_held & requests.is_click),
        (HELD_ORDERS, is_held & requests.is_order),
        (EXPOSED, np.ones(len(exposed), bool)),
        (CLICKS, requests.is_click),
        (ORDERS, requests.is_order),
    ):
        counts[:, column] = np.bincount(of_exposed[which], minlength=n)
    return counts


def per_user(user_ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Add up requests int64 [n, N_COUNTS] by user: int64 [U, N_COUNTS], users ascending."""
    users, place = np.unique(user_ids, return_inverse=True)
    sums = np.zeros((len(users), counts.shape[1]), np.int64)
    np.add.at(sums, place, counts)
    return sums


def figures(counts: np.ndarray) -> np.ndarray:
    """Give FIGURES of sums [..., N_COUNTS]: float64 [..., 4]."""
    sums = np.asarray(counts, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.stack(
            [
                sums[..., HITS] / sums[..., RETRIEVED],
                sums[..., HELD] / sums[..., EXPOSED],
                (sums[..., HELD_CLICKS] / sums[..., HELD]) / (sums[..., CLICKS] / sums[..., EXPOSED]) - 1,
                (sums[..., HELD_ORDERS] / sums[..., HELD]) / (sums[..., ORDERS] / sums[..., EXPOSED]) - 1,
            ],
            axis=-1,
        )
    return np.where(np.isfinite(values), values, np.nan)


def intervals(counts: np.ndarray, *, seed: int, n_resamples: int) -> dict[str, Interval]:
    """Give each of FIGURES of users int64 [U, N_COUNTS] with its interval."""
    resampled = figures(_resampled(counts, seed, n_resamples))
    return _intervals(figures(counts.sum(axis=0)), resampled, counts)


def differences(
    counts: np.ndarray, others: np.ndarray, *, seed: int, n_resamples: int
) -> dict[str, Interval]:
    """Give each of FIGURES less that of another channel on the same users, paired."""
    resampled = _resampled(np.hstack([counts, others]), seed, n_resamples)
    mine, theirs = figures(resampled[:, :N_COUNTS]), figures(resampled[:, N_COUNTS:])
    values = figures(counts.sum(axis=0)) - figures(others.sum(axis=0))
    return _intervals(values, mine - theirs, counts)


def _resampled(counts: np.ndarray, seed: int, n_resamples: int) -> np.ndarray:
    """Give means over users drawn with replacement: float64 [n_resamples, c]."""
    if len(counts) < 2:
        return np.full((n_resamples, counts.shape[1]), np.nan)
    return resampled_ratios(counts.astype(float), np.ones(len(counts)), seed=seed, n_resamples=n_resamples)


def _intervals(values: np.ndarray, resampled: np.ndarray, counts: np.ndarray) -> dict[str, Interval]:
    n_users, n_targets = len(counts), int(counts[:, EXPOSED].sum())
    bounds = [percentile_interval(resampled[:, column]) for column in range(len(FIGURES))]
    return {
        name: Interval(float(value), *bound, n_users, n_targets)
        for name, value, bound in zip(FIGURES, values, bounds, strict=True)
    }


def _distinct(values: np.ndarray) -> np.ndarray:
    """Sort, and keep each value once; of long arrays this is far faster than ``np.unique``."""
    values = np.sort(values)
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


def _is_among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Tell which values are in a sorted array."""
    if not len(ascending):
        return np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[place] == values


def _keys(lists: pa.ListArray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give a key of each (row, item), -1 for an item that no list holds, and its row."""
    offsets, items = flat_lists(lists)
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    if not len(ids):
        return np.full(len(items), -1, np.int64), row
    place = np.minimum(np.searchsorted(ids, items), len(ids) - 1)
    return np.where(ids[place] == items, row * len(ids) + place, -1), row
