"""
How is an i2i table laid out for PI2I? As flat target lists by trigger, items as dense codes.

Codes stand for item ids in ascending order; they hold for one table only.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.ragged import codes_of


class TriggerIndex(NamedTuple):
    """
    The targets of each trigger, best first.

    ``trigger_ids`` int64 [t] and ``item_ids`` int64 [i] ascending; ``starts`` int64 [t + 1] cuts ``targets``
    (int32 codes of ``item_ids``), ``scores`` float32, ``ranks`` int32 (1-based) and ``commons`` int32
    (common users), all [rows].
    """

    trigger_ids: np.ndarray
    item_ids: np.ndarray
    starts: np.ndarray
    targets: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    commons: np.ndarray

    @property
    def lists(self) -> tuple[np.ndarray, ...]:
        """What the kernels read."""
        return self.starts, self.targets, self.scores, self.ranks, self.commons


def trigger_index(i2i_table: pa.Table, *, allowed_item_ids: np.ndarray | None = None) -> TriggerIndex:
    """
    Lay out an i2i table.

    Args:
        i2i_table: trigger_item_id, target_item_id, score, rank and n_common_users; each pair once.
        allowed_item_ids: the only targets to keep, e.g. the available items; None for all.
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
    return TriggerIndex(
        np.array(trigger[starts[:-1]], np.int64),
        item_ids,
        starts,
        codes_of(target, item_ids),
        np.array(i2i_table["score"].to_numpy(), np.float32),
        np.array(i2i_table["rank"].to_numpy(), np.int32),
        np.array(i2i_table["n_common_users"].to_numpy(), np.int32),
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
