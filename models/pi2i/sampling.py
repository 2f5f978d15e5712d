"""
How does a click become a training sample? Trigger-target sampling (Algorithm 1 of the paper, 3.2.1).

The positive is the clicked item; positive triggers are those whose targets contain it, and without one the
click is dropped. Hard negatives are drawn from the targets of the positive triggers, easy ones from those of
the others: a trigger uniformly, then one of its targets. A sample's negatives are distinct, none of them is
the positive or in the history; where a side has too few items it gives fewer.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit

from models.pi2i.candidates import N_CROSS, cross_features, reach, scratch
from models.pi2i.config import PI2IConfig
from models.pi2i.trigger_index import N_STATISTICS, TriggerIndex, user_triggers
from models.ragged import codes_of, flat_lists

TRIES = 8
"""Draws per wanted negative before a side gives up."""
CLICKS_AT_ONCE = 1 << 17
"""Drawn and put into one chunk of the columns, whose offsets are int32."""


SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("event_time", pa.timestamp("us")),
        ("trigger_item_ids", pa.list_(pa.int64())),
        ("item_ids", pa.list_(pa.int64())),
        ("n_hard", pa.int32()),
        ("trigger_masks", pa.list_(pa.uint64())),
        ("cross", pa.list_(pa.float32())),
        ("statistics", pa.list_(pa.float32())),
        ("log_q", pa.list_(pa.float32())),
    ]
)
"""
One sample a row, in the clicks' order. ``trigger_item_ids``: newest first. ``item_ids``: the positive, then
``n_hard`` hard and the easy negatives. Per item: ``trigger_masks`` two words (bit r of both together: trigger
r reaches it), ``cross`` N_CROSS and ``statistics`` N_STATISTICS features, ``log_q`` of the sampling.
"""


@dataclass(frozen=True)
class SamplingReport:
    """How many clicks there were, how many no trigger reached, and how many negatives were drawn."""

    n_clicks: int
    n_samples: int
    n_hard: int
    n_easy: int

    @property
    def dropped_share(self) -> float:
        """Share of the clicks that no trigger reaches; NaN without clicks."""
        return 1 - self.n_samples / self.n_clicks if self.n_clicks else float("nan")


def draw_samples(
    clicks: pa.Table,
    index: TriggerIndex,
    config: PI2IConfig,
    *,
    seed: int,
    log_prices: dict[int, float] | None = None,
) -> tuple[pa.Table, SamplingReport]:
    """
    Draw the samples of clicks, as rows of ``SCHEMA``.

    Args:
        clicks: user_id, event_time, item_id, and history_item_ids: the items before the click, oldest first.
        index: the i2i table of the day before: one that saw the click would leak it.
        config: sampling and number of triggers.
        seed: of the draws, below 2**32.
        log_prices: log(1 + price) of items by id; those left out have none.
    """
    prices = log_price_of(index.item_ids, log_prices)
    trigger_prices = np.append(log_price_of(index.trigger_ids, log_prices), np.float32(np.nan))
    memory = (*scratch(len(index.item_ids)), np.full(len(index.item_ids), -1, np.int64))
    _seed(seed)
    parts, n_hard, n_easy = [], 0, 0
    for first in range(0, max(len(clicks), 1), CLICKS_AT_ONCE):
        part = clicks.slice(first, CLICKS_AT_ONCE)
        offsets, values = flat_lists(part["history_item_ids"])
        begins, triggers = user_triggers(offsets, values, config.n_triggers)
        codes = codes_of(triggers, index.trigger_ids)
        drawn = _draw(
            first,
            codes_of(part["item_id"].to_numpy().astype(np.int64), index.item_ids),
            (offsets, codes_of(values, index.item_ids)),
            (begins, codes, trigger_prices[codes]),
            index.lists,
            prices,
            memory,
            tuple(config.negatives),
        )
        parts.append(_as_table(part, begins, triggers, index, drawn))
        n_hard, n_easy = n_hard + int(drawn[6].sum()), n_easy + int(drawn[7].sum())
    samples = pa.concat_tables(parts)
    return samples, SamplingReport(len(clicks), len(samples), n_hard, n_easy)


def _as_table(
    clicks: pa.Table, begins: np.ndarray, triggers: np.ndarray, index: TriggerIndex, drawn: tuple
) -> pa.Table:
    """Give what ``_draw`` drew for clicks as rows of ``SCHEMA``."""
    is_sample, width, codes, masks, cross, log_q, n_hard, _ = drawn
    rows = np.flatnonzero(is_sample)
    lists = pa.ListArray.from_arrays(pa.array(begins.astype(np.int32)), pa.array(triggers))
    ends = np.concatenate([[0], np.cumsum(width[rows])])

    def cut(values: np.ndarray, per_item: int = 1) -> pa.ListArray:
        return pa.ListArray.from_arrays(
            pa.array((ends * per_item).astype(np.int32)), pa.array(values.ravel())
        )

    columns = [
        clicks["user_id"].take(rows),
        clicks["event_time"].take(rows),
        lists.take(pa.array(rows)),
        cut(index.item_ids[codes]),
        pa.array(n_hard[rows]),
        cut(masks, 2),
        cut(cross, N_CROSS),
        cut(index.statistics[codes], N_STATISTICS),
        cut(log_q),
    ]
    return pa.table(columns, SCHEMA)


def log_price_of(item_ids: np.ndarray, log_prices: dict[int, float] | None) -> np.ndarray:
    """Give each item's log price, float32, NaN where there is none."""
    if not log_prices:
        return np.full(len(item_ids), np.nan, np.float32)
    known = np.array(sorted(log_prices), np.int64)
    values = np.array([log_prices[item] for item in known.tolist()] + [np.nan], np.float32)
    return values[codes_of(item_ids, known)]


@njit(cache=True, nogil=True)
def _seed(seed):
    """Begin the draws of this thread."""
    np.random.seed(seed)


@njit(cache=True, nogil=True)
def _draw(first, positives, histories, triggers, lists, prices, memory, counts):
    """
    Draw every click's candidates; give them one after the other, and how many each click has.

    ``first`` is the number of the first click; the draws go on where those of the clicks before ended.
    """
    offsets, history_codes = histories
    begins, trigger_codes, trigger_prices = triggers
    reached_row, place_of, masks, sums, chance = memory[0], memory[2], memory[4], memory[5], memory[6]
    drawn_row = memory[8]
    n = len(positives)
    most = n * (1 + counts[0] + counts[1])
    is_sample = np.zeros(n, np.bool_)
    width, n_hard, n_easy = np.zeros(n, np.int64), np.zeros(n, np.int32), np.zeros(n, np.int32)
    codes = np.empty(most, np.int32)
    out_masks = np.empty((most, 2), np.uint64)
    cross = np.empty((most, N_CROSS), np.float32)
    log_q = np.empty(most, np.float32)
    filled = 0
    for row in range(n):
        mark = first + row
        positive = positives[row]
        if positive < 0:
            continue
        own = trigger_codes[begins[row] : begins[row + 1]]
        history = history_codes[offsets[row] : offsets[row + 1]]
        reach(mark, own, history, lists, prices, trigger_prices[begins[row] : begins[row + 1]], memory[:8])
        if reached_row[positive] != mark:
            continue
        is_sample[row] = True
        start = filled
        codes[filled] = positive
        drawn_row[positive] = mark
        hard, easy = _sides(own, masks[place_of[positive]])
        filled = _draw_side(mark, hard, counts[0], lists, reached_row, drawn_row, codes, filled + 1)
        n_hard[row] = filled - start - 1
        filled = _draw_side(mark, easy, counts[1], lists, reached_row, drawn_row, codes, filled)
        width[row] = filled - start
        n_easy[row] = width[row] - 1 - n_hard[row]
        for at in range(start, filled):
            place = place_of[codes[at]]
            out_masks[at] = masks[place]
            cross_features(sums[place], cross[at])
            log_q[at] = np.log(chance[place] / (len(hard) + len(easy)))
    return (
        is_sample,
        width,
        codes[:filled],
        out_masks[:filled],
        cross[:filled],
        log_q[:filled],
        n_hard,
        n_easy,
    )


@njit(cache=True, nogil=True)
def _sides(triggers, mask):
    """Part the triggers that have targets into those in the mask and the others."""
    hard, easy = np.empty(len(triggers), np.int32), np.empty(len(triggers), np.int32)
    n_hard, n_easy = 0, 0
    for recency in range(len(triggers)):
        if triggers[recency] >= 0:
            if (mask[recency >> 6] >> np.uint64(recency & 63)) & np.uint64(1):
                hard[n_hard] = triggers[recency]
                n_hard += 1
            else:
                easy[n_easy] = triggers[recency]
                n_easy += 1
    return hard[:n_hard], easy[:n_easy]


@njit(cache=True, nogil=True)
def _draw_side(row, triggers, wanted, lists, reached_row, drawn_row, codes, filled):
    """Draw up to ``wanted`` new targets of the triggers behind ``filled``; give the new end."""
    starts, targets = lists[0], lists[1]
    end = filled + wanted
    if len(triggers) == 0:
        return filled
    for _ in range(TRIES * wanted):
        if filled == end:
            break
        trigger = triggers[np.random.randint(len(triggers))]
        n_targets = starts[trigger + 1] - starts[trigger]
        code = targets[starts[trigger] + np.random.randint(n_targets)]
        if reached_row[code] == row and drawn_row[code] != row:
            drawn_row[code] = row
            codes[filled] = code
            filled += 1
    return filled
