"""How are rows of different length held in flat arrays? Offsets of each row into one array of values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Ragged:
    """
    n rows of different length.

    ``values`` [v] or [v, c] holds the rows one after the other, row i at ``offsets[i]:offsets[i + 1]``;
    ``offsets`` is int64 [n + 1] and starts with 0.
    """

    values: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def from_lengths(values: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Cut ``values`` into rows of the given lengths."""
        return Ragged(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Length of each row, int64 [n]."""
        return np.diff(self.offsets)

    def owners(self) -> np.ndarray:
        """Row of each value, int64 [v]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, rows: np.ndarray) -> Ragged:
        """Gather rows in the given order."""
        lengths = self.lengths[rows]
        taken = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(taken[-1]) + np.repeat(self.offsets[rows] - taken[:-1], lengths)
        return Ragged(self.values[positions], taken)

    def where(self, is_kept: np.ndarray) -> Ragged:
        """Keep the values marked in the bool array [v]; every row stays, maybe shorter."""
        kept_before = np.concatenate([[0], np.cumsum(is_kept)])
        return Ragged(self.values[is_kept], kept_before[self.offsets])

    def last(self, n: int) -> Ragged:
        """Keep the last ``n`` values of each row."""
        ends = np.repeat(self.offsets[1:], self.lengths)
        return self.where(np.arange(len(self.values)) >= ends - n)

    def fill_empty(self, value: int) -> Ragged:
        """Put the one ``value`` into each empty row."""
        is_empty = self.lengths == 0
        values = np.insert(self.values, self.offsets[:-1][is_empty], value, axis=0)
        return Ragged.from_lengths(values, self.lengths + is_empty)


def list_lengths(lists: pa.ListArray) -> np.ndarray:
    """Give the length of each list, int64; a null list has none."""
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def one_array(lists: pa.ListArray | pa.ChunkedArray) -> pa.ListArray:
    """Give the lists as one array; those that are one already are not copied."""
    if not isinstance(lists, pa.ChunkedArray):
        return lists
    return lists.chunk(0) if lists.num_chunks == 1 else lists.combine_chunks()


def ids_from_arrow(lists: pa.ListArray | pa.ChunkedArray) -> Ragged:
    """Read lists of int64 ids; a null list is an empty one."""
    lists = one_array(lists)
    values = lists.flatten().cast(pa.int64()).to_numpy(zero_copy_only=False)
    return Ragged.from_lengths(values, list_lengths(lists))
