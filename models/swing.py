"""
Which items does each item lead to? The Swing index (PI2I Eq. 2-4).

    s(i, j) = sum over u, v in Ui ∩ Uj of  w_u * w_v / (alpha + |Iu ∩ Iv|),   w_u = 1 / sqrt(|Iu|)

Ui are the users who clicked i, Iu the distinct items that u clicked. The sum runs over ordered pairs, so
every pair of users counts twice. ``u = v`` is no swing, which needs two users, and is left out unless
``include_self_pairs`` reads Eq. 3 literally. ``w_u`` always uses the full Iu; a click that
``max_items_per_user`` drops leaves Iu in the intersection, and Ui, everywhere else. Without a cap the
index is exact; the same clicks in any order, at any number of threads, give the same bytes.
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from models.threads import map_in_threads, thread_count

I2I_SCHEMA = pa.schema(
    [
        pa.field("trigger_item_id", pa.int64(), nullable=False),
        pa.field("target_item_id", pa.int64(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("n_common_users", pa.int32(), nullable=False),
    ]
)

ROWS_PER_PIECE = 1 << 20
PIECES_PER_THREAD = 32


class BadClicks(ValueError):
    """The click table cannot be indexed."""


class SwingConfig(BaseModel):
    """Options of the Swing index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(1.0, ge=0, allow_inf_nan=False, description="smoothing of Eq. 2: added to |Iu ∩ Iv|")
    truncation: int = Field(1250, ge=1, description="T: targets kept per trigger")
    user_weight: Literal["inverse_sqrt", "none"] = Field(
        "inverse_sqrt", description="w_u: inverse_sqrt damps active users (Eq. 3), none is Eq. 2"
    )
    include_self_pairs: bool = Field(
        False, description="also add u = v, so that one shared user links two items; for very sparse logs"
    )
    max_users_per_item: int | None = Field(
        None,
        ge=2,
        description="users kept per trigger, chosen by a seeded hash; makes scores asymmetric; none: all",
    )
    max_items_per_user: int | None = Field(
        None, ge=2, description="most recent items kept per user (ties by item id); none: all"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the hash of users")
    n_threads: int = Field(0, ge=0, description="threads, 0 for one per CPU; never changes the result")


@dataclass(frozen=True)
class SwingReport:
    """What went into one Swing index and what came out."""

    n_clicks: int
    """Rows of the click table."""
    n_distinct_clicks: int
    """Distinct (user, item) pairs in it."""
    n_users: int
    n_items: int
    n_triggers: int
    """Items with at least one target."""
    n_rows: int
    n_items_capped: int
    """Triggers that lost users to ``max_users_per_item``."""
    n_users_capped: int
    """Users who lost items to ``max_items_per_user``."""
    share_clicks_dropped: float
    """Share of the distinct clicks that a cap kept from counting for their trigger."""
    mean_targets: float
    """Mean number of targets per trigger; 0 without triggers."""
    median_targets: float
    n_triggers_truncated: int
    """Triggers with exactly T targets, where truncation may have cut some."""
    seconds: float


def build_i2i_table(clicks: pa.Table, config: SwingConfig) -> tuple[pa.Table, SwingReport]:
    """
    Build the i2i table of a window's clicks.

    Args:
        clicks: columns user_id and item_id (int64) and event_time (timestamp or int64); rows in any order,
            repeated clicks count once, at their latest time. Further columns are ignored.
        config: the options.

    Returns:
        The i2i table (``I2I_SCHEMA``), by trigger and 1-based rank, ties by target id, scores rounded to
        40 significant bits; n_common_users counts the trigger's users, after the caps. And its report.

    Raises:
        BadClicks: a column is missing or has nulls.
    """
    # the compiler's import takes longer than a whole small index: only those who build one pay for it
    from models.swing_kernel import swing_rows

    started = time.perf_counter()
    pairs = _distinct_pairs(clicks)
    n_users, n_items = len(pairs.user_ids), len(pairs.item_ids)
    n_items_of = np.bincount(pairs.user, minlength=n_users)
    weights = 1.0 / np.sqrt(n_items_of) if config.user_weight == "inverse_sqrt" else np.ones(n_users)

    is_recent = _first_of_each(pairs.user, (pairs.item, -pairs.time), config.max_items_per_user)
    user, item = pairs.user[is_recent], pairs.item[is_recent]
    user_starts, user_items = _starts(user, n_users), item

    is_chosen = _first_of_each(item, (_hash(pairs.user_ids, config.seed)[user],), config.max_users_per_item)
    by_item = np.flatnonzero(is_chosen)[np.argsort(item[is_chosen], kind="stable")]
    item_starts, item_users = _starts(item[by_item], n_items), user[by_item]

    def rank_targets(piece: tuple[int, int]) -> pa.RecordBatch:
        lists = (item_starts, item_users, user_starts, user_items)
        options = (config.alpha, config.truncation, config.include_self_pairs)
        return _rows(piece, pairs.item_ids, swing_rows(piece, lists, weights, *options))

    pieces = _pieces(item_starts, item_users, user_starts, config)
    batches = map_in_threads(rank_targets, pieces, n_threads=config.n_threads)
    table = pa.Table.from_batches(
        [batch for _, batch in sorted(zip(pieces, batches, strict=True))], I2I_SCHEMA
    )

    n_users_of = np.bincount(item, minlength=n_items)
    n_targets = np.diff(np.flatnonzero(np.diff(table["trigger_item_id"].to_numpy(), prepend=-1, append=-1)))
    report = SwingReport(
        n_clicks=clicks.num_rows,
        n_distinct_clicks=len(pairs.user),
        n_users=n_users,
        n_items=n_items,
        n_triggers=len(n_targets),
        n_rows=table.num_rows,
        n_items_capped=int(np.sum(n_users_of > np.diff(item_starts))),
        n_users_capped=int(np.sum(n_items_of > np.diff(user_starts))),
        share_clicks_dropped=1.0 - len(item_users) / len(pairs.user) if len(pairs.user) else 0.0,
        mean_targets=float(np.mean(n_targets)) if len(n_targets) else 0.0,
        median_targets=float(np.median(n_targets)) if len(n_targets) else 0.0,
        n_triggers_truncated=int(np.sum(n_targets == config.truncation)),
        seconds=time.perf_counter() - started,
    )
    return table, report


@dataclass(frozen=True)
class _Pairs:
    """Distinct (user, item) clicks by user, item: codes int32 into the sorted ids, latest time int64."""

    user_ids: np.ndarray
    item_ids: np.ndarray
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray


def _distinct_pairs(clicks: pa.Table) -> _Pairs:
    columns = []
    for name in ("user_id", "item_id", "event_time"):
        if name not in clicks.column_names:
            raise BadClicks(f"clicks have no column {name}, only {', '.join(clicks.column_names)}")
        if clicks[name].null_count:
            raise BadClicks(
                f"clicks have {clicks[name].null_count} nulls in {name}; quarantine such rows first"
            )
        columns.append(clicks[name].cast(pa.int64()).to_numpy())
    user_ids, user = np.unique(columns[0], return_inverse=True)
    item_ids, item = np.unique(columns[1], return_inverse=True)
    pair = user * len(item_ids) + item
    order = np.lexsort((columns[2], pair))
    is_latest = np.append(np.diff(pair[order]) != 0, True)[: len(order)]
    order = order[is_latest]
    return _Pairs(
        user_ids, item_ids, user[order].astype(np.int32), item[order].astype(np.int32), columns[2][order]
    )


def _first_of_each(group: np.ndarray, keys: tuple[np.ndarray, ...], most: int | None) -> np.ndarray:
    """Mark the first ``most`` rows of every group, in the order of ``keys`` (the last key leads)."""
    if most is None:
        return np.ones(len(group), bool)
    order = np.lexsort((*keys, group))
    place = np.arange(len(group)) - _starts(group[order], int(group.max(initial=-1)) + 1)[group[order]]
    is_kept = np.empty(len(group), bool)
    is_kept[order] = place < most
    return is_kept


def _starts(sorted_groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Give where each group starts in ``sorted_groups``, int64 [n_groups + 1]."""
    return np.searchsorted(sorted_groups, np.arange(n_groups + 1)).astype(np.int64)


def _hash(user_ids: np.ndarray, seed: int) -> np.ndarray:
    """Hash users to distinct uint64 (the finaliser of splitmix64, which is one-to-one)."""
    z = user_ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15 * (2 * seed + 1) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _pieces(
    item_starts: np.ndarray, item_users: np.ndarray, user_starts: np.ndarray, config: SwingConfig
) -> list[tuple[int, int]]:
    """
    Cut the triggers into ranges of like cost and bounded output, the most costly first.

    The cost of a trigger is estimated as |Ui| times the clicks of its users.
    """
    n_items = len(item_starts) - 1
    n_clicks = np.concatenate(([0], np.cumsum(np.diff(user_starts)[item_users])))[item_starts]
    cost = np.concatenate(([0.0], np.cumsum(np.diff(item_starts) * np.diff(n_clicks).astype(np.float64))))
    n_shares = thread_count(config.n_threads) * PIECES_PER_THREAD
    equal_shares = np.searchsorted(cost, cost[-1] * np.arange(1, n_shares) / n_shares)
    bounded_rows = np.arange(0, n_items, max(1, ROWS_PER_PIECE // min(config.truncation, max(1, n_items))))
    cuts = np.unique(np.concatenate((equal_shares, bounded_rows, [0, n_items])))
    pieces = [(int(first), int(last)) for first, last in pairwise(cuts)]
    return sorted(pieces, key=lambda piece: cost[piece[0]] - cost[piece[1]])


def _rows(
    piece: tuple[int, int],
    item_ids: np.ndarray,
    ranked: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> pa.RecordBatch:
    """Give what ``swing_rows`` returned for the triggers of ``piece`` as rows of the i2i table."""
    n_targets, target, score, n_common_users = ranked
    trigger = np.repeat(np.arange(*piece), n_targets)
    rank = np.arange(1, len(target) + 1) - np.repeat(np.cumsum(n_targets) - n_targets, n_targets)
    columns = (item_ids[trigger], item_ids[target], score, rank.astype(np.int32), n_common_users)
    return pa.record_batch([pa.array(column) for column in columns], schema=I2I_SCHEMA)
