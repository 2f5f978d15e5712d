"""
Which items do several users of a trigger share, and who are these users?

``lists`` below is the tuple (item_starts, item_users, user_starts, user_items): the users of each trigger
after the user cap and the items of each user after the item cap, both ascending, as flat lists of uint32
with int64 starts. Users of one trigger are numbered 0, 1, ... in that order.

In a sparse log nearly all items of the trigger's users belong to one of them only. They are sifted out
first, by counting in cells that several items share and that stay in the processor's cache: an item whose
cell was met once was met once itself. Only the rest is counted exactly.
"""

import numpy as np
from numba import njit

CELLS_PER_ENTRY = 8
LEAST_CELLS = 1 << 10
MOST_CELLS = 1 << 19
HASH = np.uint32(0x9E3779B1)
NO_TARGET = 1 << 30  # users of an item that counts as no target: the trigger itself


@njit(cache=True, nogil=True)
def new_neighbours(n_users_most, n_entries_most, n_items):
    """
    Give the scratch of `list_common_users`, its first part being what it fills.

    Args:
        n_users_most: most users of one trigger.
        n_entries_most: most clicks that the users of one trigger have together.
        n_items: number of items.

    Returns:
        First the targets: their codes ``reached``; ``starts`` of their users in ``list_users``, a copy of
        the starts, ``user_targets``: for each user the places in ``reached`` of the items that are his;
        ``target_starts`` of the users in it; ``list_users``, ascending for each target. Then scratch.
    """
    n_reached_most = min(n_entries_most, n_items)
    targets = (
        np.empty(n_reached_most, np.uint32),
        np.empty(n_reached_most + 1, np.int32),
        np.empty(n_reached_most, np.int32),
        np.empty(n_entries_most + 1, np.uint32),
        np.empty(n_users_most + 1, np.int64),
        np.empty(n_entries_most, np.uint32),
    )
    sift = (
        np.zeros(MOST_CELLS, np.uint8),
        np.empty(n_entries_most + 1, np.uint32),
        np.empty(n_users_most + 1, np.int64),
    )
    return targets, sift


@njit(cache=True, nogil=True)
def list_common_users(trigger, lists, least, seen, neighbours):
    """
    Find the items that at least ``least`` (1 or 2) of the trigger's users clicked; give their number.

    Args:
        trigger: item code.
        lists: see above.
        least: see above.
        seen: int32 scratch with a 0 for each item, which it holds again at the end.
        neighbours: from `new_neighbours`; filled.
    """
    targets, sift = neighbours
    reached, starts, next_place, user_targets, target_starts, list_users = targets
    _, candidates, candidate_starts = sift
    item_starts, item_users, _, _ = lists
    users = item_users[item_starts[trigger] : item_starts[trigger + 1]]
    n_candidates = _candidates(users, lists, least, sift)
    n_reached = 0
    seen[trigger] = NO_TARGET
    for entry in range(n_candidates):
        item = candidates[entry]
        n = seen[item] + 1
        seen[item] = n
        if n == least:
            reached[n_reached] = item
            n_reached += 1
    end = 0
    for place in range(n_reached):
        item = reached[place]
        starts[place] = next_place[place] = end
        end += seen[item]
        seen[item] = -1 - place
    starts[n_reached] = end
    end = 0
    for u in range(len(users)):
        target_starts[u] = end
        for entry in range(candidate_starts[u], candidate_starts[u + 1]):
            item = candidates[entry]
            mark = seen[item]
            seen[item] = min(mark, 0)
            user_targets[end] = -1 - mark
            end += mark < 0  # without a branch, which would be taken at random
        for entry in range(target_starts[u], end):
            target = user_targets[entry]
            list_users[next_place[target]] = u
            next_place[target] += 1
    target_starts[len(users)] = end
    for place in range(n_reached):
        seen[reached[place]] = 0
        next_place[place] = starts[place]
    seen[trigger] = 0
    return n_reached


@njit(cache=True, nogil=True)
def _candidates(users, lists, least, sift):
    """Write the items of each user that ``least`` users may share, from its start on; give their number."""
    _, _, user_starts, user_items = lists
    cells, candidates, candidate_starts = sift
    n_entries = 0
    for user in users:
        n_entries += user_starts[user + 1] - user_starts[user]
    n_cells = LEAST_CELLS
    shift = np.uint32(32 - 10)
    while n_cells < CELLS_PER_ENTRY * n_entries and n_cells < MOST_CELLS:
        n_cells *= 2
        shift -= np.uint32(1)
    if least > 1:
        for user in users:
            for place in range(user_starts[user], user_starts[user + 1]):
                cell = np.uint32(user_items[place] * HASH) >> shift
                cells[cell] = min(cells[cell] + 1, 2)
    end = 0
    for u in range(len(users)):
        candidate_starts[u] = end
        for place in range(user_starts[users[u]], user_starts[users[u] + 1]):
            item = user_items[place]
            candidates[end] = item
            end += least == 1 or cells[np.uint32(item * HASH) >> shift] > 1
    candidate_starts[len(users)] = end
    if least > 1:
        cells[:n_cells] = 0
    return end
