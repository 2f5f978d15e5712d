"""How is the whole table scored at once, each pair of items for both its rows (path ``pairs``)?"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from models.swing.click_index import ClickIndex, identity, inverse
from models.swing.config import SwingConfig
from models.swing.paths import CELLS_AT_ONCE, Path
from models.swing.plan import TriggerBlock
from models.swing.rows import as_rows, new_columns, pair_weights
from models.threads import map_in_threads, thread_count

PAIR_DTYPES = ("float64", "uint32", "int32")
PIECES_PER_THREAD = 4  # few: each piece touches scratch memory of its own


class TableScorer:
    """The scores of all pairs of items, from which any block of triggers takes its rows."""

    path: Path = "pairs"

    def __init__(self, index: ClickIndex, config: SwingConfig, *, is_whole: bool = False):
        """Score all pairs of items, in threads; ``is_whole``: the rows of all blocks will be held at once."""
        from models.swing.csr import transpose

        self._index, self._config = index, config
        self._order = np.argsort(np.diff(index.item_starts), kind="stable").astype(np.int32)
        self._number = inverse(self._order)
        same_users, same_items = identity(index.n_users), identity(index.n_items)
        by_item = transpose(index.user_starts, index.user_items, same_users, self._number, index.n_items)
        self._score_pairs((*by_item, *transpose(*by_item, same_items, same_users, index.n_users)))
        self._list_backwards()
        n_targets = (self._ends - self._begins + np.diff(self._starts))[self._number]
        self._row_starts = _starts(np.minimum(n_targets, config.truncation))
        self._columns = new_columns(int(self._row_starts[-1])) if is_whole else None

    def rows(self, block: TriggerBlock) -> pa.RecordBatch:
        """Give the rows of one block, as `models.swing.rows.block_rows`."""
        from models.swing.pairs import ranked_rows

        first, last = self._row_starts[[block.first, block.last]]
        if self._columns is None:
            columns = new_columns(last - first)
        else:
            columns = tuple(column[first:last] for column in self._columns)
        ranked_rows(
            *block,
            self._pairs,
            self._begins,
            self._ends,
            self._starts,
            self._backwards,
            self._order,
            self._number,
            self._index.item_ids,
            self._config.truncation,
            columns,
        )
        return as_rows(columns)

    def _score_pairs(self, lists: tuple[np.ndarray, ...]) -> None:
        """Score the pairs of all items, a span of first items at a time: the last one is nobody's first."""
        from models.swing.pairs import item_costs, user_costs

        costs, n_most = item_costs(lists)
        bounds = _starts(n_most)
        self._pairs = new_columns(int(bounds[-1]), PAIR_DTYPES)
        self._begins, self._ends = bounds[:-1], bounds[:-1].copy()
        n_users = np.diff(lists[0])
        cell_starts = _starts(n_users * (n_users - 1) // 2)
        users = _pieces(user_costs(lists), self._config)
        for first, last in _spans(cell_starts[:-1]):
            items = [(first + a, first + b) for a, b in _pieces(costs[first:last], self._config)]
            self._score_span(users, items, lists, cell_starts - cell_starts[first])

    def _score_span(
        self,
        users: list[tuple[int, int]],
        items: list[tuple[int, int]],
        lists: tuple[np.ndarray, ...],
        cell_starts: np.ndarray,
    ) -> None:
        """Score the pairs of a span of first items: ``users`` are all, ``items`` the span, in pieces."""
        from models.swing.pairs import count_shared_items, pair_scores

        span = items[0][0], items[-1][1]
        n_shared = np.empty(cell_starts[span[1]], np.uint16)
        weights = self._index.weights, pair_weights(self._index, self._config)
        pairs = self._pairs, self._begins, self._ends

        def count(piece: tuple[int, int]) -> None:
            count_shared_items(*piece, span, lists, cell_starts, n_shared)

        def score(piece: tuple[int, int]) -> None:
            pair_scores(*piece, lists, *weights, cell_starts, n_shared, *pairs)

        map_in_threads(count, users, n_threads=self._config.n_threads)
        map_in_threads(score, items, n_threads=self._config.n_threads)

    def _list_backwards(self) -> None:
        from models.swing.pairs import count_backwards, list_backwards

        forwards = self._pairs[1], self._begins, self._ends
        self._starts = count_backwards(*forwards)
        self._backwards = np.empty((self._starts[-1], 2), np.uint32)
        list_backwards(*forwards, self._starts, self._backwards)


def _starts(sizes: np.ndarray) -> np.ndarray:
    """Give where parts of these sizes start that follow on each other, and where the last one ends."""
    return np.concatenate(([0], np.cumsum(sizes)))


def _spans(cell_starts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut all items but the last into spans whose cells can be held at once."""
    cuts = np.flatnonzero(np.diff(cell_starts[:-1] // CELLS_AT_ONCE)) + 1
    return pairwise(np.unique(np.concatenate((cuts, [0, len(cell_starts) - 1]))).tolist())


def _pieces(cost: np.ndarray, config: SwingConfig) -> list[tuple[int, int]]:
    """Cut users or items into ranges of like cost."""
    running = np.cumsum(cost)
    n_pieces = thread_count(config.n_threads) * PIECES_PER_THREAD
    cuts = np.searchsorted(running, running[-1:] / n_pieces * np.arange(1, n_pieces))
    return list(pairwise(np.unique(np.concatenate((cuts, [0, len(cost)]))).tolist()))
