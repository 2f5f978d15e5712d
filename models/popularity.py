"""Which items do most users click? The popularity channel, and the fill of short lists."""

import numpy as np
import pyarrow as pa
from numba import njit

from models.ragged import flat_lists_of
from models.selection import is_in_sorted


def rank_popular(clicks: pa.Table) -> np.ndarray:
    """
    Rank the items of ``clicks`` (column item_id) by their number of rows, ties by item id.

    Give it the window's clicks only: a warm start's past is no measure of what is popular now.
    """
    item_ids, n_clicks = np.unique(clicks["item_id"].to_numpy(), return_counts=True)
    return item_ids[np.argsort(-n_clicks, kind="stable")].astype(np.int64)


def retrieve_popular(ranking: np.ndarray, histories: pa.ListArray | pa.ChunkedArray, k: int) -> np.ndarray:
    """
    Give each user the first ``k`` items of ``ranking`` that are not in the user's history.

    Returns:
        int64 [n, k] item ids, padded with -1 where the ranking ends.
    """
    return fill_with_popular(np.full((len(histories), k), -1, np.int64), ranking, histories)


def fill_with_popular(
    retrieved: np.ndarray, ranking: np.ndarray, histories: pa.ListArray | pa.ChunkedArray
) -> np.ndarray:
    """
    Fill the free places of ``retrieved`` with the most popular items that the user does not have yet.

    Args:
        retrieved: int64 [n, K], padded with -1; its items keep their order and come first.
        ranking: item ids, most popular first.
        histories: item ids of each user, none of which is filled in.

    Returns:
        int64 [n, K], padded with -1 only where the ranking ends.
    """
    offsets, values = flat_lists_of(len(retrieved), histories, "histories")
    rows = np.repeat(np.arange(len(retrieved)), np.diff(offsets))
    history = values[np.lexsort((values, rows))]
    return _fill(
        np.array(retrieved, np.int64),
        np.sort(retrieved, axis=1),
        np.array(ranking, np.int64),
        offsets,
        history,
    )


@njit(cache=True, nogil=True)
def _fill(retrieved, retrieved_sorted, ranking, offsets, history):
    n, k = retrieved.shape
    filled = np.full((n, k), -1, np.int64)
    for row in range(n):
        size = 0
        for item in retrieved[row]:
            if item >= 0:
                filled[row, size] = item
                size += 1
        place = 0
        while size < k and place < len(ranking):
            item = ranking[place]
            place += 1
            if not is_in_sorted(history[offsets[row] : offsets[row + 1]], item) and not is_in_sorted(
                retrieved_sorted[row], item
            ):
                filled[row, size] = item
                size += 1
    return filled
