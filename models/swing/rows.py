"""Which rows of the i2i table do the triggers of one block give?"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from models.swing.click_index import ClickIndex
from models.swing.config import SwingConfig
from models.swing.paths import Path, path_of_blocks
from models.swing.plan import TriggerBlock

I2I_SCHEMA = pa.schema(
    [
        pa.field("trigger_item_id", pa.int64(), nullable=False),
        pa.field("target_item_id", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("n_common_users", pa.int32(), nullable=False),
    ]
)
COLUMN_DTYPES = ("int64", "int64", "float64", "int32", "int32")


def block_rows(index: ClickIndex, block: TriggerBlock, config: SwingConfig) -> pa.RecordBatch:
    """
    Give the rows of the triggers of one block (``I2I_SCHEMA``), by trigger and 1-based rank.

    Ties come by target id; scores are rounded to 40 significant bits; n_common_users counts the trigger's
    users, after the caps. The rows do not depend on how the triggers are cut into blocks.
    """
    return BlockScorer(index, config).rows(block)


class BlockScorer:
    """Scores block after block of one index, from any number of threads."""

    def __init__(self, index: ClickIndex, config: SwingConfig, *, path: Path | None = None):
        """Prepare what all blocks share; ``path`` makes a part of an index go the whole's way."""
        self.path = path or path_of_blocks(index, config)
        self._index, self._config = index, config
        self._pair_weight = pair_weights(index, config)
        self._unused_marks: list[np.ndarray] = []
        if self.path == "complement":
            from models.swing.complement import missing_lists, pair_terms

            self._missing = missing_lists(index.item_starts, index.item_users, index.n_users)
            self._terms = pair_terms(index.lists, index.weights, self._pair_weight)

    def rows(self, block: TriggerBlock) -> pa.RecordBatch:
        """Give the rows of one block, as `block_rows`."""
        return as_rows(self._complement(block) if self.path == "complement" else self._walk(block))

    def _walk(self, block: TriggerBlock) -> tuple[np.ndarray, ...]:
        from models.swing.walk import walk_rows

        index, config = self._index, self._config
        try:
            marks = self._unused_marks.pop()
        except IndexError:
            marks = np.zeros(index.n_items, np.int32)
        columns = walk_rows(
            block.first,
            block.last,
            index.lists,
            index.item_ids,
            index.weights,
            self._pair_weight,
            config.truncation,
            config.include_self_pairs,
            marks,
        )
        self._unused_marks.append(marks)
        return columns

    def _complement(self, block: TriggerBlock) -> tuple[np.ndarray, ...]:
        from models.swing.complement import complement_rows

        index = self._index
        return complement_rows(
            block.first,
            block.last,
            index.lists,
            index.item_ids,
            self._missing,
            *self._terms,
            self._config.truncation,
        )


def pair_weights(index: ClickIndex, config: SwingConfig) -> np.ndarray:
    """Give 2 / (alpha + n) for every number n of shared items that may occur, float64."""
    n_most = int(np.max(np.diff(index.user_starts), initial=0))
    return 2.0 / (config.alpha + np.arange(n_most + 2))


def new_columns(n_rows: int, dtypes: Sequence[str] = COLUMN_DTYPES) -> tuple[np.ndarray, ...]:
    """Give uninitialised columns, by default of the i2i table, in one piece: it gets more large pages so."""
    ends = np.cumsum([n_rows * np.dtype(dtype).itemsize for dtype in dtypes])
    room = np.empty(ends[-1], np.uint8)
    return tuple(part.view(dtype) for part, dtype in zip(np.split(room, ends[:-1]), dtypes, strict=True))


def as_rows(columns: tuple[np.ndarray, ...]) -> pa.RecordBatch:
    """Give the kernels' columns as rows of the i2i table."""
    return pa.record_batch([pa.array(column) for column in columns], schema=I2I_SCHEMA)
