"""
How far down its triggers' lists does a user's next item stand? (PI2I 3.1 and Fig. 4)

The candidates of a user at truncation T are the first T targets of each of the last distinct history items,
without the history itself. An item's *depth* is the lowest rank at which one of the triggers reaches it: it
is a candidate at T if its depth is at most T, so one pass over the table at the largest T serves them all.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from models.metrics import NOT_RETRIEVED
from models.ragged import codes_of, flat_lists, flat_lists_of
from models.threads import map_in_threads, row_ranges

MOST = 2**31


class BadTruncations(ValueError):
    """The truncations of a study cannot be compared."""


@dataclass(frozen=True)
class Reach:
    """What the histories reach, row by row."""

    target_ranks: np.ndarray
    """int32 [n_targets], over the flattened target lists: depth less one, NOT_RETRIEVED for what no trigger
    reaches; so ``hit_rate`` at k = T counts the targets among the candidates at T."""
    n_candidates: np.ndarray
    """int64 [n_users, n_truncations]: number of candidates at each T."""


def check_truncations(truncations: tuple[int, ...]) -> None:
    """
    Check that truncations are whole, ascending and at least 1.

    Raises:
        BadTruncations: they are not, or there are fewer than two.
    """
    shown = ", ".join(map(str, truncations)) or "none"
    if truncations and not 1 <= min(truncations) <= max(truncations) < MOST:
        raise BadTruncations(f"every T must be at least 1 and below 2^31, got {shown}")
    if len(truncations) < 2:
        raise BadTruncations(f"a truncation study compares at least two T, got {shown}")
    for one, next_one in pairwise(truncations):
        if one == next_one:
            raise BadTruncations(f"T = {one} is given twice in {shown}")
        if one > next_one:
            raise BadTruncations(f"the T must ascend, but {next_one} comes after {one} in {shown}")


def reach(
    i2i_table: pa.Table,
    histories: pa.ListArray | pa.ChunkedArray,
    targets: pa.ListArray | pa.ChunkedArray,
    truncations: tuple[int, ...],
    *,
    n_triggers: int = 100,
    allowed_item_ids: np.ndarray | None = None,
    n_threads: int = 0,
) -> Reach:
    """
    Find at which depth each target is reached, and count the candidates at each truncation.

    Args:
        i2i_table: trigger_item_id, target_item_id and rank, each (trigger, target) once; to the largest T.
        histories: item ids of each user, oldest first; an item that occurs twice counts at its latest place.
        targets: item ids of each user, none of them in the history.
        truncations: ascending.
        n_triggers: how many of the last distinct items of a history are triggers.
        allowed_item_ids: the only items to retrieve; None for all.
        n_threads: threads, 0 for one per CPU; never changes the result.

    Raises:
        BadTruncations: see `check_truncations`.
    """
    check_truncations(truncations)
    i2i_table = i2i_table.filter(pc.field("rank") <= truncations[-1])
    if allowed_item_ids is not None:
        allowed = pa.array(allowed_item_ids, pa.int64())
        i2i_table = i2i_table.filter(pc.is_in(i2i_table["target_item_id"], allowed))
    i2i_table = i2i_table.sort_by([("trigger_item_id", "ascending"), ("rank", "ascending")])
    trigger = i2i_table["trigger_item_id"].to_numpy()
    starts = np.flatnonzero(np.concatenate(([True], trigger[1:] != trigger[:-1], [True])))[: len(trigger) + 1]
    trigger_ids = trigger[starts[:-1]]
    item_ids = np.sort(pc.unique(i2i_table["target_item_id"]).to_numpy())
    lists = (
        starts.astype(np.int64),
        codes_of(i2i_table["target_item_id"].to_numpy(), item_ids),
        i2i_table["rank"].to_numpy().astype(np.int32),
    )
    offsets, items = flat_lists(histories)
    history = (offsets, items, codes_of(items, trigger_ids), codes_of(items, item_ids))
    target_offsets, target_items = flat_lists_of(len(histories), targets, "targets")
    wanted = (target_offsets, codes_of(target_items, item_ids))
    edges = np.array(truncations, np.int32)

    def of_rows(rows: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        return _reach_rows(rows[0], rows[1], history, wanted, lists, len(item_ids), n_triggers, edges)

    pieces = map_in_threads(of_rows, row_ranges(len(histories), n_threads=n_threads), n_threads=n_threads)
    return Reach(
        np.concatenate([np.empty(0, np.int32), *(ranks for ranks, _ in pieces)]),
        np.concatenate([np.empty((0, len(edges)), np.int64), *(counts for _, counts in pieces)]),
    )


@njit(cache=True, nogil=True)
def _reach_rows(first, last, history, wanted, lists, n_items, n_triggers, edges):
    """
    Find depths and candidates of the rows ``first`` up to ``last``, which is excluded.

    Args:
        history: offsets, item ids, trigger codes and item codes (-1: not in the table).
        wanted: offsets and item codes of the targets.
        lists: starts, item codes and ranks of each trigger's targets.
        n_items: number of item codes.
        n_triggers: triggers of a history.
        edges: truncations, ascending.

    Returns:
        Ranks of the rows' targets, and candidates int64 [last - first, n_edges].
    """
    offsets, _, _, item_codes = history
    target_offsets, target_codes = wanted
    target_ranks = np.full(target_offsets[last] - target_offsets[first], NOT_RETRIEVED, np.int32)
    n_candidates = np.zeros((last - first, len(edges)), np.int64)
    rows_of_items = (np.full(n_items, -1, np.int64), np.full(n_items, -1, np.int64))
    found = (np.empty(n_items, np.int32), np.empty(n_items, np.int32))
    for row in range(first, last):
        for place in range(offsets[row], offsets[row + 1]):
            if item_codes[place] >= 0:
                rows_of_items[0][item_codes[place]] = row
        n_found = _find_depths(row, history, lists, n_triggers, rows_of_items, found)
        reached, depth = found
        for place in range(n_found):
            n_candidates[row - first, np.searchsorted(edges, depth[reached[place]])] += 1
        for edge in range(1, len(edges)):
            n_candidates[row - first, edge] += n_candidates[row - first, edge - 1]
        for place in range(target_offsets[row], target_offsets[row + 1]):
            item = target_codes[place]
            if item >= 0 and rows_of_items[1][item] == row:
                target_ranks[place - target_offsets[first]] = depth[item] - 1
    return target_ranks, n_candidates


@njit(cache=True, nogil=True)
def _find_depths(row, history, lists, n_triggers, rows_of_items, found):
    """
    Write the items that the row's triggers reach to ``found[0]``, and the depth of each item to ``found[1]``.

    ``rows_of_items`` tell for each item the latest row whose history holds it, and the latest to reach it.
    """
    offsets, items, trigger_codes, _ = history
    starts, reached_codes, ranks = lists
    history_row, reached_row = rows_of_items
    reached, depth = found
    n_reached = 0
    n_used = 0
    place = offsets[row + 1]
    while place > offsets[row] and n_used < n_triggers:
        place -= 1
        is_repeated = False
        for later in range(place + 1, offsets[row + 1]):
            is_repeated |= items[later] == items[place]
        trigger = trigger_codes[place]
        n_used += not is_repeated
        if is_repeated or trigger < 0:
            continue
        for entry in range(starts[trigger], starts[trigger + 1]):
            item = reached_codes[entry]
            if history_row[item] == row:
                continue
            if reached_row[item] != row:
                reached_row[item] = row
                depth[item] = ranks[entry]
                reached[n_reached] = item
                n_reached += 1
            depth[item] = min(depth[item], ranks[entry])
    return n_reached
