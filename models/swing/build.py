"""How do the steps make an i2i table, whole or block by block?"""

import time
from collections.abc import Iterator

import pyarrow as pa

from models.swing.click_index import ClickIndex, index_clicks
from models.swing.clicks import Clicks
from models.swing.config import SwingConfig
from models.swing.memory import BLOCKS_AHEAD
from models.swing.paths import path_of_table
from models.swing.plan import plan_blocks
from models.swing.report import SwingReport, TargetCounts, swing_report
from models.swing.rows import I2I_SCHEMA, BlockScorer
from models.swing.table import TableScorer
from models.threads import iterate_in_threads


def build_i2i_table(clicks: Clicks, config: SwingConfig) -> tuple[pa.Table, SwingReport]:
    """
    Build the i2i table of a window's clicks.

    Args:
        clicks: columns user_id and item_id (int64) and event_time (timestamp or int64); rows in any order,
            repeated clicks count once, at their latest time. Further columns are ignored. One table or its
            chunks.
        config: the options. The memory budget does not count the returned table.

    Returns:
        The i2i table (``I2I_SCHEMA``), by trigger and 1-based rank, ties by target id, scores rounded to
        40 significant bits; n_common_users counts the trigger's users, after the caps. And its report.

    Raises:
        BadClicks: a column is missing, has nulls or is no integer.
        BudgetTooSmall: the build does not fit into ``memory_budget_gib``; nothing was scored.
    """
    blocks = I2IBlocks(clicks, config, is_whole=True)
    table = pa.Table.from_batches(list(blocks), I2I_SCHEMA)
    return table, blocks.report


def iter_i2i_blocks(clicks: Clicks, config: SwingConfig) -> "I2IBlocks":
    """Give the rows of `build_i2i_table` as record batches, so that the table is never held. Raises as it."""
    return I2IBlocks(clicks, config)


class I2IBlocks:
    """
    The rows of an i2i table as record batches of whole triggers, in the table's order; to be read once.

    The clicks are indexed when it is made, so that what cannot be built is refused before the first batch.
    """

    def __init__(self, clicks: Clicks, config: SwingConfig, *, is_whole: bool = False):
        """
        Index the clicks and plan the blocks. Raises as `build_i2i_table`.

        ``is_whole``: all batches will be held at once, and may share the memory of whole columns.
        """
        self._started = time.perf_counter()
        self._config = config
        self._is_whole = is_whole
        self._index: ClickIndex | None = index_clicks(clicks, config)
        self._blocks = plan_blocks(self._index, config)
        self._path = path_of_table(self._index, config)
        self._report: SwingReport | None = None

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch."""
        return I2I_SCHEMA

    @property
    def n_blocks(self) -> int:
        """Number of batches."""
        return len(self._blocks)

    @property
    def report(self) -> SwingReport:
        """What came out; there once all batches were read."""
        if self._report is None:
            raise RuntimeError("the report of a Swing index is there once all its blocks were read")
        return self._report

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Give the batches, scored in threads a few blocks ahead."""
        index, config, self._index = self._index, self._config, None
        if index is None:
            raise RuntimeError("the blocks of a Swing index can be read once")
        if self._path == "pairs":
            scorer = TableScorer(index, config, is_whole=self._is_whole)
        else:
            scorer = BlockScorer(index, config)
        counts = TargetCounts()
        for rows in iterate_in_threads(
            scorer.rows, self._blocks, n_threads=config.n_threads, n_ahead=BLOCKS_AHEAD
        ):
            counts.add(rows)
            yield rows
        self._report = swing_report(
            index,
            counts,
            config,
            path=self._path,
            n_blocks=len(self._blocks),
            seconds=time.perf_counter() - self._started,
        )
