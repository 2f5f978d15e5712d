"""What does a user get of all scenarios together? One list of their candidates, best score first."""

import numpy as np
import pyarrow as pa

from models.ragged import flat_lists


def merge_scenarios(candidates: pa.Table, n_moments: int, k: int) -> np.ndarray:
    """
    Merge each moment's lists by score; ties go to the better place, then to the scenario's name.

    Args:
        candidates: of ``candidates_at``.
        n_moments: number of its moments.
        k: length of a merged list.

    Returns:
        int64 [n_moments, k], distinct items, best first, padded with -1.
    """
    offsets, items = flat_lists(candidates["item_ids"])
    lengths = np.diff(offsets)
    moments = np.repeat(candidates["moment"].to_numpy(), lengths)
    places = np.arange(len(items)) - np.repeat(offsets[:-1], lengths)
    scores = candidates["scores"].combine_chunks().flatten().to_numpy()
    order = np.lexsort((places, -scores, moments))  # stable: a moment's scenarios come by name
    moments, items = moments[order], items[order]
    is_first = _is_first_of_pair(moments, items)
    moments, items = moments[is_first], items[is_first]
    places = np.arange(len(items)) - np.searchsorted(moments, moments)
    is_kept = places < k
    merged = np.full((n_moments, k), -1, np.int64)
    merged[moments[is_kept], places[is_kept]] = items[is_kept]
    return merged


def _is_first_of_pair(moments: np.ndarray, items: np.ndarray) -> np.ndarray:
    order = np.lexsort((items, moments))  # stable
    is_new = np.ones(len(order), bool)
    is_new[1:] = (moments[order][1:] != moments[order][:-1]) | (items[order][1:] != items[order][:-1])
    is_first = np.empty(len(order), bool)
    is_first[order] = is_new
    return is_first
