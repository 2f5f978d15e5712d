"""
Which row of the embedding belongs to which item? The vocabulary: append-only, row 0 is kept for "no item".

A row is the item's ``item_index``, so rows stay where they are while the catalogue grows.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from models.increc.config import IncRecConfig
from models.increc.features import require_columns, side_buckets

NO_ITEM = -1


class VocabularyChanged(ValueError):
    """Items do not sit at the rows at which the model learned them, or a row has two items."""


@dataclass(frozen=True)
class Vocabulary:
    """
    The items that a model has rows for.

    ``item_ids`` int64 [r], -1 at row 0 and at rows without an item; ``side`` int64 [r, f], the buckets of
    each item's side features, 0 = null.
    """

    item_ids: np.ndarray
    side: np.ndarray

    def __len__(self) -> int:
        """Count the rows, row 0 included."""
        return len(self.item_ids)

    @cached_property
    def known_item_ids(self) -> np.ndarray:
        """The items that have a row, in the order of rows, int64."""
        return self.item_ids[self.item_ids != NO_ITEM]

    def rows(self, item_ids: np.ndarray) -> np.ndarray:
        """Give each item's row, int64; 0 where the item is unknown."""
        if not len(self._sorted_ids):
            return np.zeros(len(item_ids), np.int64)
        places = np.searchsorted(self._sorted_ids, item_ids).clip(max=len(self._sorted_ids) - 1)
        return np.where(self._sorted_ids[places] == item_ids, self._sorted_rows[places], 0)

    @cached_property
    def _sorted_rows(self) -> np.ndarray:
        rows = np.flatnonzero(self.item_ids != NO_ITEM)
        return rows[np.argsort(self.item_ids[rows], kind="stable")]

    @cached_property
    def _sorted_ids(self) -> np.ndarray:
        return self.item_ids[self._sorted_rows]


def build_vocabulary(
    items: pa.Table, config: IncRecConfig, *, before: Vocabulary | None = None
) -> Vocabulary:
    """
    Give every item its row and side features, behind the rows of the vocabulary ``before``.

    ``items`` has ``item_id``, ``item_index`` and the side features. An item of ``before`` that is absent
    from ``items`` keeps its row and features; one that is present takes today's features.

    Raises:
        VocabularyChanged: an index is not positive, is given twice, or is not the one of ``before``.
    """
    require_columns(items, ["item_id", "item_index"], "the item table")
    item_ids = items["item_id"].to_numpy().astype(np.int64)
    rows = items["item_index"].to_numpy().astype(np.int64)
    if len(rows) and rows.min() < 1:
        raise VocabularyChanged(
            f"item_index {rows.min()} of item {item_ids[rows.argmin()]}: must be 1 or more"
        )
    for values, name in ((item_ids, "item_id"), (rows, "item_index")):
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) < len(values):
            raise VocabularyChanged(f"the item table has {name} {distinct[counts.argmax()]} more than once")
    n_before = len(before) if before else 1
    n_rows = max(n_before, int(rows.max(initial=0)) + 1)
    sides = side_buckets(items, config)
    ids = np.full(n_rows, NO_ITEM, np.int64)
    side = np.zeros((n_rows, sides.shape[1]), np.int64)
    if before:
        _check_rows_kept(before, item_ids, rows)
        ids[:n_before], side[:n_before] = before.item_ids, before.side
    ids[rows], side[rows] = item_ids, sides
    return Vocabulary(ids, side)


def _check_rows_kept(before: Vocabulary, item_ids: np.ndarray, rows: np.ndarray) -> None:
    rows_before = before.rows(item_ids)
    ids_before = before.item_ids[np.where(rows < len(before), rows, 0)]
    is_moved = np.where(rows_before > 0, rows_before != rows, ids_before != NO_ITEM)
    if is_moved.any():
        at = is_moved.argmax()
        raise VocabularyChanged(
            f"item {item_ids[at]} has item_index {rows[at]}, where the model carried on from has "
            + (f"it at {rows_before[at]}" if rows_before[at] else f"item {ids_before[at]}")
            + f" ({is_moved.sum()} such items); item_index is append-only: train from scratch, or restore it"
        )
