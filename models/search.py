"""
Which items are nearest to a user? Exact search, and the index that a release serves.

User vectors are float32 [n, d], or [n, m, d] for users with m interests: their score for an item is the
maximum over the interests. The measure is always the inner product.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import faiss
import numpy as np
import pyarrow as pa

from models.ragged import codes_of, flat_lists_of
from models.threads import map_in_threads, thread_count

N_ITEMS_FLAT = 100_000
ROWS_PER_BLOCK = 128  # of user vectors: the tile that they share is read from memory once for all of them
KEYS_PER_BLOCK = 1 << 22  # 32 MiB of each thread


class BadVectors(ValueError):
    """Vectors that cannot be searched."""


def exact_top_k(
    user_vectors: np.ndarray,
    item_vectors: np.ndarray,
    item_ids: np.ndarray,
    k: int,
    *,
    exclude: pa.ListArray | pa.ChunkedArray | None = None,
    n_threads: int = 0,
) -> np.ndarray:
    """
    Find the ``k`` items with the highest scores for each user, comparing all of them.

    Memory beside the arguments and the result: one more copy of the item vectors, and for each thread 32 MiB
    (more where a single user's 2 k + 1024 candidates of 8 bytes need more). It does not grow with users x
    items.

    Args:
        user_vectors: float32 [n, d] or [n, m, d].
        item_vectors: float32 [I, d].
        item_ids: int64 [I], distinct, in any order.
        k: items to find.
        exclude: item ids that each user must not get.
        n_threads: threads, 0 for one per CPU; changes neither the result nor its bits.

    Returns:
        int64 [n, k] item ids, best first, ties by item id, padded with -1.

    Raises:
        BadVectors: shapes that do not fit each other, or a number that is not finite.
        NotAligned: ``exclude`` is not over the same users.
    """
    users = _checked(user_vectors, item_vectors)
    if len(item_ids) != len(item_vectors):
        raise BadVectors(f"{len(item_ids)} item ids for {len(item_vectors)} item vectors; give one each")
    by_id = np.argsort(item_ids, kind="stable")
    sorted_ids = np.asarray(item_ids, np.int64)[by_id]
    offsets, values = _excluded(len(users), exclude)
    codes = codes_of(values, sorted_ids)
    codes = codes[np.lexsort((codes, np.repeat(np.arange(len(users)), np.diff(offsets))))]

    # the compiler's import is slow: only those who search pay for it
    from models.search_kernel import Catalogue, top_codes

    catalogue = Catalogue(np.asarray(item_vectors, np.float32), by_id)
    ids = np.append(sorted_ids, -1)
    result = np.empty((len(users), k), np.int64)

    def search(rows: tuple[int, int]) -> None:
        first, last = rows
        excluded = (offsets[first : last + 1], codes)
        result[first:last] = ids[top_codes(users[first:last], catalogue, excluded, k)]

    most = min(ROWS_PER_BLOCK // users.shape[1], KEYS_PER_BLOCK // catalogue.room_per_user(k))
    size = max(1, min(most, -(-len(users) // thread_count(n_threads))))
    blocks = list(pairwise([*range(0, len(users), size), len(users)]))
    map_in_threads(search, blocks, n_threads=n_threads)
    return result


def build_index(item_vectors: np.ndarray, *, seed: int, n_threads: int = 0) -> faiss.Index:
    """
    Build the index of float32 [I, d] item vectors; it answers with their row numbers.

    Below 100,000 items it is flat, hence exact. Above it is an inverted file of about 4 sqrt(I) seeded
    clusters, of which a search visits one in sixteen.

    Raises:
        BadVectors: not a matrix, or a number that is not finite.
    """
    vectors = np.ascontiguousarray(item_vectors, np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise BadVectors(f"item vectors of shape {vectors.shape} must be a matrix of finite numbers")
    n_items, n_dimensions = vectors.shape
    if n_items < N_ITEMS_FLAT:
        index = faiss.IndexFlatIP(n_dimensions)
    else:
        n_clusters = int(4 * np.sqrt(n_items))
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(n_dimensions), n_dimensions, n_clusters, faiss.METRIC_INNER_PRODUCT
        )
        index.cp.seed = seed % 2**31
        index.nprobe = n_clusters // 16
    with _faiss_threads(n_threads):
        if not index.is_trained:
            index.train(vectors)
        index.add(vectors)
    return index


def index_top_k(
    index: faiss.Index,
    item_ids: np.ndarray,
    user_vectors: np.ndarray,
    k: int,
    *,
    exclude: pa.ListArray | pa.ChunkedArray | None = None,
    n_threads: int = 0,
) -> np.ndarray:
    """
    Ask the index for ``k`` items of each user, as a server does.

    It asks for as many more as a user can have excluded, so that excluding leaves ``k`` wherever the index
    finds them. Ties come in the index's order.

    Returns:
        int64 [n, k] item ids, best first, padded with -1.
    """
    offsets, values = _excluded(len(user_vectors), exclude)
    positions = _index_positions(index, user_vectors, k + int(np.diff(offsets).max(initial=0)), n_threads)
    found = np.append(np.asarray(item_ids, np.int64), -1)[positions]
    result = np.full((len(found), k), -1, np.int64)
    for row, items in enumerate(found):
        is_kept = (items >= 0) & ~np.isin(items, values[offsets[row] : offsets[row + 1]])
        kept = items[is_kept][:k]
        result[row, : len(kept)] = kept
    return result


def index_recall(
    index: faiss.Index, item_vectors: np.ndarray, user_vectors: np.ndarray, k: int, *, n_threads: int = 0
) -> float:
    """
    Measure which share of each user's exact top ``k`` the index finds, as the mean over the users.

    An item counts as found right if its exact score reaches the k-th best one within float32 rounding:
    of items that tie at the end of the list, any will do.

    Returns:
        The recall in [0, 1]; NaN without users, items or ``k``.
    """
    users = _checked(user_vectors, item_vectors)
    k = min(k, len(item_vectors))
    if k == 0 or not len(users):
        return float("nan")
    exact = exact_top_k(users, item_vectors, np.arange(len(item_vectors)), k, n_threads=n_threads)
    found = _index_positions(index, user_vectors, k, n_threads)
    floors = _scores(users, item_vectors, exact[:, -1:])
    tolerance = 1e-5 * np.maximum(1.0, np.abs(floors))
    return float(np.mean((found >= 0) & (_scores(users, item_vectors, found) >= floors - tolerance)))


def _index_positions(index: faiss.Index, user_vectors: np.ndarray, k: int, n_threads: int) -> np.ndarray:
    """Give int64 [n, k] row numbers; for several interests the union of their lists by the best score."""
    k = min(k, index.ntotal)
    vectors = np.ascontiguousarray(user_vectors, np.float32)
    if not len(vectors) or k == 0:
        return np.full((len(vectors), k), -1, np.int64)
    with _faiss_threads(n_threads):
        scores, positions = index.search(vectors.reshape(-1, vectors.shape[-1]), k)
    if vectors.ndim == 2:
        return positions
    scores, positions = scores.reshape(len(vectors), -1), positions.reshape(len(vectors), -1)
    by_score = np.argsort(-scores, axis=1, kind="stable")
    merged = np.full((len(vectors), k), -1, np.int64)
    for row, ranked in enumerate(np.take_along_axis(positions, by_score, axis=1)):
        distinct = ranked[np.sort(np.unique(ranked, return_index=True)[1])]
        distinct = distinct[distinct >= 0][:k]
        merged[row, : len(distinct)] = distinct
    return merged


def _scores(users: np.ndarray, item_vectors: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Give float64 [n, k] exact scores of the items at ``positions`` [n, k] (-1 gives any score)."""
    scores = np.empty(positions.shape, np.float64)
    items = np.asarray(item_vectors, np.float64)
    for row, interests in enumerate(users.astype(np.float64)):
        scores[row] = (interests @ items[positions[row]].T).max(axis=0)
    return scores


def _checked(user_vectors: np.ndarray, item_vectors: np.ndarray) -> np.ndarray:
    """Give the users as contiguous float32 [n, m, d] after checking them against the items."""
    users = np.ascontiguousarray(user_vectors, np.float32)
    if users.ndim == 2:
        users = users[:, None, :]
    if users.ndim != 3 or np.ndim(item_vectors) != 2 or users.shape[2] != np.shape(item_vectors)[1]:
        raise BadVectors(
            f"user vectors of shape {np.shape(user_vectors)} do not fit item vectors of shape "
            f"{np.shape(item_vectors)}; expected [n, d] or [n, m, d], and [I, d]"
        )
    for name, vectors in (("user", users), ("item", item_vectors)):
        if not np.isfinite(vectors).all():
            raise BadVectors(f"some {name} vectors are not finite; the model that made them has diverged")
    return users


def _excluded(n_users: int, exclude: pa.ListArray | pa.ChunkedArray | None) -> tuple[np.ndarray, np.ndarray]:
    if exclude is None:
        return np.zeros(n_users + 1, np.int64), np.empty(0, np.int64)
    return flat_lists_of(n_users, exclude, "exclude")


@contextmanager
def _faiss_threads(n_threads: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(thread_count(n_threads))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
