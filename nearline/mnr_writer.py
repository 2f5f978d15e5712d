"""
When do lists reach the online store? They are gathered and written together, until the store has them.

A list that waits is lost with its process, so the job sets a timer of its key as well; a timer outlives a
kill. ``settle`` is what a timer asks: has this key been written, or does its list have to be made again?
"""

import time
from collections.abc import Callable
from enum import Enum

import numpy as np

from models.mnr import Scored
from nearline.mnr_lists import RELEASE, list_name
from nearline.store import OnlineStore, StoreUnavailable

RETRY_SECONDS = 1.0
PADDING = -1


class Settled(Enum):
    """What a key's timer finds."""

    WRITTEN = "written"
    """The store has the key's list: it was written since."""
    UNKNOWN = "unknown"
    """Nothing of the key waits and nothing was written: the process is younger than the timer."""
    WAITING = "waiting"
    """The store is away; the key's list still waits."""


class ListWriter:
    """Lists on their way into the store, the newest of each key."""

    def __init__(self, open_store: Callable[[], OnlineStore], clock: Callable[[], float] = time.monotonic):
        """Open nothing yet: a store that is away may come."""
        self._open_store = open_store
        self._clock = clock
        self._store: OnlineStore | None = None
        self._waiting: dict[str, tuple[str, int, int, Scored]] = {}
        self._written: set[str] = set()
        self._next_try = 0.0
        self.n_written = 0
        self.n_failures = 0
        self.last_failure = ""

    def put(self, key: str, scenario: str, user_id: int, event_time: int, scored: Scored) -> None:
        """Let a list wait; ``event_time`` is its newest visit's, microseconds since 1970."""
        self._waiting[key] = (scenario, user_id, event_time, scored)
        self._written.discard(key)

    def settle(self, key: str) -> Settled:
        """Answer a key's timer; writes what waits if the key does."""
        if key in self._waiting:
            if not self.write():
                return Settled.WAITING
            self._written.discard(key)
            return Settled.WRITTEN
        if key in self._written:
            self._written.discard(key)
            return Settled.WRITTEN
        return Settled.UNKNOWN

    def write(self) -> bool:
        """Write all that waits; False while the store is away, which is looked at again after a second."""
        if self._waiting and self._clock() < self._next_try:
            return False
        by_scenario: dict[str, list[str]] = {}
        for key, (scenario, *_) in self._waiting.items():
            by_scenario.setdefault(scenario, []).append(key)
        try:
            self._store = self._store or self._open_store()
            for scenario, keys in by_scenario.items():
                self._write_list(scenario, [self._waiting[key][1:] for key in keys])
                for key in keys:
                    del self._waiting[key]
                self._written.update(keys)
                self.n_written += len(keys)
        except StoreUnavailable as error:
            self.n_failures += 1
            self.last_failure = str(error)
            self._next_try = self._clock() + RETRY_SECONDS
            return False
        return True

    def close(self) -> None:
        """Let go of the store."""
        if self._store:
            self._store.close()

    def _write_list(self, scenario: str, rows: list[tuple[int, int, Scored]]) -> None:
        longest = max(len(scored.item_ids) for _, _, scored in rows)
        items = np.full((len(rows), longest), PADDING, np.int64)
        scores = np.zeros((len(rows), longest), np.float32)
        for row, (_, _, scored) in enumerate(rows):
            items[row, : len(scored.item_ids)] = scored.item_ids
            scores[row, : len(scored.item_ids)] = scored.scores
        self._store.write_many(
            list_name(scenario),
            np.array([user for user, _, _ in rows], np.int64),
            items,
            scores,
            release=RELEASE,
            event_times=np.array([time for _, time, _ in rows], "datetime64[us]"),
        )
