"""Into which blocks are the triggers cut, so that threads are busy to the end and memory is bounded?"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from models.swing.click_index import ClickIndex
from models.swing.clicks import BadClicks
from models.swing.config import SwingConfig
from models.swing.memory import FIXED, budget_left, require, scoring_bytes
from models.threads import thread_count

BLOCKS_PER_THREAD = 32
MOST_ROWS_PER_BLOCK = 1 << 20
LEAST_ROWS_PER_BLOCK = 1 << 14


class TriggerBlock(NamedTuple):
    """Triggers ``first`` up to ``last``, which is excluded, in the order of their item ids."""

    first: int
    last: int


def plan_blocks(index: ClickIndex, config: SwingConfig, *, n_blocks: int | None = None) -> list[TriggerBlock]:
    """
    Cut the triggers into blocks of like cost and bounded output, in ascending order of item id.

    Args:
        index: the clicks.
        config: truncation, threads and memory budget.
        n_blocks: about so many; more where the rows of one would be too many, fewer where single triggers
            outweigh a block. None: enough to keep the threads busy.

    Raises:
        BudgetTooSmall: the memory budget does not hold the index and one small block for each thread.
        BadClicks: the users of one trigger have more clicks than the kernels can number.
    """
    if index.n_items == 0:
        return []
    # the compiler's import takes longer than a whole small index: only those who build one pay for it
    from models.swing.walk import estimate_triggers

    least_users = 1 if config.include_self_pairs else 2
    cost, n_entries, n_rows = estimate_triggers(index.lists, config.truncation, least_users)
    if n_entries.max() >= 1 << 31:
        item_id = index.item_ids[n_entries.argmax()]
        raise BadClicks(
            f"the users of item {item_id} have {n_entries.max()} clicks, and 2^31 are the most: "
            "set max_users_per_item or max_items_per_user"
        )
    n_threads = thread_count(config.n_threads)
    n_shares = n_blocks or n_threads * BLOCKS_PER_THREAD
    rows_per_block = _rows_per_block(index, config, n_threads, int(n_entries.max()))
    running_cost, running_rows = np.cumsum(cost), np.cumsum(n_rows)
    equal_shares = np.searchsorted(running_cost, running_cost[-1] / n_shares * np.arange(1, n_shares))
    bounded_rows = np.searchsorted(running_rows, np.arange(rows_per_block, running_rows[-1], rows_per_block))
    edges = np.unique(np.concatenate((equal_shares, bounded_rows, [0, index.n_items])))
    return [TriggerBlock(first, last) for first, last in pairwise(edges.tolist())]


def _rows_per_block(index: ClickIndex, config: SwingConfig, n_threads: int, n_entries_most: int) -> int:
    """Give the most rows of a block that the budget allows."""

    def needed(rows: int) -> int:
        return scoring_bytes(index.n_items, n_entries_most, n_threads, rows)

    least = max(LEAST_ROWS_PER_BLOCK, min(config.truncation, index.n_items))
    require(
        FIXED + index.n_bytes + needed(least),
        f"to score {index.n_items} triggers in {n_threads} threads",
        config,
    )
    left = budget_left(index.n_bytes, config)
    if left is None:
        return max(least, MOST_ROWS_PER_BLOCK)
    bytes_per_row = needed(1) - needed(0)
    return max(least, min(MOST_ROWS_PER_BLOCK, (left - needed(0)) // bytes_per_row))
