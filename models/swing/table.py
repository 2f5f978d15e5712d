"""How is the whole table scored at once, where every pair of users fits in memory (path ``pairs``)?"""

from itertools import pairwise

import numpy as np
import pyarrow as pa

from models.swing.click_index import ClickIndex, identity, inverse
from models.swing.config import SwingConfig
from models.swing.paths import Path, shared_type
from models.swing.plan import TriggerBlock
from models.swing.rows import as_rows, pair_weights
from models.threads import map_in_threads, thread_count

PIECES_PER_THREAD = 4  # few: each piece touches scratch memory of its own


class TableScorer:
    """The scores of all pairs of items, from which any block of triggers takes its rows."""

    path: Path = "pairs"

    def __init__(self, index: ClickIndex, config: SwingConfig):
        """Score all pairs of items, in threads."""
        from models.swing.csr import transpose

        self._index, self._config = index, config
        order = np.argsort(np.diff(index.item_starts), kind="stable").astype(np.int32)
        same_users, same_items = identity(index.n_users), identity(index.n_items)
        by_item = transpose(index.user_starts, index.user_items, same_users, inverse(order), index.n_items)
        lists = (*by_item, *transpose(*by_item, same_items, same_users, index.n_users))
        self._starts, self._rows = self._both_ways(self._score_pairs(lists), order)

    def rows(self, block: TriggerBlock) -> pa.RecordBatch:
        """Give the rows of one block, as `models.swing.rows.block_rows`."""
        from models.swing.pairs import ranked_rows

        columns = ranked_rows(*block, self._starts, self._rows, self._index.item_ids, self._config.truncation)
        return as_rows(columns)

    def _score_pairs(self, lists: tuple[np.ndarray, ...]) -> list[tuple[int, tuple[np.ndarray, ...]]]:
        """Give the first item of each piece and the pairs of the piece."""
        from models.swing.pairs import count_shared_items, item_costs, pair_scores, user_costs

        index, config = self._index, self._config
        n_shared = np.zeros((index.n_users, index.n_users), shared_type(index))

        def count(piece: tuple[int, int]) -> None:
            count_shared_items(*piece, lists, n_shared)

        map_in_threads(count, _pieces(user_costs(lists), config), n_threads=config.n_threads)
        weight = pair_weights(index, config)
        cost, n_most = item_costs(lists)
        bounds = np.concatenate(([0], np.cumsum(n_most)))

        def score(piece: tuple[int, int]) -> tuple[int, tuple[np.ndarray, ...]]:
            first, last = piece
            n_pairs = int(bounds[last] - bounds[first])
            return first, pair_scores(first, last, lists, index.weights, weight, n_shared, n_pairs)

        return map_in_threads(score, _pieces(cost, config), n_threads=config.n_threads)

    def _both_ways(
        self, pieces: list[tuple[int, tuple[np.ndarray, ...]]], order: np.ndarray
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Put each pair of items into the rows of both; uses the pieces up."""
        from models.swing.pairs import count_rows, put_rows

        starts = np.zeros(self._index.n_items + 1, np.int64)
        for first, pairs in pieces:
            count_rows(first, pairs[0], pairs[1], order, starts)
        np.cumsum(starts, out=starts)
        rows = (np.empty(starts[-1], np.uint32), np.empty(starts[-1]), np.empty(starts[-1], np.int32))
        next_place = starts[:-1].copy()
        pieces.reverse()
        while pieces:
            put_rows(*pieces.pop(), order, next_place, rows)
        return starts, rows


def _pieces(cost: np.ndarray, config: SwingConfig) -> list[tuple[int, int]]:
    """Cut users or items into ranges of like cost."""
    running = np.cumsum(cost)
    n_pieces = thread_count(config.n_threads) * PIECES_PER_THREAD
    cuts = np.searchsorted(running, running[-1:] / n_pieces * np.arange(1, n_pieces))
    return list(pairwise(np.unique(np.concatenate((cuts, [0, len(cost)]))).tolist()))
