"""
Does a build fit into its memory budget?

The figures below are what the arrays of each step take at its peak; a test compares them with the measured
peak of a process. A build that does not fit is refused before the step that would not, never cut short.
"""

from models.swing.config import SwingConfig

GIB = 1 << 30
FIXED = 96 << 20
"""Bytes that any build takes: the compiled kernels, chunks of clicks on their way, Arrow's pools."""
PER_CLICK = 20
"""Numbers of user and item (8), their lists (4 + 4), and what the allocator keeps between steps (4)."""
PER_TIMED_CLICK = 60
"""With an item cap: the times (8), the sorted order (8), the kept copies (16) and the lists."""
PER_ID = 80
"""Id, hash slots up to a doubling, and the arrays with one cell for each user or item."""
BLOCKS_AHEAD = 2
"""Blocks per thread that are scored or wait to be written."""


class BudgetTooSmall(ValueError):
    """The memory budget cannot hold the build; the message names what it needs."""


def budget_bytes(config: SwingConfig) -> int | None:
    """Give the budget in bytes, None without one."""
    return None if config.memory_budget_gib is None else int(config.memory_budget_gib * GIB)


def check_clicks(n_clicks: int, n_ids: int, config: SwingConfig) -> None:
    """
    Refuse clicks that cannot be indexed within the budget.

    Raises:
        BudgetTooSmall: see above.
    """
    per_click = PER_CLICK if config.max_items_per_user is None else PER_TIMED_CLICK
    require(FIXED + per_click * n_clicks + PER_ID * n_ids, f"to index {n_clicks} clicks", config)


def require(n_bytes: int, what: str, config: SwingConfig) -> None:
    """
    Refuse what takes more than the budget.

    Raises:
        BudgetTooSmall: see above.
    """
    budget = budget_bytes(config)
    if budget is not None and n_bytes > budget:
        raise BudgetTooSmall(
            f"memory_budget_gib = {config.memory_budget_gib:g} is too small {what}: at least"
            f" {n_bytes / GIB:.2f} GiB; raise it, shorten the window, or cap users and items"
        )


def budget_left(index_bytes: int, config: SwingConfig) -> int | None:
    """Give what the budget leaves beside an index of that size, None without a budget."""
    budget = budget_bytes(config)
    return None if budget is None else budget - FIXED - index_bytes


def scoring_bytes(n_items: int, n_entries_most: int, n_threads: int, rows_per_block: int) -> int:
    """
    Bound the memory that scoring adds to the index.

    Args:
        n_items: triggers.
        n_entries_most: most clicks that the users of one trigger have together.
        n_threads: blocks that are scored at the same time.
        rows_per_block: most rows of one of them.
    """
    plan = 48 * n_items
    marks = 4 * n_items
    neighbourhood = 8 * n_entries_most + 44 * min(n_entries_most, n_items)
    rows = 32 * rows_per_block
    return plan + n_threads * (marks + neighbourhood + 2 * rows + BLOCKS_AHEAD * rows)
