"""What must a scorer know of the clicks? The users of each trigger and the items of each user, as arrays."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from models.swing.clicks import Clicks, number_clicks
from models.swing.config import SwingConfig
from models.swing.recency import keep_most_recent

Lists = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class ClickIndex:
    """
    The clicks of a window as plain arrays, which any process can score blocks of triggers from.

    Triggers are the items that can have targets, numbered by ascending id. Lists are flat uint32 with int64
    starts and ascend. Users are numbered from the most active on, or by their seeded hash where there is a
    user cap, which therefore keeps the first users of a list.
    """

    item_ids: np.ndarray
    """int64 [n_items], ascending."""
    item_starts: np.ndarray
    """int64 [n_items + 1]: where the users of each trigger start in ``item_users``."""
    item_users: np.ndarray
    """uint32: users of each trigger, after both caps."""
    user_starts: np.ndarray
    """int64 [n_users + 1]: where the items of each user start in ``user_items``."""
    user_items: np.ndarray
    """uint32: items of each user that are triggers, after the item cap."""
    weights: np.ndarray
    """float64 [n_users]: w_u, from all items of the user."""
    n_clicks: int
    """Rows that came in."""
    n_distinct_clicks: int
    """Distinct (user, item) pairs in them."""
    n_clicked_items: int
    """Distinct items, with those that can have no target."""
    n_items_capped: int
    n_users_capped: int
    share_clicks_dropped: float
    """Share of the distinct clicks that a cap kept from counting for their trigger."""

    @property
    def n_items(self) -> int:
        """Number of triggers."""
        return len(self.item_ids)

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.weights)

    @property
    def n_bytes(self) -> int:
        """Memory that the arrays take."""
        return sum(array.nbytes for array in self.arrays().values() if isinstance(array, np.ndarray))

    @property
    def lists(self) -> Lists:
        """The lists as the kernels take them."""
        return self.item_starts, self.item_users, self.user_starts, self.user_items

    def arrays(self) -> dict[str, Any]:
        """Give arrays and numbers by name, for `from_arrays` elsewhere."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> "ClickIndex":
        """Make the index again from what `arrays` gave."""
        return cls(**arrays)


def index_clicks(clicks: Clicks, config: SwingConfig) -> ClickIndex:
    """
    Index clicks: columns user_id and item_id (int64) and event_time (timestamp or int64), in any order.

    Repeated clicks count once, at their latest time. Further columns are ignored.

    Args:
        clicks: one table, or chunks of it, which are dropped one by one.
        config: the caps, the seed of the user cap, the weights and the memory budget.

    Raises:
        BadClicks: a column is missing, has nulls or is no integer.
        BudgetTooSmall: the clicks cannot be indexed within ``memory_budget_gib``.
    """
    # the compiler's import takes longer than a whole small index: only those who build one pay for it
    from models.swing.csr import group, keep_first, transpose

    numbered = number_clicks(clicks, config)
    n_clicks = len(numbered.user)
    user_ids, item_ids = numbered.user_ids, numbered.item_ids
    n_items_of, n_users_capped = None, 0
    if config.max_items_per_user is not None:
        numbered, n_items_of, n_users_capped = keep_most_recent(numbered, config.max_items_per_user)
    order = np.argsort(item_ids)
    item_ids = item_ids[order]
    lists = group(numbered.user, numbered.item, len(user_ids))
    del numbered
    by_item = transpose(*lists, identity(len(user_ids)), inverse(order), len(order))
    if n_items_of is None:
        n_items_of = np.bincount(by_item[1], minlength=len(user_ids))

    n_users_of = np.diff(by_item[0])
    is_trigger = n_users_of >= (1 if config.include_self_pairs else 2)
    code_of_item = np.where(is_trigger, np.cumsum(is_trigger) - 1, -1).astype(np.int32)
    user_order = _order_of_users(user_ids, n_items_of, config)
    user_starts, user_items = transpose(*by_item, code_of_item, inverse(user_order), len(user_order))
    del by_item, lists
    item_ids = item_ids[is_trigger]
    item_starts, item_users = transpose(
        user_starts, user_items, identity(len(user_order)), identity(len(item_ids)), len(item_ids)
    )
    n_distinct, n_used, n_items_capped = int(n_items_of.sum()), int(n_users_of.sum()), 0
    most_users = config.max_users_per_item
    if most_users is not None:
        n_used = int(np.minimum(n_users_of, most_users).sum())
        n_items_capped = int(np.sum(n_users_of > most_users))
        item_starts, item_users = keep_first(item_starts, item_users, most_users)
    n_items_of = n_items_of[user_order]
    return ClickIndex(
        item_ids=item_ids,
        item_starts=item_starts,
        item_users=item_users,
        user_starts=user_starts,
        user_items=user_items,
        weights=1.0 / np.sqrt(n_items_of)
        if config.user_weight == "inverse_sqrt"
        else np.ones(len(n_items_of)),
        n_clicks=n_clicks,
        n_distinct_clicks=n_distinct,
        n_clicked_items=len(order),
        n_items_capped=n_items_capped,
        n_users_capped=n_users_capped,
        share_clicks_dropped=1.0 - n_used / n_distinct if n_distinct else 0.0,
    )


def _order_of_users(user_ids: np.ndarray, n_items_of: np.ndarray, config: SwingConfig) -> np.ndarray:
    """Give the numbers of the users, the most active first, or by hash where the user cap chooses by it."""
    if config.max_users_per_item is not None:
        return np.argsort(_hash(user_ids, config.seed))
    return np.lexsort((user_ids, -n_items_of))


def _hash(user_ids: np.ndarray, seed: int) -> np.ndarray:
    """Hash users to distinct uint64 (the finaliser of splitmix64, which is one-to-one)."""
    z = user_ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15 * (2 * seed + 1) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def identity(n: int) -> np.ndarray:
    """Give 0, 1, ... as int32."""
    return np.arange(n, dtype=np.int32)


def inverse(order: np.ndarray) -> np.ndarray:
    """Give the place of each number in ``order``, int32."""
    places = np.empty(len(order), np.int32)
    places[order] = identity(len(order))
    return places
