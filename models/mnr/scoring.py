"""
Which k items of a queue come first? Eq. 6, best score per item, dispersal over categories.

    finalScore = alpha / (alpha + rank_index) * beta / (beta + time_index)

Along one visit scores only fall, so a merge of the visits meets the items in falling order: an item's first
place is its best one, ties go to the smaller (time_index, rank_index), and the walk ends at k. The ablations
replace the score: ``fifo`` keeps the time factor alone, ``random`` none; chance, drawn from the seed, the
newest request and the item, takes the rank's part. Shapes: n visits, newest first; k items of the list.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from models.mnr.config import MNRConfig
from models.mnr.queue import ENTRY, HEADER, words_of
from models.mnr.visit import NO_CATEGORY, add_to, mixed, table_size

SCORE, FIFO, RANDOM = range(3)
ORDERS = {"score": SCORE, "fifo": FIFO, "random": RANDOM}

_NO_LIMIT = np.iinfo(np.int64).max


class Scored(NamedTuple):
    """Candidates: ids int64 [m], scores float32 [m], best first, m <= k."""

    item_ids: np.ndarray
    scores: np.ndarray


def score(state: bytes | None, config: MNRConfig) -> Scored:
    """
    Give the candidates of one queue; of none, no candidates.

    Raises:
        BadState: ``state`` is no queue.
    """
    if not state:
        return Scored(np.empty(0, np.int64), np.empty(0, np.float32))
    return Scored(*_score_words(words_of(state), *constants(config)))


def constants(config: MNRConfig) -> tuple:
    """Give what kernels take of the configuration."""
    limit = _NO_LIMIT if config.max_per_category is None else config.max_per_category
    idle = config.idle_seconds * 1_000_000
    return (
        config.n_visits,
        idle,
        config.alpha,
        config.beta,
        limit,
        config.k,
        ORDERS[config.order],
        config.seed,
    )


@njit(cache=True, nogil=True)
def _score_words(words, n_most, idle, alpha, beta, limit, k, order, seed):
    n_visits = min(words[1], n_most)
    times, requests = np.empty(n_visits, np.int64), np.empty(n_visits, np.int64)
    lengths, starts, category_starts = np.empty_like(times), np.empty_like(times), np.empty_like(times)
    at = HEADER + ENTRY * words[1]
    for visit in range(n_visits):
        entry = HEADER + ENTRY * visit
        times[visit], requests[visit], lengths[visit] = words[entry], words[entry + 1], words[entry + 2]
        starts[visit] = at
        category_starts[visit] = at + lengths[visit]
        at += 2 * lengths[visit]
    n_visits = n_before_pause(times, idle)
    request = requests[0] if n_visits else 0
    return merge(
        words, words, starts[:n_visits], category_starts[:n_visits], lengths[:n_visits],
        request, alpha, beta, limit, k, order, seed,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def n_before_pause(times, idle):
    """Give how many visits, newest first, follow each other without a pause of ``idle`` microseconds."""
    for visit in range(1, len(times)):
        if times[visit - 1] - times[visit] >= idle:
            return visit
    return len(times)


@njit(cache=True, nogil=True)
def merge(
    items, categories, starts, category_starts, lengths, request, alpha, beta, limit, k, order, seed
):  # fmt: skip
    """
    Merge visits into (ids int64 [m], scores float32 [m]).

    Args:
        items: int64, all visits' ranked ids; ``starts`` int64 [n] says where each visit's begin.
        categories: int64, their categories, from ``category_starts`` int64 [n] on.
        lengths: int64 [n].
        request: the newest visit's, of which chance is drawn.
        alpha, beta, limit, k, order, seed: of ``constants``.
    """
    n_visits = len(starts)
    most = min(k, lengths.sum())
    ids, scores = np.empty(most, np.int64), np.empty(most, np.float32)
    seen = np.full(table_size(2 * most), -1, np.int64)
    n_seen = 0
    counted = np.full(table_size(most), NO_CATEGORY, np.int64)
    counts = np.zeros(len(counted), np.int64)
    salt = mixed(np.uint64(seed) ^ mixed(np.uint64(request)))
    places = np.zeros(n_visits, np.int64)
    heads = np.full(n_visits, -1.0)
    sequence = sequences(items, starts, lengths, salt, order)
    for visit in range(n_visits):
        heads[visit] = head(items, starts, lengths, sequence, places, visit, alpha, beta, salt, order)
    n = 0
    while n < most:
        best = 0
        for visit in range(1, n_visits):
            if heads[visit] > heads[best]:
                best = visit
        value = heads[best]
        if value < 0:
            break
        place = sequence[best, places[best]] if order != SCORE else places[best]
        item, category = items[starts[best] + place], categories[category_starts[best] + place]
        places[best] += 1
        heads[best] = head(items, starts, lengths, sequence, places, best, alpha, beta, salt, order)
        if not add_to(seen, item):
            continue
        n_seen += 1
        if 2 * n_seen > len(seen):
            seen = grown(seen)
        if category != NO_CATEGORY and not count(counted, counts, category, limit):
            continue
        ids[n], scores[n] = item, value
        n += 1
    return ids[:n], scores[:n]


@njit(cache=True, nogil=True)
def sequences(items, starts, lengths, salt, order):
    """Give the order in which a visit's places are met, int64 [n, longest]; empty where the rank decides."""
    if order == SCORE or not len(lengths):
        return np.empty((0, 0), np.int64)
    sequence = np.empty((len(lengths), lengths.max()), np.int64)
    for visit in range(len(lengths)):
        n = lengths[visit]
        chances = np.empty(n)
        for place in range(n):
            chances[place] = -chance(items[starts[visit] + place], salt)
        sequence[visit, :n] = np.argsort(chances, kind="mergesort")
    return sequence


@njit(cache=True, nogil=True)
def head(items, starts, lengths, sequence, places, visit, alpha, beta, salt, order):
    """Give the score of a visit's next item; -1 past its last."""
    place = places[visit]
    if place >= lengths[visit]:
        return -1.0
    if order == SCORE:
        return (alpha / (alpha + place)) * (beta / (beta + visit))
    if order == FIFO:
        return beta / (beta + visit)
    return chance(items[starts[visit] + sequence[visit, place]], salt)


@njit(cache=True, nogil=True)
def chance(item, salt):
    """Draw an item's number in [0, 1)."""
    return (mixed(np.uint64(item) ^ salt) >> np.uint64(11)) * 2.0**-53


@njit(cache=True, nogil=True)
def count(counted, counts, category, limit):
    """Count one more item of a category; tell whether it is within the limit."""
    mask = len(counted) - 1
    slot = np.int64(mixed(np.uint64(category)) & np.uint64(mask))
    while counted[slot] >= 0 and counted[slot] != category:
        slot = (slot + 1) & mask
    if counts[slot] >= limit:
        return False
    counted[slot] = category
    counts[slot] += 1
    return True


@njit(cache=True, nogil=True)
def grown(slots):
    """Give the same hash set with twice the slots."""
    larger = np.full(2 * len(slots), -1, np.int64)
    for key in slots:
        if key >= 0:
            add_to(larger, key)
    return larger
