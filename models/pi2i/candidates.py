"""
Which candidates do a user's triggers reach, by which of them, and how? E_cross and the trigger masks.

A candidate is an item in the target list of at least one trigger and not in the history. Triggers are
numbered by recency, 0 the newest; bit r of a candidate's mask is set where trigger r reaches it.
"""

import numpy as np
from numba import njit

from models.pi2i.trigger_index import TINY

N_CROSS = 9
"""
Cross features of a candidate, float32: log(1 + number of triggers), log of the sum of their Swing scores, log
of the largest one, log of the best rank, log(1 + largest number of common users), log(1 + their sum), log(1 +
recency of the newest trigger), log of the sum of scores weighted exp(-0.05 recency), and the mean difference
of log prices (0 where prices are missing).
"""

DECAY = 0.05

# The place of a lone bit: the top six bits of its product with a de Bruijn sequence tell 64 places apart.
DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
PLACE_OF_BIT = np.empty(64, np.int64)
PLACE_OF_BIT[[(int(DE_BRUIJN) << place & 2**64 - 1) >> 58 for place in range(64)]] = np.arange(64)


def scratch(n_items: int) -> tuple[np.ndarray, ...]:
    """Give the working memory of ``reach`` for a table of ``n_items`` item codes."""
    return (
        np.full(n_items, -1, np.int64),  # row that reached the item last
        np.full(n_items, -1, np.int64),  # row that has the item in its history
        np.empty(n_items, np.int32),  # place among the row's candidates
        np.empty(n_items, np.int32),  # codes of the row's candidates, in the order reached
        np.empty((n_items, 2), np.uint64),  # masks
        np.empty((n_items, N_CROSS), np.float64),  # sums behind the cross features
        np.empty(n_items, np.float64),  # sum of 1 / |targets(t)|, which q is made of
        np.zeros(-(-n_items // 64), np.uint64),  # a bit per item, for ``gather``; none is left set
    )


@njit(cache=True, nogil=True)
def reach(row, triggers, history, lists, prices, trigger_prices, memory):
    """
    Walk the target lists of a row's triggers; give the number of candidates, which are left in ``memory``.

    Args:
        row: a number that no earlier call with this memory had.
        triggers: int32 trigger codes, newest first, -1 for a trigger without targets.
        history: int32 item codes of the whole history, -1 for items that are no targets.
        lists: ``TriggerIndex.lists``.
        prices: float32 log prices by item code, NaN where missing.
        trigger_prices: the same of the row's triggers.
        memory: of ``scratch``.
    """
    starts, targets, scores, ranks, commons = lists
    reached_row, history_row, place_of, codes, masks, sums, chance, _ = memory
    for place in range(len(history)):
        if history[place] >= 0:
            history_row[history[place]] = row
    n = 0
    for recency in range(len(triggers)):
        trigger = triggers[recency]
        if trigger < 0:
            continue
        decay = np.exp(-DECAY * recency)
        share = 1.0 / (starts[trigger + 1] - starts[trigger])
        bit = np.uint64(1) << np.uint64(recency & 63)
        word = recency >> 6
        for at in range(starts[trigger], starts[trigger + 1]):
            code = targets[at]
            if history_row[code] == row:
                continue
            if reached_row[code] != row:
                reached_row[code] = row
                place = n
                place_of[code] = place
                codes[place] = code
                masks[place, 0] = masks[place, 1] = np.uint64(0)
                sums[place] = 0.0
                sums[place, 3] = ranks[at]
                sums[place, 6] = recency
                chance[place] = 0.0
                n += 1
            place = place_of[code]
            masks[place, word] |= bit
            chance[place] += share
            sums[place, 0] += 1.0
            sums[place, 1] += scores[at]
            sums[place, 2] = max(sums[place, 2], scores[at])
            sums[place, 3] = min(sums[place, 3], ranks[at])
            sums[place, 4] = max(sums[place, 4], commons[at])
            sums[place, 5] += commons[at]
            sums[place, 7] += scores[at] * decay
            difference = prices[code] - trigger_prices[recency]
            if not np.isnan(difference):
                sums[place, 8] += difference
    return n


@njit(cache=True, nogil=True)
def place_of_lowest(bits):
    """Give the place of the lowest bit set in a uint64 that is not 0."""
    return PLACE_OF_BIT[((bits & (~bits + np.uint64(1))) * DE_BRUIJN) >> np.uint64(58)]


@njit(cache=True, nogil=True)
def cross_features(sums, out):
    """Turn a candidate's sums into its cross features."""
    out[0] = np.log1p(sums[0])
    out[1] = np.log(sums[1] + TINY)
    out[2] = np.log(sums[2] + TINY)
    out[3] = np.log(sums[3])
    out[4] = np.log1p(sums[4])
    out[5] = np.log1p(sums[5])
    out[6] = np.log1p(sums[6])
    out[7] = np.log(sums[7] + TINY)
    out[8] = sums[8] / sums[0]


@njit(cache=True, nogil=True)
def gather(row, triggers, history, lists, prices, trigger_prices, memory):
    """
    Give a row's candidates by code, so that a catalogue's rows are read one after the other.

    Returns codes int32 [n], masks uint64 [n, 2], cross float32 [n, N_CROSS].
    """
    n = reach(row, triggers, history, lists, prices, trigger_prices, memory)
    _, _, place_of, reached, reached_by, sums, _, is_there = memory
    features = np.empty((n, N_CROSS), np.float32)
    for place in range(n):
        cross_features(sums[place], features[place])
        code = reached[place]
        is_there[code >> 6] |= np.uint64(1) << np.uint64(code & 63)
    codes, masks, cross = np.empty(n, np.int32), np.empty((n, 2), np.uint64), np.empty_like(features)
    at = 0
    for word in range(len(is_there)):
        bits = is_there[word]
        is_there[word] = np.uint64(0)
        while bits:
            codes[at] = 64 * word + place_of_lowest(bits)
            bits &= bits - np.uint64(1)
            place = place_of[codes[at]]
            for half in range(2):
                masks[at, half] = reached_by[place, half]
            for feature in range(N_CROSS):
                cross[at, feature] = features[place, feature]
            at += 1
    return codes, masks, cross
