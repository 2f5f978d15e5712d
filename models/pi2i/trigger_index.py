"""
How is an i2i table laid out for PI2I? As flat target lists by trigger, items as dense codes.

Codes stand for item ids in ascending order; they hold for one table only.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.ragged import codes_of

COUNTS = ("n_clicks_day", "n_clicks_3_days", "n_clicks_window", "n_exposures_day")
"""Columns of a table of item statistics, each a count up to the end of the table's day."""

N_STATISTICS = 2 + len(COUNTS)
"""
Statistics of a target, float32: log(1 + number of triggers that reach it in the i2i table), log of the sum of
their Swing scores, and log(1 + x) of each of ``COUNTS``.
"""

TINY = 1e-6


class TriggerIndex(NamedTuple):
    """
    The targets of each trigger, best first.

    ``trigger_ids`` int64 [t] and ``item_ids`` int64 [i] ascending; ``starts`` int64 [t + 1] cuts ``targets``
    (int32 codes of ``item_ids``), ``scores`` float32, ``ranks`` int32 (1-based) and ``commons`` int32
    (common users), all [rows]. ``statistics`` float32 [i, N_STATISTICS] of the items.
    """

    trigger_ids: np.ndarray
    item_ids: np.ndarray
    starts: np.ndarray
    targets: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    commons: np.ndarray
    statistics: np.ndarray

    @property
    def lists(self) -> tuple[np.ndarray, ...]:
        """What the kernels read."""
        return self.starts, self.targets, self.scores, self.ranks, self.commons


def trigger_index(
    i2i_table: pa.Table,
    *,
    allowed_item_ids: np.ndarray | None = None,
    item_statistics: pa.Table | None = None,
) -> TriggerIndex:
    """
    Lay out an i2i table.

    Args:
        i2i_table: trigger_item_id, target_item_id, score, rank and n_common_users; each pair once.
        allowed_item_ids: the only targets to keep, e.g. the available items; None for all.
        item_statistics: item_id and ``COUNTS``, as of the i2i table's day; items that are left out count 0.
    """
    if allowed_item_ids is not None:
        is_allowed = pc.is_in(i2i_table["target_item_id"], pa.array(allowed_item_ids, pa.int64()))
        i2i_table = i2i_table.filter(is_allowed)
    trigger = i2i_table["trigger_item_id"].to_numpy()
    if np.any(trigger[1:] < trigger[:-1]):
        i2i_table = i2i_table.sort_by([("trigger_item_id", "ascending"), ("rank", "ascending")])
        trigger = i2i_table["trigger_item_id"].to_numpy()
    starts = np.flatnonzero(np.append(np.diff(trigger, prepend=trigger[:1] - 1), 1)).astype(np.int64)
    target = i2i_table["target_item_id"].to_numpy()
    item_ids = np.unique(target)
    codes, scores = codes_of(target, item_ids), i2i_table["score"].to_numpy()
    return TriggerIndex(
        np.array(trigger[starts[:-1]], np.int64),
        item_ids,
        starts,
        codes,
        np.array(scores, np.float32),
        np.array(i2i_table["rank"].to_numpy(), np.int32),
        np.array(i2i_table["n_common_users"].to_numpy(), np.int32),
        _statistics(item_ids, codes, scores, item_statistics),
    )


def user_triggers(offsets: np.ndarray, values: np.ndarray, n_triggers: int) -> tuple[np.ndarray, np.ndarray]:
    """
    Keep of each history (flat, oldest first) its last ``n_triggers`` distinct items, the newest first.

    Returns:
        int64 offsets [n + 1] and item ids.
    """
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    newest_first = np.arange(len(values))[::-1]
    order = newest_first[np.argsort(owners[::-1], kind="stable")]
    # of an item that occurs twice the newest counts
    keys = np.lexsort((np.arange(len(order)), values[order], owners[order]))
    same = np.zeros(len(keys), bool)
    same[1:] = (values[order][keys][1:] == values[order][keys][:-1]) & (
        owners[order][keys][1:] == owners[order][keys][:-1]
    )
    is_repeated = np.zeros(len(order), bool)
    is_repeated[keys] = same
    order = order[~is_repeated]
    kept_owners = owners[order]
    lengths = np.bincount(kept_owners, minlength=len(offsets) - 1)
    begins = np.concatenate([[0], np.cumsum(lengths)])
    is_kept = np.arange(len(order)) - begins[kept_owners] < n_triggers
    order, kept_owners = order[is_kept], kept_owners[is_kept]
    lengths = np.bincount(kept_owners, minlength=len(offsets) - 1)
    return np.concatenate([[0], np.cumsum(lengths)]), values[order]


def _statistics(
    item_ids: np.ndarray, codes: np.ndarray, scores: np.ndarray, counted: pa.Table | None
) -> np.ndarray:
    n = len(item_ids)
    columns = [
        np.log1p(np.bincount(codes, minlength=n)),
        np.log(np.bincount(codes, scores, minlength=n) + TINY),
    ]
    if counted is None:
        columns += [np.zeros(n)] * len(COUNTS)
    else:
        known = counted["item_id"].to_numpy()
        order = np.argsort(known)
        places = codes_of(item_ids, known[order])
        columns += [np.log1p(np.append(counted[name].to_numpy()[order], 0)[places]) for name in COUNTS]
    return np.stack(columns, axis=1).astype(np.float32)
