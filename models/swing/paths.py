"""
Which way are the scores computed?

- ``walk``: trigger by trigger over the lists of common users; any data, any cap, any block by itself.
- ``pairs``: each pair of items once, from its rarer item, with |Iu ∩ Iv| counted beforehand for the users of
  many items; for a whole table without a user cap. Gives the bytes of ``walk``.
- ``complement``: from the users that two items do not share; for nearly full matrices.

All are exact. The path follows from the clicks, the options and the memory budget, and is reported.
"""

from typing import Literal

import numpy as np

from models.swing.click_index import ClickIndex
from models.swing.config import SwingConfig
from models.swing.memory import FIXED, budget_left, require
from models.threads import thread_count

Path = Literal["walk", "pairs", "complement"]

LEAST_SHARED = (
    0.25  # items by pair of users: with fewer, most are of one user only, and the walk sifts them out
)
LEAST_DENSITY = 0.75  # where as many users are missing from two items as they share
MOST_COMPLEMENT_USERS = 4096
MOST_PAIR_BYTES = 1 << 30
CELLS_AT_ONCE = 1 << 27
"""Numbers of shared items (2 bytes), one for each pair of users of an item, that are held at a time."""
BYTES_PER_PAIR = 24
"""A pair of items as it is scored (16) and in the list of its second item (8)."""


def path_of_blocks(index: ClickIndex, config: SwingConfig) -> Path:
    """Give the path for blocks by themselves; the same wherever they are scored."""
    n_cells = index.n_users * index.n_items
    if (
        0 < index.n_users <= MOST_COMPLEMENT_USERS
        and len(index.user_items) >= LEAST_DENSITY * n_cells > 0
        and index.n_items_capped == 0
        and not config.include_self_pairs
    ):
        return "complement"
    return "walk"


def path_of_table(index: ClickIndex, config: SwingConfig) -> Path:
    """
    Give the path for the whole table in one process.

    Raises:
        BudgetTooSmall: the clicks are nearly full, and ``complement`` does not fit.
    """
    path = path_of_blocks(index, config)
    if path == "complement":
        n_missing = index.n_users * index.n_items - len(index.user_items)
        n_bytes = 8 * index.n_users**2 + 8 * n_missing
        require(
            FIXED + index.n_bytes + n_bytes,
            f"to score {index.n_items} triggers that nearly all share",
            config,
        )
    is_symmetric = index.n_items_capped == 0 and not config.include_self_pairs
    n_items_of = np.diff(index.user_starts)
    if path == "walk" and is_symmetric and 0 < np.max(n_items_of, initial=0) < 1 << 16:
        left = budget_left(index.n_bytes, config)
        most = MOST_PAIR_BYTES if left is None else min(left, MOST_PAIR_BYTES)
        n_shared = np.sum(np.diff(index.item_starts) ** 2)
        n_threads = thread_count(config.n_threads)
        if n_shared >= LEAST_SHARED * index.n_users**2 and pair_bytes(index, n_threads) <= most:
            return "pairs"
    return path


def pair_bytes(index: ClickIndex, n_threads: int) -> int:
    """
    Bound the memory of the path ``pairs``.

    The counts of shared items, the pairs of items, and for each thread the terms of the users of one item and
    the lists of its neighbours. The item with the most users is nobody's rarer item, so the next one counts.
    """
    n_users_of = np.sort(np.diff(index.item_starts))[:-1]
    n_users_most = int(np.max(n_users_of, initial=0))
    n_items_of = np.sort(np.diff(index.user_starts))
    n_entries_most = int(np.sum(n_items_of[len(n_items_of) - n_users_most :]))
    counts = min(int(np.sum(n_users_of**2)), 2 * CELLS_AT_ONCE + n_users_most**2)
    scratch = 8 * n_users_most**2 + 4 * n_entries_most + 20 * index.n_items + 2 * index.n_users
    return counts + BYTES_PER_PAIR * most_item_pairs(index) + n_threads * scratch


def most_item_pairs(index: ClickIndex) -> int:
    """Bound the number of pairs of items with two common users, each of which has both items."""
    n_items_of = np.diff(index.user_starts)
    return int(min(index.n_items * (index.n_items - 1) // 2, np.sum(n_items_of * (n_items_of - 1)) // 4))
