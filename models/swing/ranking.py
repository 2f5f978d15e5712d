"""
In which order do the targets of one trigger come?

Best score first, ties by the lower item code. Scores are positive float64, whose bits order them as
integers do, so that a radix sort serves: it takes a few nanoseconds a target, where a heap takes a hundred.
Rounded scores have 13 zero bits at the end, which the sort skips.
"""

import numpy as np
from numba import njit

FEW = 40  # up to here an insertion sort is faster
DIGIT_BITS = 8
N_DIGITS = 1 << DIGIT_BITS
ZERO_BITS = 13
N_BUCKETS = 4096
BUCKET_SHIFT = 43  # keeps exponent and 9 bits of the mantissa


@njit(cache=True, nogil=True)
def new_ranking(n_most):
    """Give the scratch of `rank_targets` for up to ``n_most`` candidates."""
    return (
        np.empty(n_most, np.uint64),
        np.empty(n_most, np.uint64),
        np.empty(n_most, np.int32),
        np.empty(n_most, np.int32),
        np.empty(N_BUCKETS, np.int64),
    )


@njit(cache=True, nogil=True)
def rank_targets(codes, scores, n, truncation, is_by_code, ranking):
    """
    Rank the first ``n`` candidates: ``codes`` distinct, ``scores`` positive and rounded by `round_score`.

    Args:
        is_by_code: the candidates come in ascending order of code.
        ranking: scratch from `new_ranking`.

    Returns:
        Places in ``codes`` of the min(n, truncation) best, best first; valid until the next call.
    """
    keys, other_keys, places, other_places, counts = ranking
    bits = scores.view(np.uint64)
    n_kept = _preselect(bits, n, truncation, keys, places, counts)
    if n_kept <= FEW:
        _insertion_sort(keys, places, n_kept, codes)
    else:
        if not is_by_code:
            places, other_places = _sort_by_code(
                codes, keys, other_keys, places, other_places, n_kept, counts
            )
            for place in range(n_kept):
                keys[place] = bits[places[place]]
        places = _sort_by_key(keys, other_keys, places, other_places, n_kept, counts)
    return places[: min(n_kept, truncation)]


@njit(cache=True, nogil=True)
def _preselect(bits, n, truncation, keys, places, counts):
    """Take over the candidates that may be among the best, in their order, and give their number."""
    least = np.uint64(0)
    if n > truncation + truncation // 2:
        least = _bound(bits, n, truncation, counts)
    n_kept = 0
    for place in range(n):
        if bits[place] >= least:
            keys[n_kept] = bits[place]
            places[n_kept] = place
            n_kept += 1
    return n_kept


@njit(cache=True, nogil=True)
def _bound(bits, n, truncation, counts):
    """Give a bound that at least ``truncation`` of the scores reach, and not many more."""
    shift = np.uint64(BUCKET_SHIFT)
    highest = bits[0]
    for place in range(1, n):
        highest = max(highest, bits[place])
    top = np.int64(highest >> shift)
    counts[:] = 0
    for place in range(n):
        counts[min(top - np.int64(bits[place] >> shift), N_BUCKETS - 1)] += 1
    n_above = 0
    for bucket in range(N_BUCKETS - 1):
        n_above += counts[bucket]
        if n_above >= truncation:
            return np.uint64(top - bucket) << shift
    return np.uint64(0)


@njit(cache=True, nogil=True)
def _insertion_sort(keys, places, n, codes):
    for end in range(1, n):
        key, place = keys[end], places[end]
        code = codes[place]
        hole = end
        while hole > 0 and (
            keys[hole - 1] < key or (keys[hole - 1] == key and codes[places[hole - 1]] > code)
        ):
            keys[hole], places[hole] = keys[hole - 1], places[hole - 1]
            hole -= 1
        keys[hole], places[hole] = key, place


@njit(cache=True, nogil=True)
def _sort_by_code(codes, keys, other_keys, places, other_places, n, counts):
    """Sort the places by their code; gives the sorted places and the other array."""
    varying = 0
    for place in range(n):
        varying |= codes[places[place]] ^ codes[places[0]]
    shift = 0
    while varying >> shift:
        if (varying >> shift) & (N_DIGITS - 1):
            counts[:N_DIGITS] = 0
            for place in range(n):
                counts[(codes[places[place]] >> shift) & (N_DIGITS - 1)] += 1
            _counts_to_starts(counts)
            for place in range(n):
                digit = (codes[places[place]] >> shift) & (N_DIGITS - 1)
                other_places[counts[digit]] = places[place]
                counts[digit] += 1
            places, other_places = other_places, places
        shift += DIGIT_BITS
    return places, other_places


@njit(cache=True, nogil=True)
def _sort_by_key(keys, other_keys, places, other_places, n, counts):
    """Sort by descending key, equal keys staying in their order, and give the sorted places."""
    mask = np.uint64(N_DIGITS - 1)
    varying = np.uint64(0)
    for place in range(n):
        varying |= keys[place] ^ keys[0]
    for bit in range(ZERO_BITS, 64, DIGIT_BITS):
        shift = np.uint64(bit)
        if (varying >> shift) & mask:
            counts[:N_DIGITS] = 0
            for place in range(n):
                counts[mask - ((keys[place] >> shift) & mask)] += 1
            _counts_to_starts(counts)
            for place in range(n):
                digit = mask - ((keys[place] >> shift) & mask)
                start = counts[digit]
                other_keys[start] = keys[place]
                other_places[start] = places[place]
                counts[digit] = start + 1
            keys, other_keys = other_keys, keys
            places, other_places = other_places, places
    return places


@njit(cache=True, nogil=True)
def _counts_to_starts(counts):
    start = 0
    for digit in range(N_DIGITS):
        count = counts[digit]
        counts[digit] = start
        start += count
