"""
What are the candidates of a user, right now?

The online store maps (list, user) to candidates with their scores, the release that made them and the
event time that they reflect. A write with an older event time never wins, whatever order writes arrive
in; one with the same event time does, so that a retry is harmless. ``sqlite:///file`` is the default,
``redis://host:port/db`` the deployment's (``?prefix=name`` shares one server).

The store also keeps the *serving record*: which lists belong to the served release. Publishing loads a
release under list names of its own and then replaces that record, so that no reader ever sees half of two
releases. All times are UTC without a zone.

Between releases it keeps what users have clicked. `note_clicks` is one step in the store and gives the same
whatever order clicks arrive in and however often, with a revision that grows with each change; a list made
from an older revision of the same event time does not win either. So any number of processes may take clicks
of one user without a lock, and the list that stays is the one made from all of them.
"""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import numpy as np

from nearline.candidates import Candidates, ClickedItems, StoreUnavailable
from nearline.redis_connection import without_password
from nearline.redis_store import RedisStore
from nearline.sqlite_store import SqliteStore

__all__ = [
    "Candidates",
    "ClickedItems",
    "OnlineStore",
    "StoreUnavailable",
    "UnknownStore",
    "open_store",
    "read_served",
]


class UnknownStore(ValueError):
    """The URL names no kind of online store."""


class OnlineStore(Protocol):
    """What every online store does."""

    def write_many(
        self,
        list_name: str,
        user_ids: np.ndarray,
        item_ids: np.ndarray,
        scores: np.ndarray,
        *,
        release: str,
        event_times: datetime | np.ndarray,
        revisions: int | np.ndarray = 0,
    ) -> int:
        """
        Write one list of many users; give the number of users whose candidates it replaced.

        Shapes: user_ids int64 [n], item_ids int64 [n, K] best first and padded at the end with -1, scores
        float32 [n, K], event_times one time or datetime64 [n], revisions one or int64 [n].
        """

    def read(self, list_name: str, user_id: int) -> Candidates | None:
        """Give the user's candidates of one list; None when there are none."""

    def drop(self, list_name: str) -> None:
        """Forget a whole list."""

    def forget_before(self, list_name: str, time: datetime) -> int:
        """Take away the candidates of a list with an earlier event time; give the number of users."""

    def list_names(self) -> set[str]:
        """Name every list that the store holds."""

    def note_clicks(
        self, user_id: int, clicks: Iterable[tuple[int, int]], *, keep: int, keep_seconds: int
    ) -> ClickedItems:
        """
        Add clicks, as (item id, event time in microseconds), to what the user clicked; give all of it.

        Of an item the newest click counts, and the ``keep`` items clicked last stay. All of a user's are
        forgotten ``keep_seconds`` after the last call for them.
        """

    def serve(self, record: dict[str, object]) -> None:
        """Replace the serving record; ``record["lists"]`` maps a list to its name in this store."""

    def serving(self) -> dict[str, object] | None:
        """Give the serving record; None before the first release."""

    def close(self) -> None:
        """Let go of the connection."""


def open_store(url: str) -> OnlineStore:
    """
    Open the online store that ``url`` names.

    Raises:
        UnknownStore: the URL is neither ``sqlite:///file`` nor ``redis[s]://host:port/db``.
        StoreUnavailable: it does not answer.
    """
    path = url.removeprefix("sqlite:///")
    if path and path != url:
        return SqliteStore(Path(path))
    try:
        if urlsplit(url).scheme in ("redis", "rediss"):
            return RedisStore(url)
    except ValueError as error:
        raise UnknownStore(
            f"online_store_url {without_password(url)!r} is no URL of Redis: {error}"
        ) from error
    raise UnknownStore(
        f"online_store_url {without_password(url)!r} names no online store: "
        "use sqlite:///file or redis://host:port/db"
    )


def read_served(store: OnlineStore, user_id: int, list_name: str = "merged") -> Candidates | None:
    """Give the user's candidates from the served release; None when it has none for this user."""
    record = store.serving()
    while True:
        name = record and record["lists"].get(list_name)
        found = store.read(name, user_id) if name else None
        newest = record if found else store.serving()
        if newest == record:
            return found
        # Two publications went by between the two reads, and with the second one this list.
        record = newest
