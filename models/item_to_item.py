"""
Which items does a user's history lead to, by an i2i table?

The score of a target j is the sum of s(t, j) over the user's last distinct history items t. It is the
Swing channel, and the channel that stands for the existing ones where R_u is simulated.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from models.ragged import codes_of, flat_lists
from models.selection import best_first, round_score
from models.threads import map_in_threads, row_ranges


class _TargetLists(NamedTuple):
    """An i2i table as flat lists, by trigger."""

    trigger_ids: np.ndarray  # int64 [n_triggers], ascending
    target_ids: np.ndarray  # int64 [n_targets], ascending: what the target codes stand for
    starts: np.ndarray  # int64 [n_triggers + 1]
    targets: np.ndarray  # int32 [n_rows], codes
    scores: np.ndarray  # float64 [n_rows]


def retrieve_by_items(
    i2i_table: pa.Table,
    histories: pa.ListArray | pa.ChunkedArray,
    k: int,
    *,
    n_triggers: int = 100,
    n_targets: int | None = None,
    allowed_item_ids: np.ndarray | None = None,
    n_threads: int = 0,
) -> np.ndarray:
    """
    Retrieve the ``k`` targets with the highest summed scores for each history.

    Args:
        i2i_table: trigger_item_id, target_item_id, score and rank; each (trigger, target) once.
        histories: item ids of each user, oldest first. An item that occurs twice counts once, at its
            latest place. The whole history is kept out of the result, not only its triggers.
        k: items to retrieve.
        n_triggers: how many of the last distinct items of a history are triggers.
        n_targets: use only the first targets of each trigger; None for all that the table has.
        allowed_item_ids: the only items to retrieve, e.g. those available; None for all.
        n_threads: threads, 0 for one per CPU; never changes the result.

    Returns:
        int64 [n, k] item ids, best first, ties by item id, padded with -1. Short lists are not filled.
    """
    lists = _target_lists(i2i_table, n_targets, allowed_item_ids)
    offsets, values = flat_lists(histories)
    history = (offsets, values, codes_of(values, lists.trigger_ids), codes_of(values, lists.target_ids))

    def retrieve(rows: tuple[int, int]) -> np.ndarray:
        return _retrieve_rows(rows, history, lists[2:], len(lists.target_ids), (k, n_triggers))

    blocks = map_in_threads(retrieve, row_ranges(len(histories), n_threads=n_threads), n_threads=n_threads)
    codes = np.concatenate([np.empty((0, k), np.int32), *blocks])
    return np.append(lists.target_ids, -1)[codes]


def _target_lists(
    i2i_table: pa.Table, n_targets: int | None, allowed_item_ids: np.ndarray | None
) -> _TargetLists:
    if n_targets is not None:
        i2i_table = i2i_table.filter(pc.field("rank") <= n_targets)
    if allowed_item_ids is not None:
        i2i_table = i2i_table.filter(
            pc.is_in(i2i_table["target_item_id"], pa.array(allowed_item_ids, pa.int64()))
        )
    trigger = i2i_table["trigger_item_id"].to_numpy()
    if np.any(trigger[1:] < trigger[:-1]):
        i2i_table = i2i_table.sort_by([("trigger_item_id", "ascending"), ("rank", "ascending")])
        trigger = i2i_table["trigger_item_id"].to_numpy()
    starts = np.flatnonzero(np.append(np.diff(trigger, prepend=trigger[:1] - 1), 1))
    target_ids = np.sort(pc.unique(i2i_table["target_item_id"]).to_numpy())
    return _TargetLists(
        trigger[starts[:-1]],
        target_ids,
        starts.astype(np.int64),
        codes_of(i2i_table["target_item_id"].to_numpy(), target_ids),
        np.array(i2i_table["score"].to_numpy(), np.float64),
    )


@njit(cache=True, nogil=True)
def _retrieve_rows(rows, history, lists, n_items, sizes):
    """
    Retrieve for the histories of a range of rows.

    Args:
        rows: (first, last), last excluded.
        history: flat offsets, item ids, trigger codes and target codes (-1: not in the table).
        lists: starts, targets and scores of ``_TargetLists``.
        n_items: number of target codes.
        sizes: (k, n_triggers).

    Returns:
        int32 [last - first, k] target codes, best first, -1 where there are no more.
    """
    offsets, items, trigger_codes, target_codes = history
    starts, targets, scores = lists
    k, n_triggers = sizes
    first, last = rows
    result = np.full((last - first, k), -1, np.int32)
    score = np.zeros(n_items, np.float64)
    history_row = np.full(n_items, -1, np.int64)
    reached_row = np.full(n_items, -1, np.int64)
    reached = np.empty(n_items, np.int32)
    for row in range(first, last):
        for place in range(offsets[row], offsets[row + 1]):
            if target_codes[place] >= 0:
                history_row[target_codes[place]] = row
        n_reached = 0
        n_used = 0
        place = offsets[row + 1]
        while place > offsets[row] and n_used < n_triggers:
            place -= 1
            is_repeated = False
            for later in range(place + 1, offsets[row + 1]):
                is_repeated |= items[later] == items[place]
            if is_repeated:
                continue
            n_used += 1
            trigger = trigger_codes[place]
            if trigger < 0:
                continue
            for target_place in range(starts[trigger], starts[trigger + 1]):
                target = targets[target_place]
                if history_row[target] != row:
                    if reached_row[target] != row:
                        reached_row[target] = row
                        reached[n_reached] = target
                        n_reached += 1
                    score[target] += scores[target_place]
        reached_scores = np.empty(n_reached, np.float64)
        for position in range(n_reached):
            reached_scores[position] = round_score(score[reached[position]])
            score[reached[position]] = 0.0
        codes, _ = best_first(reached[:n_reached], reached_scores, k)
        result[row - first, : len(codes)] = codes
    return result
