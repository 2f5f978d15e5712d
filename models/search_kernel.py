"""
What are the exact inner products of users and items, and the best items of each user?

Every product is the same sequence of float32 operations whatever the batch, the number of threads and the
CPU's vector width, so that equal item vectors get equal scores and a tie is a tie.

Users are searched in blocks, tile of items by tile of items. Of a tile only scores above the user's floor are
kept, the k-th best so far: when a user's room is full, it is sorted and cut to the k best, which raises the
floor. For a long list the first floor is a score that a random sample of the catalogue tells to be somewhat
below the k-th best; where it was not, the list is too short, and the user is searched again without it. The
scores of a whole catalogue never stand in memory.
"""

import numpy as np
from numba import njit

ITEMS_PER_TILE = 1024
ROWS_AT_ONCE = 4
DIMENSIONS_AT_ONCE = 4
SCORES_LOOKED_AT = 32  # together; a floor excludes nearly all of them at once
SAMPLED = 32  # one item in so many
DEVIATIONS = 5  # by which the sample's place for the floor is below the k-th best's expected one
NO_KEY = np.uint64(2**64 - 1)


class Catalogue:
    """
    The items in the order of their codes, laid out for the search, and a sample of them.

    ``items`` and ``sample`` are float32 [n_tiles, D, ITEMS_PER_TILE], one column an item: D is d filled up
    with zeros to a multiple of DIMENSIONS_AT_ONCE, as are the columns of the last tile.
    """

    def __init__(self, item_vectors: np.ndarray, order: np.ndarray) -> None:
        """Copy the rows of float32 [I, d] vectors in ``order`` [I]."""
        self.n_items = len(order)
        self.n_sampled = self.n_items // SAMPLED
        places = np.random.default_rng(0).choice(self.n_items, self.n_sampled, replace=False)
        self.items, self.sample = _tiled(item_vectors, order), _tiled(item_vectors, order[places])

    def room_per_user(self, k: int) -> int:
        """Count the scored items that a user's room holds: the k best, as many again, and one tile."""
        return _room(self.n_items, k)

    def sample_place(self, k: int) -> int:
        """
        Give the place in the sample's ranking that is almost surely behind the k-th best's; 0 for none.

        A short list's floor rises fast enough by itself, and half a sample tells nothing.
        """
        if k < ITEMS_PER_TILE:
            return 0
        expected = k / SAMPLED
        place = int(expected + DEVIATIONS * np.sqrt(expected) + DEVIATIONS)
        return place if place < self.n_sampled // 2 else 0


def top_codes(
    users: np.ndarray, catalogue: Catalogue, excluded: tuple[np.ndarray, np.ndarray], k: int
) -> np.ndarray:
    """
    Search the whole catalogue for a block of users.

    Takes 8 bytes for each of ``room_per_user`` of each user, and 4 for each score of a tile.

    Args:
        users: float32 [n, m, d], m interests of each user.
        catalogue: the I items.
        excluded: int64 [n + 1] offsets into int32 item codes (-1: not an item) that users must not get,
            each user's in ascending order.
        k: items per user.

    Returns:
        int32 [n, k] item codes, best first by the maximum over the interests, ties by code, -1 where
        there are no more.
    """
    result = np.full((len(users), k), -1, np.int32)
    n_best = min(k, catalogue.n_items)
    if not len(users) or n_best == 0:
        return result
    floors = np.full(len(users), -np.inf, np.float32)
    if place := catalogue.sample_place(n_best):
        nothing = np.zeros(len(users) + 1, np.int64), excluded[1]
        sampled = _best_keys(users, catalogue.sample, catalogue.n_sampled, nothing, floors, place)
        for user in np.flatnonzero(sampled[:, -1] != NO_KEY):
            floors[user] = _score_of(sampled[user, -1])
    keys = _best_keys(users, catalogue.items, catalogue.n_items, excluded, floors, n_best)
    for user in np.flatnonzero((keys[:, -1] == NO_KEY) & (floors > -np.inf)):
        own, no_floor = slice(user, user + 1), np.full(1, -np.inf, np.float32)
        of_own = excluded[0][user : user + 2], excluded[1]
        keys[own] = _best_keys(users[own], catalogue.items, catalogue.n_items, of_own, no_floor, n_best)
    result[:, :n_best] = keys.astype(np.uint32).view(np.int32)
    return result


def _tiled(item_vectors: np.ndarray, order: np.ndarray) -> np.ndarray:
    n_dimensions, n_tiles = item_vectors.shape[1], -(-len(order) // ITEMS_PER_TILE)
    tiles = np.zeros((n_tiles, _filled_up(n_dimensions, DIMENSIONS_AT_ONCE), ITEMS_PER_TILE), np.float32)
    for number, tile in enumerate(tiles):
        codes = order[number * ITEMS_PER_TILE : (number + 1) * ITEMS_PER_TILE]
        tile[:n_dimensions, : len(codes)] = item_vectors[codes].T
    return tiles


def _room(n_items: int, k: int) -> int:
    return min(2 * k, n_items) + ITEMS_PER_TILE


def _best_keys(users, items, n_items, excluded, floors, n_best) -> np.ndarray:
    """Give uint64 [n, n_best] keys of the best items with a score above the floors, NO_KEY for none."""
    n, n_interests, n_dimensions = users.shape
    rows = np.zeros((_filled_up(n * n_interests, ROWS_AT_ONCE), items.shape[1]), np.float32)
    rows[: n * n_interests, :n_dimensions] = users.reshape(-1, n_dimensions)
    room = np.empty((n + 1, _room(n_items, n_best)), np.uint64)
    result = np.full((n, n_best), NO_KEY)
    _search(rows, n_interests, items, n_items, *excluded, floors.copy(), room, result)
    return result


def _filled_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


@njit(cache=True, nogil=True)
def _search(rows, n_interests, items, n_items, offsets, excluded, floors, keys, result):
    """Fill ``result``; ``keys`` [n + 1, room] is scratch: a user each, and one more to sort with."""
    n, n_best = result.shape
    spare = keys[-1]
    scores = np.empty((len(rows), ITEMS_PER_TILE), np.float32)
    n_kept = np.zeros(n, np.int64)
    next_excluded = offsets[:-1].copy()
    for tile in range(len(items)):
        first = tile * ITEMS_PER_TILE
        width = min(ITEMS_PER_TILE, n_items - first)
        flat_tile = items[tile].reshape(-1)
        for row in range(0, len(rows), ROWS_AT_ONCE):
            flat_scores = scores[row : row + ROWS_AT_ONCE].reshape(-1)
            _score_tile(rows[row : row + ROWS_AT_ONCE], flat_tile, flat_scores)
        for user in range(n):
            best = scores[user * n_interests]
            for interest in range(1, n_interests):
                _take_larger(scores[user * n_interests + interest], best)
            while next_excluded[user] < offsets[user + 1]:
                column = excluded[next_excluded[user]] - first
                if column >= ITEMS_PER_TILE:
                    break
                if column >= 0:
                    best[column] = -np.inf
                next_excluded[user] += 1
            if n_kept[user] + width > keys.shape[1]:
                _sort_by_score(keys[user], n_kept[user], spare)
                n_kept[user] = n_best
                floors[user] = _score_of(keys[user, n_best - 1])
            n_kept[user] = _keep_above(floors[user], best[:width], first, keys[user], n_kept[user])
    for user in range(n):
        _sort_by_score(keys[user], n_kept[user], spare)
        n_found = min(n_kept[user], n_best)
        result[user, :n_found] = keys[user, :n_found]


@njit(cache=True, nogil=True)
def _score_tile(users, items, scores):
    """
    Write the inner products of four ``users`` [4, D] and a tile, flat as is the result.

    Four dimensions at a time, so that what is loaded serves sixteen products; each product still adds up
    dimension by dimension.
    """
    size = ITEMS_PER_TILE
    scores[:] = np.float32(0.0)
    for first in range(0, users.shape[1], DIMENSIONS_AT_ONCE):
        tile = items[first * size : (first + DIMENSIONS_AT_ONCE) * size]
        a, b, c, d = (
            users[0, first : first + DIMENSIONS_AT_ONCE],
            users[1, first : first + DIMENSIONS_AT_ONCE],
            users[2, first : first + DIMENSIONS_AT_ONCE],
            users[3, first : first + DIMENSIONS_AT_ONCE],
        )
        a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
        b0, b1, b2, b3 = b[0], b[1], b[2], b[3]
        c0, c1, c2, c3 = c[0], c[1], c[2], c[3]
        d0, d1, d2, d3 = d[0], d[1], d[2], d[3]
        for i in range(size):
            x0, x1, x2, x3 = tile[i], tile[i + size], tile[i + 2 * size], tile[i + 3 * size]
            scores[i] = scores[i] + a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
            scores[i + size] = scores[i + size] + b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
            scores[i + 2 * size] = scores[i + 2 * size] + c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
            scores[i + 3 * size] = scores[i + 3 * size] + d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@njit(cache=True, nogil=True)
def _take_larger(scores, best):
    for i in range(ITEMS_PER_TILE):
        best[i] = max(best[i], scores[i])


@njit(cache=True, nogil=True)
def _keep_above(floor, scores, first, keys, n_kept):
    """Append the keys of the ``scores`` above the floor, of items from code ``first`` on; count all keys."""
    for start in range(0, len(scores), SCORES_LOOKED_AT):
        part = scores[start : start + SCORES_LOOKED_AT]
        is_any_above = False
        for i in range(len(part)):
            is_any_above |= part[i] > floor
        if is_any_above:
            for i in range(len(part)):
                if part[i] > floor:
                    keys[n_kept] = _key(part.view(np.uint32)[i], first + start + i)
                    n_kept += 1
    return n_kept


@njit(cache=True, nogil=True)
def _key(bits, code):
    """Give what orders by the falling score of float32 ``bits``, then by code; no score here is -0.0."""
    falling = bits if bits >> np.uint32(31) else bits ^ np.uint32(0x7FFFFFFF)
    return np.uint64(falling) << np.uint64(32) | np.uint64(code)


@njit(cache=True, nogil=True)
def _score_of(key):
    bits = np.empty(1, np.uint32)
    falling = np.uint32(key >> np.uint64(32))
    bits[0] = falling if falling >> np.uint32(31) else falling ^ np.uint32(0x7FFFFFFF)
    return bits.view(np.float32)[0]


@njit(cache=True, nogil=True)
def _sort_by_score(keys, n, spare):
    """
    Sort the first ``n`` keys, which are in the order of their codes among those of equal score.

    Byte by byte of the score's half, each pass keeping the order of the one before.
    """
    counts = np.zeros((4, 256), np.int64)
    for i in range(n):
        for byte in range(4):
            counts[byte, (keys[i] >> np.uint64(32 + 8 * byte)) & np.uint64(0xFF)] += 1
    for byte in range(4):
        place = 0
        for value in range(256):
            count = counts[byte, value]
            counts[byte, value] = place
            place += count
        for i in range(n):
            value = (keys[i] >> np.uint64(32 + 8 * byte)) & np.uint64(0xFF)
            spare[counts[byte, value]] = keys[i]
            counts[byte, value] += 1
        keys, spare = spare, keys
