"""
How do several channels' lists become one, and what would each be missed for?

An item-id matrix is int64 [n_users, K], best first, padded with -1.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numba import njit

from models.ragged import NotAligned, flat_lists_of
from models.selection import is_in_sorted
from models.threads import map_in_threads, row_ranges


class BadQuota(ValueError):
    """Quotas that do not fit the channels."""


def remove(retrieved: np.ndarray, other: np.ndarray | pa.ListArray | pa.ChunkedArray) -> np.ndarray:
    """
    Remove from each row of ``retrieved`` the items of the same row of ``other``.

    Returns:
        int64 [n, K]: what is left in its order, moved up, padded with -1.
    """
    offsets, values = _sorted_lists(len(retrieved), other)
    retrieved = np.array(retrieved, np.int64)

    def remove_rows(rows: tuple[int, int]) -> np.ndarray:
        first, last = rows
        return _remove(retrieved[first:last], offsets[first : last + 1], values)

    blocks = map_in_threads(remove_rows, row_ranges(len(retrieved)))
    return np.concatenate([np.empty((0, retrieved.shape[1]), np.int64), *blocks])


def merge_channels(lists: Mapping[str, np.ndarray], quotas: Mapping[str, int]) -> np.ndarray:
    """
    Merge the channels' lists by their quotas, without duplicates.

    The channels take turns: each place goes to the channel that has filled the smallest part of its quota
    so far (ties in the order of ``quotas``), which places its best item that is not there yet. With lists
    long enough every channel places exactly its quota; a channel that runs out gives its places to the
    others, in proportion to their quotas. So the size is the sum of the quotas wherever the lists together
    hold as many distinct items, and every prefix is mixed in the same proportion.

    Args:
        lists: item-id matrix of each channel, over the same users; give more columns than the quota, since
            an item that another channel has placed does not count.
        quotas: places of each channel; 0 switches the channel off.

    Returns:
        int64 [n, sum of quotas], padded with -1.

    Raises:
        BadQuota: a channel with a quota has no list, or a quota is negative.
        NotAligned: the lists are not over the same number of users.
    """
    return merge_with_origin(lists, quotas)[0]


def merge_with_origin(
    lists: Mapping[str, np.ndarray], quotas: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """
    Merge as ``merge_channels`` does, and tell which channel placed each item.

    Returns:
        int64 [n, sum of quotas], and int16 of the same shape: the position in ``quotas``, -1 on padding.
    """
    channels = _channels_in_use(lists, quotas)
    if not channels:
        return np.empty((_n_users(lists), 0), np.int64), np.empty((_n_users(lists), 0), np.int16)
    stacked = np.concatenate([np.asarray(lists[name], np.int64) for name in channels], axis=1)
    ends = np.cumsum([lists[name].shape[1] for name in channels])
    merged, origin = _merge(stacked, ends, np.array([quotas[name] for name in channels], np.int64))
    positions = np.array([list(quotas).index(name) for name in channels] + [-1], np.int16)
    return merged, positions[origin]


def marginal_hits(
    lists: Mapping[str, np.ndarray], quotas: Mapping[str, int], targets: pa.ListArray | pa.ChunkedArray
) -> dict[str, np.ndarray]:
    """
    Count for each channel the targets that it finds within its quota and no other channel within its own.

    Returns:
        int64 [n_users] per channel with a quota.

    Raises:
        BadQuota, NotAligned: as ``merge_channels``.
    """
    channels = _channels_in_use(lists, quotas)
    offsets, values = flat_lists_of(_n_users(lists), targets, "targets")
    found = np.zeros((len(channels), len(values)), bool)
    for found_by, name in zip(found, channels, strict=True):
        found_by[:] = _contains(
            offsets, values, *_sorted_lists(len(offsets) - 1, lists[name][:, : quotas[name]])
        )
    is_alone = found.sum(axis=0) == 1
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return {
        name: np.bincount(users[found_by & is_alone], minlength=len(offsets) - 1)
        for name, found_by in zip(channels, found, strict=True)
    }


def _channels_in_use(lists: Mapping[str, np.ndarray], quotas: Mapping[str, int]) -> list[str]:
    for name, quota in quotas.items():
        if quota < 0:
            raise BadQuota(f"quota of channel {name} is {quota}; it must be at least 0")
        if quota and name not in lists:
            raise BadQuota(f"channel {name} has a quota of {quota} but no list; there are {', '.join(lists)}")
    _n_users(lists)
    return [name for name, quota in quotas.items() if quota]


def _n_users(lists: Mapping[str, np.ndarray]) -> int:
    sizes = {name: len(rows) for name, rows in lists.items()}
    if len(set(sizes.values())) > 1:
        raise NotAligned(f"channels are over different numbers of users: {sizes}")
    return next(iter(sizes.values()), 0)


def _sorted_lists(
    n_rows: int, lists: np.ndarray | pa.ListArray | pa.ChunkedArray
) -> tuple[np.ndarray, np.ndarray]:
    """Give offsets and values of the rows, each ascending."""
    if isinstance(lists, np.ndarray):
        if len(lists) != n_rows:
            raise NotAligned(f"{len(lists)} lists for {n_rows} rows; give one list per row, in row order")
        offsets = np.arange(n_rows + 1, dtype=np.int64) * lists.shape[1]
        return offsets, np.sort(np.asarray(lists, np.int64), axis=1).reshape(-1)
    offsets, values = flat_lists_of(n_rows, lists, "the other column")
    return offsets, values[np.lexsort((values, np.repeat(np.arange(n_rows), np.diff(offsets))))]


@njit(cache=True, nogil=True)
def _remove(retrieved, offsets, values):
    n, k = retrieved.shape
    kept = np.full((n, k), -1, np.int64)
    for row in range(n):
        size = 0
        for item in retrieved[row]:
            if item >= 0 and not is_in_sorted(values[offsets[row] : offsets[row + 1]], item):
                kept[row, size] = item
                size += 1
    return kept


@njit(cache=True, nogil=True)
def _contains(offsets, values, list_offsets, list_values):
    """Tell for each of the flat ``values`` whether its row's sorted list contains it."""
    is_found = np.zeros(len(values), np.bool_)
    for row in range(len(offsets) - 1):
        items = list_values[list_offsets[row] : list_offsets[row + 1]]
        for place in range(offsets[row], offsets[row + 1]):
            is_found[place] = is_in_sorted(items, values[place])
    return is_found


@njit(cache=True, nogil=True)
def _merge(stacked, ends, quotas):
    """Merge the lists that stand side by side in ``stacked``, the columns of list c ending at ``ends[c]``."""
    n, n_channels, size = len(stacked), len(ends), quotas.sum()
    merged = np.full((n, size), -1, np.int64)
    origin = np.full((n, size), -1, np.int16)
    next_column = np.empty(n_channels, np.int64)
    n_placed = np.empty(n_channels, np.int64)
    for row in range(n):
        taken = set([np.int64(-1)])
        next_column[0] = 0
        next_column[1:] = ends[:-1]
        n_placed[:] = 0
        place = 0
        while place < size:
            turn = -1
            for c in range(n_channels):
                while next_column[c] < ends[c] and stacked[row, next_column[c]] in taken:
                    next_column[c] += 1
                if next_column[c] < ends[c] and (
                    turn < 0 or (n_placed[c] + 1) * quotas[turn] < (n_placed[turn] + 1) * quotas[c]
                ):
                    turn = c
            if turn < 0:
                break
            item = stacked[row, next_column[turn]]
            taken.add(item)
            merged[row, place] = item
            origin[row, place] = turn
            n_placed[turn] += 1
            place += 1
    return merged, origin
