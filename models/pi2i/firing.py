"""
Which of a user's triggers fired when an item was clicked? (4.6, Fig. 5 and 6 of the paper)

Of the triggers that reach an item the one with the highest Swing score to it fires, of equal ones the newest.
Triggers are numbered by recency from 1 on, the newest first, as in the paper.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit

from models.pi2i.trigger_index import TriggerIndex, user_triggers
from models.ragged import codes_of, flat_lists, flat_lists_of


@dataclass(frozen=True)
class Firing:
    """
    What fired for each of n targets, over users in order.

    ``fired`` int32 [n]: index of the firing trigger, 0 where none reaches the target. ``reached`` bool
    [n, l]: which triggers reach it. ``n_triggers`` int32 [n]: triggers that its user has.
    """

    fired: np.ndarray
    reached: np.ndarray
    n_triggers: np.ndarray


@dataclass(frozen=True)
class Decay:
    """
    How often the trigger at each index fires, over targets that any trigger reaches.

    All int64 [l], place r for index r + 1: targets whose user has such a trigger, those that it reaches, and
    those for which it fires.
    """

    n_targets: np.ndarray
    n_reached: np.ndarray
    n_fired: np.ndarray

    def probability(self, first: int, last: int) -> float:
        """Give the chance that a trigger from index ``first`` to ``last`` fires; NaN without targets."""
        place = slice(first - 1, last)
        n_targets = self.n_targets[place].sum()
        return float(self.n_fired[place].sum() / n_targets) if n_targets else float("nan")


def find_firing(
    index: TriggerIndex,
    histories: pa.ListArray | pa.ChunkedArray,
    targets: pa.ListArray | pa.ChunkedArray,
    n_triggers: int,
) -> Firing:
    """
    Find what fired for each target.

    Args:
        index: the i2i table of the day before.
        histories: item ids of each user, oldest first.
        targets: item ids of each user, each once.
        n_triggers: last distinct history items that are triggers.
    """
    offsets, values = flat_lists(histories)
    begins, triggers = user_triggers(offsets, values, n_triggers)
    ends, items = flat_lists_of(len(histories), targets, "targets")
    fired, reached = _fire(
        begins,
        codes_of(triggers, index.trigger_ids),
        ends,
        codes_of(items, index.item_ids),
        (index.starts, index.targets, index.scores),
        len(index.item_ids),
        n_triggers,
    )
    return Firing(fired, reached, np.repeat(np.diff(begins), np.diff(ends)).astype(np.int32))


def count_decay(firing: Firing) -> Decay:
    """Count over the targets that any trigger reaches."""
    is_reached = firing.fired > 0
    n_indices = firing.reached.shape[1]
    has_trigger = np.bincount(firing.n_triggers[is_reached], minlength=n_indices + 1)
    return Decay(
        has_trigger[::-1].cumsum()[::-1][1:],
        firing.reached[is_reached].sum(axis=0),
        np.bincount(firing.fired[is_reached], minlength=n_indices + 1)[1:],
    )


@njit(cache=True, nogil=True)
def _fire(begins, triggers, ends, items, lists, n_items, n_triggers):
    """Give the firing index int32 [n] and bool [n, n_triggers] of the triggers that reach each target."""
    starts, targets, scores = lists
    fired = np.zeros(len(items), np.int32)
    reached = np.zeros((len(items), n_triggers), np.bool_)
    best = np.zeros(len(items), np.float32)
    wanted_row = np.full(n_items, -1, np.int64)
    wanted_at = np.empty(n_items, np.int64)
    for row in range(len(begins) - 1):
        for at in range(ends[row], ends[row + 1]):
            if items[at] >= 0:
                wanted_row[items[at]] = row
                wanted_at[items[at]] = at
        for place in range(begins[row], begins[row + 1]):
            trigger = triggers[place]
            if trigger < 0:
                continue
            recency = place - begins[row]
            for position in range(starts[trigger], starts[trigger + 1]):
                code = targets[position]
                if wanted_row[code] == row:
                    at = wanted_at[code]
                    reached[at, recency] = True
                    if fired[at] == 0 or scores[position] > best[at]:
                        fired[at] = recency + 1
                        best[at] = scores[position]
    return fired, reached
