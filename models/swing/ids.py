"""Which number does each id have? Ids come in chunks; numbers are dense, in order of first appearance."""

import numpy as np
from numba import njit

LOAD = 0.5
LEAST_SLOTS = 1 << 10
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FREE = np.int32(-1)


class IdNumbers:
    """A growing hash table from int64 ids to int32 numbers."""

    def __init__(self) -> None:
        """Number no ids yet."""
        self._ids = np.empty(0, np.int64)
        self._n_ids = 0
        self._make_slots(LEAST_SLOTS)

    def number(self, ids: np.ndarray) -> np.ndarray:
        """Give the int32 number of each id (int64), numbering new ones."""
        numbers = np.empty(len(ids), np.int32)
        n_done = self._number_on(ids, 0, numbers)
        while n_done < len(ids):
            self._make_slots(2 * len(self._slot_ids))
            n_done = self._number_on(ids, n_done, numbers)
        return numbers

    def ids(self) -> np.ndarray:
        """Give the id of each number so far, int64."""
        return self._ids[: self._n_ids]

    def _number_on(self, ids: np.ndarray, n_done: int, numbers: np.ndarray) -> int:
        """Number the ids from ``n_done`` on; stops, and gives how far, where a new one has no room."""
        n_done, self._n_ids = _number(
            ids, n_done, self._slot_ids, self._slot_numbers, self._ids, self._n_ids, numbers
        )
        return n_done

    def _make_slots(self, n_slots: int) -> None:
        known = self.ids()
        self._ids = np.empty(int(LOAD * n_slots), np.int64)
        self._ids[: len(known)] = known
        self._slot_ids = np.empty(n_slots, np.int64)
        self._slot_numbers = np.full(n_slots, FREE)
        _fill(known, self._slot_ids, self._slot_numbers)


@njit(cache=True, nogil=True)
def _slot_of(wanted, slot_ids, slot_numbers):
    """Give the slot that holds the id, or the free one where it belongs."""
    mask = np.uint64(len(slot_ids) - 1)
    mixed = np.uint64(wanted) * GOLDEN
    slot = (mixed ^ (mixed >> np.uint64(32))) & mask
    while slot_numbers[slot] != FREE and slot_ids[slot] != wanted:
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def _number(ids, first, slot_ids, slot_numbers, known_ids, n_known, numbers):
    for place in range(first, len(ids)):
        slot = _slot_of(ids[place], slot_ids, slot_numbers)
        if slot_numbers[slot] == FREE:
            if n_known == len(known_ids):
                return place, n_known
            slot_ids[slot] = ids[place]
            slot_numbers[slot] = n_known
            known_ids[n_known] = ids[place]
            n_known += 1
        numbers[place] = slot_numbers[slot]
    return len(ids), n_known


@njit(cache=True, nogil=True)
def _fill(known_ids, slot_ids, slot_numbers):
    for number in range(len(known_ids)):
        slot = _slot_of(known_ids[number], slot_ids, slot_numbers)
        slot_ids[slot] = known_ids[number]
        slot_numbers[slot] = number
