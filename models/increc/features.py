"""
Which numbers stand for an item's side features, a user's profile and what a history's items carry?

Every feature is hashed into buckets by a fixed function, the same in every process and on every machine.
Bucket 0 is the null bucket: what is absent has an embedding of its own.
"""

import zlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.increc.config import IncRecConfig
from models.increc.ragged import Ragged, list_lengths, one_array

Lists = pa.ListArray | pa.ChunkedArray

ID_FIELDS = {
    "category_id": "n_category_buckets",
    "author_id": "n_author_buckets",
    "brand_id": "n_brand_buckets",
}


class MissingColumn(ValueError):
    """An input table lacks a column that the model reads."""


def require_columns(table: pa.Table, names: list[str], what: str) -> None:
    """
    Check that ``table`` has the columns.

    Raises:
        MissingColumn: it lacks some of them.
    """
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise MissingColumn(
            f"{what} lacks column {', '.join(missing)}; it has {', '.join(table.column_names)}"
        )


def field_sizes(config: IncRecConfig) -> list[int]:
    """Give the number of rows of each side feature's embedding, the null bucket included."""
    sizes = [getattr(config, name) for name in ID_FIELDS.values()] + [config.n_price_buckets]
    return [size + 1 for size in sizes if size]


def side_buckets(items: pa.Table, config: IncRecConfig) -> np.ndarray:
    """
    Give each item's bucket in each side feature that is switched on, int64 [n, f], 0 = null.

    Raises:
        MissingColumn: ``items`` lacks a feature's column.
    """
    fields = [name for name, size in ID_FIELDS.items() if getattr(config, size)]
    require_columns(items, fields + (["price"] if config.n_price_buckets else []), "the item table")
    columns = [hash_buckets(items[name], getattr(config, ID_FIELDS[name])) for name in fields]
    if config.n_price_buckets:
        columns.append(price_buckets(items["price"], config.n_price_buckets))
    return np.stack(columns, axis=1) if columns else np.zeros((len(items), 0), np.int64)


def hash_buckets(ids: pa.ChunkedArray, n_buckets: int) -> np.ndarray:
    """Hash int64 ids into buckets 1..n_buckets; null gives 0."""
    hashed = splitmix64(pc.fill_null(ids, 0).cast(pa.int64()).to_numpy().astype(np.uint64))
    buckets = (hashed % np.uint64(n_buckets)).astype(np.int64) + 1
    return np.where(_is_null(ids), 0, buckets)


def splitmix64(values: np.ndarray) -> np.ndarray:
    """Mix the bits of uint64 values (Steele et al., OOPSLA 2014): neighbours land far apart."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def price_buckets(prices: pa.ChunkedArray, n_buckets: int) -> np.ndarray:
    """Cut prices at powers of two into buckets 1..n_buckets, the last open; null, NaN or negative gives 0."""
    values = pc.fill_null(prices.cast(pa.float64()), np.nan).to_numpy()
    is_price = values >= 0
    buckets = np.floor(np.log2(1 + np.where(is_price, values, 0))).clip(0, n_buckets - 1).astype(np.int64) + 1
    return np.where(is_price, buckets, 0)


def profile_buckets(profiles: pa.ListArray | pa.ChunkedArray, n_buckets: int) -> Ragged:
    """Hash each user's tokens ``name=value`` into buckets 1..n_buckets; a user without any has the one 0."""
    profiles = one_array(profiles)
    tokens = profiles.flatten().dictionary_encode()
    hashed = np.array(
        [zlib.crc32(token.encode()) % n_buckets + 1 for token in tokens.dictionary.to_pylist()], np.int64
    )
    return Ragged.from_lengths(hashed[tokens.indices.to_numpy()], list_lengths(profiles)).fill_empty(0)


def profiles_of_users(user_ids: np.ndarray, users: pa.Table, n_buckets: int) -> Ragged:
    """
    Give the profile buckets of each of ``user_ids`` int64 [n]; a user without a row has no profile.

    Raises:
        MissingColumn: ``users`` lacks user_id or profile.
    """
    require_columns(users, ["user_id", "profile"], "the user table")
    known = users["user_id"].to_numpy()
    order = np.argsort(known, kind="stable")
    buckets = profile_buckets(users["profile"], n_buckets).take(order)
    with_none = Ragged(np.append(buckets.values, 0), np.append(buckets.offsets, len(buckets.values) + 1))
    places = np.searchsorted(known[order], user_ids).clip(max=len(users) - 1)
    return with_none.take(np.where(known[order][places] == user_ids, places, len(users)))


def no_profiles(n_users: int) -> Ragged:
    """Give ``n_users`` users without a profile."""
    return Ragged.from_lengths(np.zeros(n_users, np.int64), np.ones(n_users, np.int64))


def context_buckets(
    history: Ragged,
    event_times: Lists | None,
    scenarios: Lists | None,
    now: np.ndarray | None,
    config: IncRecConfig,
) -> Ragged:
    """
    Give each history item's buckets of the time gap and the scenario: int64 [v, 2] aligned with ``history``.

    Args:
        history: v items of n users.
        event_times: when each was used, UTC; lists aligned with ``history``, None where all are unknown.
        scenarios: where each was used, likewise.
        now: the time that gaps are counted to, datetime64 of one or n; needed with ``event_times``.
        config: the numbers of buckets.

    Raises:
        ValueError: lists are not aligned with the history, or times come without ``now``.
    """
    context = np.zeros((len(history.values), 2), np.int64)
    if event_times is not None and config.n_gap_buckets:
        if now is None:
            raise ValueError(
                "the history has event times but there is no time now to count gaps to; give now"
            )
        times = (
            _aligned(event_times, history, "event times")
            .cast(pa.timestamp("us"))
            .to_numpy(zero_copy_only=False)
        )
        until = np.broadcast_to(now, len(history))[history.owners()]
        context[:, 0] = gap_buckets(until - times, config.n_gap_buckets)
    if scenarios is not None and config.n_scenario_buckets:
        context[:, 1] = token_buckets(_aligned(scenarios, history, "scenarios"), config.n_scenario_buckets)
    return Ragged(context, history.offsets)


def no_context(n_users: int) -> Ragged:
    """Give the histories of ``n_users`` users for a backbone that reads no context: nothing."""
    return Ragged(np.zeros((0, 2), np.int64), np.zeros(n_users + 1, np.int64))


def gap_buckets(gaps: np.ndarray, n_buckets: int) -> np.ndarray:
    """
    Cut timedelta64 gaps at powers of two of seconds into buckets 1..n_buckets, the last open.

    A gap below zero counts as none; NaT, an unknown one, gives 0.
    """
    is_known = ~np.isnat(gaps)
    seconds = (
        np.where(is_known, gaps, np.timedelta64(0, "us"))
        .astype("timedelta64[s]")
        .astype(np.int64)
        .clip(min=0)
    )
    buckets = np.floor(np.log2(1 + seconds)).astype(np.int64).clip(max=n_buckets - 1) + 1
    return np.where(is_known, buckets, 0)


def token_buckets(tokens: pa.Array, n_buckets: int) -> np.ndarray:
    """Hash texts into buckets 1..n_buckets; null or the empty text gives 0."""
    encoded = pc.fill_null(tokens, "").dictionary_encode()
    hashed = [
        zlib.crc32(token.encode()) % n_buckets + 1 if token else 0 for token in encoded.dictionary.to_pylist()
    ]
    return np.array(hashed, np.int64)[encoded.indices.to_numpy()]


def _aligned(lists: Lists, history: Ragged, what: str) -> pa.Array:
    """Give the values of the lists. Raises ValueError where their lengths are not those of the histories."""
    lists = one_array(lists)
    if len(lists) != len(history):
        raise ValueError(f"{len(history)} histories but {len(lists)} lists of {what}: one of each per user")
    differs = list_lengths(lists) != history.lengths
    if differs.any():
        at = int(differs.argmax())
        raise ValueError(
            f"history {at} has {history.lengths[at]} items but {list_lengths(lists)[at]} {what}: "
            "give one for each item"
        )
    return lists.flatten()


def _is_null(column: pa.ChunkedArray) -> np.ndarray:
    return pc.is_null(column).to_numpy()
