"""
How does a click become a training sample? Trigger-target sampling (Algorithm 1 of the paper, 3.2.1).

The positive is the clicked item; positive triggers are those whose targets contain it, and without one the
click is dropped. Hard negatives are drawn from the targets of the positive triggers, easy ones from those of
the others: a trigger uniformly, then one of its targets. A sample's negatives are distinct, none of them is the
positive or in the history; where a side has too few items it gives fewer.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit

from models.pi2i.candidates import N_CROSS, cross_features, reach, scratch
from models.pi2i.config import PI2IConfig
from models.pi2i.trigger_index import TriggerIndex, user_triggers
from models.ragged import codes_of, flat_lists

TRIES = 8
"""Draws per wanted negative before a side gives up."""


@dataclass(frozen=True)
class TriggerTargetSamples:
    """
    n samples of at most c candidates; column 0 is the positive, then hard, then easy negatives.

    ``source`` int64 [n]: row of the click; ``item_ids`` int64 [n, c], -1 where there are fewer; ``masks``
    uint64 [n, c, 2]: which triggers reach the candidate; ``cross`` float32 [n, c, N_CROSS]; ``log_q`` float32
    [n, c]; ``n_hard`` and ``n_easy`` int32 [n].
    """

    source: np.ndarray
    item_ids: np.ndarray
    masks: np.ndarray
    cross: np.ndarray
    log_q: np.ndarray
    n_hard: np.ndarray
    n_easy: np.ndarray
    n_clicks: int

    @property
    def dropped_share(self) -> float:
        """Share of the clicks that no trigger reaches; NaN without clicks."""
        return 1 - len(self.source) / self.n_clicks if self.n_clicks else float("nan")


def draw_samples(
    item_ids: np.ndarray,
    histories: pa.ListArray | pa.ChunkedArray,
    index: TriggerIndex,
    config: PI2IConfig,
    *,
    seed: int,
    log_prices: dict[int, float] | None = None,
) -> TriggerTargetSamples:
    """
    Draw the samples of clicks.

    Args:
        item_ids: int64 [n], the clicked items.
        histories: the item ids before each click, oldest first.
        index: the i2i table of the day before: one that saw the click would leak it.
        config: sampling and number of triggers.
        seed: of the draws.
        log_prices: log(1 + price) of items by id; those left out have none.
    """
    offsets, values = flat_lists(histories)
    begins, triggers = user_triggers(offsets, values, config.n_triggers)
    prices = log_price_of(index.item_ids, log_prices)
    found = _draw(
        codes_of(np.asarray(item_ids, np.int64), index.item_ids),
        (offsets, codes_of(values, index.item_ids)),
        (begins, codes_of(triggers, index.trigger_ids), log_price_of(triggers, log_prices)),
        index.lists,
        prices,
        scratch(len(index.item_ids)),
        tuple(config.negatives),
        seed,
    )
    is_sample, codes, masks, cross, log_q, n_hard, n_easy = found
    rows = np.flatnonzero(is_sample)
    ids = np.append(index.item_ids, -1)[codes[rows]]
    return TriggerTargetSamples(
        rows, ids, masks[rows], cross[rows], log_q[rows], n_hard[rows], n_easy[rows], len(item_ids)
    )


def log_price_of(item_ids: np.ndarray, log_prices: dict[int, float] | None) -> np.ndarray:
    """Give each item's log price, float32, NaN where there is none."""
    if not log_prices:
        return np.full(len(item_ids), np.nan, np.float32)
    known = np.array(sorted(log_prices), np.int64)
    values = np.array([log_prices[item] for item in known.tolist()] + [np.nan], np.float32)
    return values[codes_of(item_ids, known)]


@njit(cache=True, nogil=True)
def _draw(positives, histories, triggers, lists, prices, memory, counts, seed):
    offsets, history_codes = histories
    begins, trigger_codes, trigger_prices = triggers
    starts, targets = lists[0], lists[1]
    reached_row, _, place_of, reached, masks, sums, chance = memory
    most_hard, most_easy = counts
    n, width = len(positives), 1 + most_hard + most_easy
    is_sample = np.zeros(n, np.bool_)
    out_codes = np.full((n, width), -1, np.int32)
    out_masks = np.zeros((n, width, 2), np.uint64)
    out_cross = np.zeros((n, width, N_CROSS), np.float32)
    out_log_q = np.zeros((n, width), np.float32)
    n_hard, n_easy = np.zeros(n, np.int32), np.zeros(n, np.int32)
    drawn_row = np.full(len(prices), -1, np.int64)
    sides = np.empty((2, 128), np.int32)
    np.random.seed(seed)
    for row in range(n):
        positive = positives[row]
        own = trigger_codes[begins[row] : begins[row + 1]]
        if positive < 0:
            continue
        history = history_codes[offsets[row] : offsets[row + 1]]
        own_prices = trigger_prices[begins[row] : begins[row + 1]]
        reach(row, own, history, lists, prices, own_prices, memory)
        if reached_row[positive] != row:
            continue
        is_sample[row] = True
        mask = masks[place_of[positive]]
        sizes = [0, 0]
        n_used = 0
        for recency in range(len(own)):
            if own[recency] >= 0:
                n_used += 1
                word = mask[recency >> 6]
                side = 0 if (word >> np.uint64(recency & 63)) & np.uint64(1) else 1
                sides[side, sizes[side]] = own[recency]
                sizes[side] += 1
        out_codes[row, 0] = positive
        drawn_row[positive] = row
        filled = 1
        for side in range(2):
            wanted = most_hard if side == 0 else most_easy
            got = 0
            if sizes[side] > 0:
                for _ in range(TRIES * wanted):
                    if got == wanted:
                        break
                    trigger = sides[side, np.random.randint(sizes[side])]
                    at = starts[trigger] + np.random.randint(starts[trigger + 1] - starts[trigger])
                    code = targets[at]
                    if reached_row[code] == row and drawn_row[code] != row:
                        drawn_row[code] = row
                        out_codes[row, filled] = code
                        filled += 1
                        got += 1
            if side == 0:
                n_hard[row] = got
            else:
                n_easy[row] = got
        for column in range(filled):
            place = place_of[out_codes[row, column]]
            out_masks[row, column] = masks[place]
            cross_features(sums[place], out_cross[row, column])
            out_log_q[row, column] = np.log(chance[place] / n_used)
    return is_sample, out_codes, out_masks, out_cross, out_log_q, n_hard, n_easy
