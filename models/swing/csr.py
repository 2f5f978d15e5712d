"""How do clicks become lists: the users of each item and the items of each user, without sorting?"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def group(keys, values, n_groups):
    """
    List the values of each key, in their order.

    Args:
        keys, values: int32, of each pair.

    Returns:
        starts int64 [n_groups + 1] and the lists, uint32.
    """
    starts = np.zeros(n_groups + 1, np.int64)
    for key in keys:
        starts[key + 1] += 1
    for key in range(n_groups):
        starts[key + 1] += starts[key]
    next_place = starts[:-1].copy()
    lists = np.empty(len(keys), np.uint32)
    for place in range(len(keys)):
        key = keys[place]
        lists[next_place[key]] = values[place]
        next_place[key] += 1
    return starts, lists


@njit(cache=True, nogil=True)
def transpose(starts, lists, code_of_group, code_of_value, n_values):
    """
    List for each value the groups that hold it, each once, in the order of the groups.

    Args:
        starts, lists: as `group` gives them.
        code_of_group, code_of_value: int32, what groups and values are called in the result; groups with a
            negative code are left out.
        n_values: number of codes of values.

    Returns:
        starts int64 [n_values + 1] and the lists, uint32.
    """
    latest = np.full(n_values, -1, np.int32)
    new_starts = np.zeros(n_values + 1, np.int64)
    for group in range(len(starts) - 1):
        if code_of_group[group] >= 0:
            for place in range(starts[group], starts[group + 1]):
                value = code_of_value[lists[place]]
                if latest[value] != group:
                    latest[value] = group
                    new_starts[value + 1] += 1
    for value in range(n_values):
        new_starts[value + 1] += new_starts[value]
        latest[value] = -1
    next_place = new_starts[:-1].copy()
    transposed = np.empty(new_starts[-1], np.uint32)
    for group in range(len(starts) - 1):
        code = code_of_group[group]
        if code >= 0:
            for place in range(starts[group], starts[group + 1]):
                value = code_of_value[lists[place]]
                if latest[value] != group:
                    latest[value] = group
                    transposed[next_place[value]] = code
                    next_place[value] += 1
    return new_starts, transposed


@njit(cache=True, nogil=True)
def keep_first(starts, lists, most):
    """Keep the first ``most`` values of each list."""
    new_starts = np.zeros(len(starts), np.int64)
    for group in range(len(starts) - 1):
        new_starts[group + 1] = new_starts[group] + min(most, starts[group + 1] - starts[group])
    kept = np.empty(new_starts[-1], np.uint32)
    for group in range(len(starts) - 1):
        n = new_starts[group + 1] - new_starts[group]
        kept[new_starts[group] : new_starts[group + 1]] = lists[starts[group] : starts[group] + n]
    return new_starts, kept
