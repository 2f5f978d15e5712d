"""
What are the exact inner products of users and items, and the best items of each user?

Every product is the same sequence of float32 operations whatever the batch, the number of threads and the
CPU's vector width, so that equal item vectors get equal scores and a tie is a tie.
"""

import numpy as np
from numba import njit

from models.selection import best_first

ITEMS_PER_TILE = 1024


def tiled(item_vectors: np.ndarray) -> np.ndarray:
    """Give float32 [I, d] as [n_tiles, d, ITEMS_PER_TILE], one column an item, filled up with zeros."""
    n_items, n_dimensions = item_vectors.shape
    n_tiles = -(-n_items // ITEMS_PER_TILE)
    tiles = np.zeros((n_tiles * ITEMS_PER_TILE, n_dimensions), np.float32)
    tiles[:n_items] = item_vectors
    return np.ascontiguousarray(tiles.reshape(n_tiles, ITEMS_PER_TILE, n_dimensions).transpose(0, 2, 1))


def top_codes(
    users: np.ndarray, items: np.ndarray, n_items: int, excluded: tuple[np.ndarray, np.ndarray], k: int
) -> np.ndarray:
    """
    Search the whole catalogue for a block of users.

    Args:
        users: float32 [n, m, d], m interests of each user.
        items: what ``tiled`` gives.
        n_items: I, the number of items.
        excluded: int64 [n + 1] offsets into int32 item codes (-1: not an item) that users must not get.
        k: items per user.

    Returns:
        int32 [n, k] item codes, best first by the maximum over the interests, ties by code, -1 where
        there are no more.
    """
    scores = _score(users, items, n_items, *excluded)
    n_best = min(k, n_items)
    if n_best == 0:
        return np.full((len(users), k), -1, np.int32)
    floors = np.partition(scores, n_items - n_best, axis=1)[:, n_items - n_best].copy()
    return _rank(scores, floors, k)


@njit(cache=True, nogil=True)
def _score(users, items, n_items, offsets, excluded):
    """Give float32 [n, I] scores, -inf for excluded items."""
    scores = np.empty((len(users), n_items), np.float32)
    products = np.empty(ITEMS_PER_TILE, np.float32)
    for tile in range(len(items)):
        start = tile * ITEMS_PER_TILE
        end = min(start + ITEMS_PER_TILE, n_items)
        for row in range(len(users)):
            _score_tile(users[row], items[tile], products, scores[row, start:end])
    for row in range(len(users)):
        for place in range(offsets[row], offsets[row + 1]):
            if excluded[place] >= 0:
                scores[row, excluded[place]] = -np.inf
    return scores


@njit(cache=True, nogil=True)
def _score_tile(interests, items, products, scores):
    """Write the maximum over ``interests`` [m, d] of their inner products with the tile's ``items``."""
    n_interests, n_dimensions = interests.shape
    for interest in range(n_interests):
        products[:] = np.float32(0.0)
        for dimension in range(n_dimensions):
            factor = interests[interest, dimension]
            for item in range(ITEMS_PER_TILE):
                products[item] += factor * items[dimension, item]
        for item in range(len(scores)):
            if interest == 0 or products[item] > scores[item]:
                scores[item] = products[item]


@njit(cache=True, nogil=True)
def _rank(scores, floors, k):
    """Rank the k best of each row of ``scores``, none of which is below the row's floor."""
    n, n_items = scores.shape
    result = np.full((n, k), -1, np.int32)
    codes = np.empty(n_items, np.int32)
    for row in range(n):
        n_candidates = 0
        for code in range(n_items):
            if scores[row, code] >= floors[row] and scores[row, code] > -np.inf:
                codes[n_candidates] = code
                n_candidates += 1
        candidates = codes[:n_candidates]
        best, _ = best_first(candidates, scores[row][candidates], k)
        result[row, : len(best)] = best
    return result
