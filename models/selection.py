"""
Which k of these scored items come first?

Best score first, ties by the lower code. Codes stand for item ids in ascending order, so that a tie by
code is a tie by item id. Written out as a heap because numba takes many seconds to compile numpy's sorts.
"""

from numba import njit

# 2**13 + 1: keeps 40 of the 53 bits of a float64.
SPLIT = 8193.0


@njit(cache=True, nogil=True)
def round_score(score):
    """
    Round a float64 to 40 significant bits (relative error below 1e-12).

    Scores that are equal on paper but were summed in another order differ in their last bits; rounded
    they are equal, and the item id decides.
    """
    shifted = score * SPLIT
    return shifted - (shifted - score)


@njit(cache=True, nogil=True)
def best_first(codes, scores, k):
    """
    Select the ``k`` best of ``codes`` [n], distinct and in any order, by ``scores`` [n] without NaN.

    Returns the codes and scores of the min(k, n) best, best first, ties by the lower code.
    """
    size = min(k, len(codes))
    best_codes, best_scores = codes[:size].copy(), scores[:size].copy()
    if size == 0:
        return best_codes, best_scores
    for parent in range(size // 2 - 1, -1, -1):
        _sift_down(best_codes, best_scores, parent, size)
    for place in range(size, len(codes)):
        if _is_behind(best_scores[0], best_codes[0], scores[place], codes[place]):
            best_codes[0], best_scores[0] = codes[place], scores[place]
            _sift_down(best_codes, best_scores, 0, size)
    for end in range(size - 1, 0, -1):
        best_codes[0], best_codes[end] = best_codes[end], best_codes[0]
        best_scores[0], best_scores[end] = best_scores[end], best_scores[0]
        _sift_down(best_codes, best_scores, 0, end)
    return best_codes, best_scores


@njit(cache=True, nogil=True)
def _is_behind(score, code, other_score, other_code):
    return score < other_score or (score == other_score and code > other_code)


@njit(cache=True, nogil=True)
def _sift_down(codes, scores, parent, size):
    """Restore the heap of ``size`` items, the last in order on top, below ``parent``."""
    code, score = codes[parent], scores[parent]
    child = 2 * parent + 1
    while child < size:
        right = child + 1
        if right < size and _is_behind(scores[right], codes[right], scores[child], codes[child]):
            child = right
        if not _is_behind(scores[child], codes[child], score, code):
            break
        codes[parent], scores[parent] = codes[child], scores[child]
        parent, child = child, 2 * child + 1
    codes[parent], scores[parent] = code, score


@njit(cache=True, nogil=True)
def is_in_sorted(sorted_ids, value):
    """Tell whether ``value`` is among ``sorted_ids`` (ascending)."""
    low, high = 0, len(sorted_ids)
    while low < high:
        middle = (low + high) // 2
        if sorted_ids[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < len(sorted_ids) and sorted_ids[low] == value
