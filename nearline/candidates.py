"""
What does an online store keep of one user: candidates, and clicks?

Of candidates: ids and scores as packed little-endian bytes without padding, the release that made them, the
event time that they reflect, in microseconds since 1970, and the revision of the clicks behind them (0 where
there are none). Of clicks: the newest distinct items. Shapes: n users, K candidates.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np

PADDING = -1
LIST_NAME = re.compile(r"[A-Za-z0-9@._-]+")

_EPOCH = np.datetime64(0, "us")


class StoreUnavailable(ConnectionError):
    """The online store does not answer; the message names it and what to do."""


@dataclass(frozen=True)
class Candidates:
    """One user's candidates: ids int64 [k] and scores float32 [k], best first; the time is UTC."""

    item_ids: np.ndarray
    scores: np.ndarray
    release: str
    event_time: datetime


@dataclass(frozen=True)
class ClickedItems:
    """
    A user's newest distinct clicked items, oldest first (ties by item id).

    ``item_ids`` int64 [c], ``event_times`` int64 [c], microseconds since 1970. ``revision`` grows with every
    change; ``n_changed`` of them are new or clicked later than before the last call.
    """

    item_ids: np.ndarray
    event_times: np.ndarray
    revision: int
    n_changed: int


@dataclass(frozen=True)
class PackedRow:
    """One user's candidates as they are stored."""

    user_id: int
    event_time: int
    revision: int
    item_ids: bytes
    scores: bytes


def pack_rows(
    list_name: str,
    user_ids: np.ndarray,
    item_ids: np.ndarray,
    scores: np.ndarray,
    event_times: datetime | np.ndarray,
    revisions: int | np.ndarray,
) -> Iterator[PackedRow]:
    """
    Pack users [n], items [n, K] padded at the end with -1 and scores [n, K].

    Raises:
        ValueError: a list name with other characters, or arrays that do not fit each other.
    """
    if not LIST_NAME.fullmatch(list_name):
        raise ValueError(f"{list_name!r} cannot name a list: letters, digits, '@', '.', '_' and '-' only")
    if item_ids.ndim != 2 or item_ids.shape != scores.shape or user_ids.shape != item_ids.shape[:1]:
        shapes = f"{user_ids.shape} users, {item_ids.shape} items, {scores.shape} scores"
        raise ValueError(f"list {list_name}: arrays do not fit each other: {shapes}")
    times = np.broadcast_to(np.asarray(event_times, "datetime64[us]"), user_ids.shape)
    counts = np.broadcast_to(np.asarray(revisions, np.int64), user_ids.shape)
    return _rows(user_ids, item_ids, scores, (times - _EPOCH).astype(np.int64), counts)


def unpack(event_time: int, release: str, item_ids: bytes, scores: bytes) -> Candidates:
    """Give back what ``pack_rows`` packed."""
    time = (_EPOCH + np.timedelta64(event_time, "us")).item()
    return Candidates(np.frombuffer(item_ids, "<i8"), np.frombuffer(scores, "<f4"), release, time)


def microseconds(time: datetime) -> int:
    """Give a UTC time without a zone in microseconds since 1970."""
    return int((np.datetime64(time, "us") - _EPOCH).astype(np.int64))


def _rows(
    user_ids: np.ndarray, item_ids: np.ndarray, scores: np.ndarray, times: np.ndarray, revisions: np.ndarray
) -> Iterator[PackedRow]:
    width = item_ids.shape[1]
    lengths = (item_ids != PADDING).sum(axis=1).tolist()
    ids = np.ascontiguousarray(item_ids, "<i8").tobytes()
    values = np.ascontiguousarray(scores, "<f4").tobytes()
    columns = zip(user_ids.tolist(), times.tolist(), revisions.tolist(), lengths, strict=True)
    for row, (user, time, revision, n) in enumerate(columns):
        first, last = row * width, row * width + n
        yield PackedRow(user, time, revision, ids[8 * first : 8 * last], values[4 * first : 4 * last])
