"""
In which order do the targets of one trigger come?

Best score first, ties by the lower item code. Scores are positive float64, whose bits order them as
integers do. They are spread over 2**16 buckets by a radix sort of two digits, and what meets in a bucket is
sorted by itself. This takes a few nanoseconds a target, where a heap takes a hundred.

A mark (uint64) is a candidate as it is sorted: its bucket and, in the low half, its place.
"""

import numpy as np
from numba import njit

FEW = 40  # up to here an insertion sort is faster
DIGIT_BITS = 8
N_DIGITS = 1 << DIGIT_BITS
DIGIT = np.uint64(N_DIGITS - 1)
PLACE_BITS = np.uint64(32)
PLACE = np.uint64(0xFFFFFFFF)
ALL_BITS = np.uint64(0xFFFFFFFFFFFFFFFF)


@njit(cache=True, nogil=True)
def new_ranking(n_most):
    """Give the scratch of `rank_targets` for up to ``n_most`` candidates."""
    return (
        np.empty(n_most, np.uint64),
        np.empty(n_most, np.uint64),
        np.empty(n_most, np.uint32),
        np.empty((2, N_DIGITS), np.uint32),
    )


@njit(cache=True, nogil=True)
def rank_targets(codes, scores, n, truncation, ranking):
    """
    Rank the first ``n`` candidates: ``codes`` (uint32) distinct, ``scores`` positive.

    Args:
        ranking: scratch from `new_ranking`.

    Returns:
        Places in ``codes`` of the min(n, truncation) best, best first; valid until the next call.
    """
    marks, other_marks, places, counts = ranking
    bits = scores.view(np.uint64)
    if n > FEW:
        _spread(bits, n, marks, other_marks, counts)
    else:
        for place in range(n):
            marks[place] = place
    n_ranked = min(n, truncation)
    first = 0
    while first < n_ranked:
        end = first + 1
        while end < n and marks[end] >> PLACE_BITS == marks[first] >> PLACE_BITS:
            end += 1
        if end - first > FEW:
            _sort(codes, 4, np.uint64(0), marks[first:end], other_marks, counts[0])
            _sort(bits, 8, ALL_BITS, marks[first:end], other_marks, counts[0])
        elif end - first > 1:
            _insertion_sort(codes, bits, marks[first:end])
        first = end
    for rank in range(n_ranked):
        places[rank] = marks[rank] & PLACE
    return places[:n_ranked]


@njit(cache=True, nogil=True)
def _spread(bits, n, marks, other_marks, counts):
    """Mark the candidates and sort them by bucket; the lower it is, the better they are."""
    highest = lowest = bits[0]
    for place in range(1, n):
        highest = max(highest, bits[place])
        lowest = min(lowest, bits[place])
    shift = np.uint64(0)
    while (highest - lowest) >> shift >= N_DIGITS * N_DIGITS:
        shift += np.uint64(1)
    low_shift, high_shift = PLACE_BITS, PLACE_BITS + np.uint64(DIGIT_BITS)
    counts[:] = 0
    for place in range(n):
        mark = ((highest - bits[place]) >> shift) << PLACE_BITS | np.uint64(place)
        marks[place] = mark
        counts[0, (mark >> low_shift) & DIGIT] += np.uint32(1)
        counts[1, mark >> high_shift] += np.uint32(1)
    for counts_of_digit in counts:
        _counts_to_starts(counts_of_digit)
    for place in range(n):
        _put(marks[place], (marks[place] >> low_shift) & DIGIT, other_marks, counts[0])
    for place in range(n):
        _put(other_marks[place], other_marks[place] >> high_shift, marks, counts[1])


@njit(cache=True, nogil=True)
def _sort(values, n_digits, flipped, marks, other_marks, counts):
    """Sort by these digits of the candidates' values, with bits ``flipped``; equal ones keep their order."""
    source, target = marks, other_marks[: len(marks)]
    for digit in range(n_digits):
        shift = np.uint64(digit * DIGIT_BITS)
        counts[:] = 0
        for mark in source:
            counts[((values[mark & PLACE] ^ flipped) >> shift) & DIGIT] += np.uint32(1)
        _counts_to_starts(counts)
        for mark in source:
            _put(mark, ((values[mark & PLACE] ^ flipped) >> shift) & DIGIT, target, counts)
        source, target = target, source  # as often as there are digits: they end in ``marks``


@njit(cache=True, nogil=True)
def _counts_to_starts(counts):
    start = np.uint32(0)
    for digit in range(N_DIGITS):
        count = counts[digit]
        counts[digit] = start
        start += count


@njit(cache=True, nogil=True)
def _put(mark, digit, marks, next_place):
    marks[next_place[digit]] = mark
    next_place[digit] += np.uint32(1)


@njit(cache=True, nogil=True)
def _insertion_sort(codes, bits, marks):
    """Sort by score and code."""
    for end in range(1, len(marks)):
        moved = marks[end]
        mine, code = bits[moved & PLACE], codes[moved & PLACE]
        hole = end
        while hole > 0:
            other = marks[hole - 1] & PLACE
            if bits[other] > mine or (bits[other] == mine and codes[other] < code):
                break
            marks[hole] = marks[hole - 1]
            hole -= 1
        marks[hole] = moved
