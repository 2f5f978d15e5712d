"""
Which visits does a queue keep? The last N of one user in one scenario, as packed bytes (Eq. 5).

A state is int64 words, little-endian: the format, n visits, then (event_time, request_id, n items) of each
visit, newest first, then each visit's item ids followed by its categories. Visits are ordered by (event_time,
request_id): a queue is the N newest of all that were ever put in, whatever the order of arrival. What a
smaller N no longer counts leaves with the next visit.
"""

import enum

import numpy as np
from numba import njit

from models.mnr.config import MNRConfig
from models.mnr.visit import Visit

FORMAT = 0x4D4E520001  # "MNR", version 1
HEADER = 2  # words: format, n visits
ENTRY = 3  # words of a visit's entry: event_time, request_id, n items

_WORD = np.dtype("<i8")
_EMPTY = np.array([FORMAT, 0], _WORD).tobytes()


class Outcome(enum.IntEnum):
    """What became of a visit."""

    KEPT = 0
    DUPLICATE = 1
    """Its request is in the queue already."""
    TOO_OLD = 2
    """The queue is full of newer ones."""
    EMPTY = 3
    """Its ranking has no item that counts."""


class BadState(ValueError):
    """Bytes that are no queue of this version."""


def insert(state: bytes | None, visit: Visit, config: MNRConfig) -> tuple[bytes, Outcome]:
    """
    Put a visit into a queue; give the queue, the same bytes unless the outcome is ``KEPT``.

    Args:
        state: of an earlier call; None for no visits yet.
        visit: of ``clean_ranking``.
        config: MNR's hyperparameters.

    Raises:
        BadState: ``state`` is none of this version.
    """
    words = words_of(state or _EMPTY)
    if not len(visit.item_ids):
        return state or _EMPTY, Outcome.EMPTY
    outcome, changed = _inserted(
        words, visit.event_time, visit.request_id, visit.item_ids, visit.category_ids, config.n_visits
    )
    if outcome != Outcome.KEPT:
        return state or _EMPTY, Outcome(outcome)
    return changed.tobytes(), Outcome.KEPT


def newest_time(state: bytes | None) -> int | None:
    """Give the newest visit's time, microseconds since 1970; None for an empty queue."""
    if not state:
        return None
    words = words_of(state)
    return int(words[HEADER]) if words[1] else None


def unpack(state: bytes | None) -> list[Visit]:
    """List a queue's visits, newest first."""
    words = words_of(state or _EMPTY)
    n_visits = int(words[1])
    at = HEADER + ENTRY * n_visits
    visits = []
    for time, request, n in words[HEADER:at].reshape(n_visits, ENTRY).tolist():
        visits.append(Visit(request, time, words[at : at + n], words[at + n : at + 2 * n]))
        at += 2 * n
    return visits


def words_of(state: bytes) -> np.ndarray:
    """
    Give a state's words without a copy.

    Raises:
        BadState: other bytes.
    """
    words = np.frombuffer(state, _WORD) if len(state) % _WORD.itemsize == 0 else np.empty(0, _WORD)
    if len(words) < HEADER or words[0] != FORMAT or not _is_whole(words):
        raise BadState(f"{len(state)} bytes are no queue of MNR's version {FORMAT & 0xFF}")
    return words


@njit(cache=True, nogil=True)
def _is_whole(words):
    """Tell whether a state is exactly as long as its entries say."""
    n_visits = words[1]
    if n_visits < 0 or n_visits > len(words) // ENTRY:
        return False
    end = HEADER + ENTRY * n_visits
    if end > len(words):
        return False
    for visit in range(n_visits):
        n = words[HEADER + ENTRY * visit + 2]
        if n < 0 or n > len(words):
            return False
        end += 2 * n
    return end == len(words)


@njit(cache=True, nogil=True)
def _inserted(words, event_time, request_id, items, categories, n_most):
    """Give (outcome, new words), none where nothing changes."""
    n_visits = words[1]
    place = 0
    n_kept_words = 0
    for visit in range(n_visits):
        entry = HEADER + ENTRY * visit
        if words[entry + 1] == request_id:
            return 1, np.empty(0, np.int64)
        is_newer = words[entry] > event_time or (words[entry] == event_time and words[entry + 1] > request_id)
        if is_newer:
            place = visit + 1
    if place >= n_most:
        return 2, np.empty(0, np.int64)
    n_after = min(n_visits + 1, n_most)
    for visit in range(n_after - 1):
        n_kept_words += 2 * words[HEADER + ENTRY * visit + 2]
    n_items = len(items)
    new = np.empty(HEADER + ENTRY * n_after + n_kept_words + 2 * n_items, np.int64)
    new[0], new[1] = words[0], n_after
    source = HEADER + ENTRY * n_visits
    target = HEADER + ENTRY * n_after
    visit = 0
    for after in range(n_after):
        entry = HEADER + ENTRY * after
        if after == place:
            new[entry], new[entry + 1], new[entry + 2] = event_time, request_id, n_items
            new[target : target + n_items] = items
            new[target + n_items : target + 2 * n_items] = categories
            target += 2 * n_items
            continue
        n = words[HEADER + ENTRY * visit + 2]
        new[entry : entry + ENTRY] = words[HEADER + ENTRY * visit : HEADER + ENTRY * (visit + 1)]
        new[target : target + 2 * n] = words[source : source + 2 * n]
        source += 2 * n
        target += 2 * n
        visit += 1
    return 0, new
