"""
What are the Swing scores of one range of triggers, for clicks of any size?

For a trigger i only the users U_i matter, and of their items only those that at least two of them share.
The kernel lists, for every such item j, its users among U_i; walking those lists meets every pair (u, v) in
U_i ∩ U_j once to count |I_u ∩ I_v| and once to add its term. One array has a cell for each item; all else
is as short as the trigger's own neighbourhood and stays in the processor's cache.

``lists`` below is the tuple (item_starts, item_users, user_starts, user_items): the users of each trigger
after the user cap and the items of each user after the item cap, both ascending, as flat lists of uint32
with int64 starts. Users of one trigger are numbered 0, 1, ... in that order. ``pair_weight[n]`` is
2 / (alpha + n): the weight of (u, v) and (v, u), without w_u and w_v, when u and v share n items.
"""

import numpy as np
from numba import njit

from models.selection import round_score
from models.swing.ranking import new_ranking, rank_targets
from models.swing.terms import sum_terms


NO_TARGET = 1 << 30  # users of an item that counts as no target: the trigger itself


@njit(cache=True, nogil=True)
def estimate_triggers(lists, truncation, least):
    """
    Estimate what each trigger takes, int64 [n_items] each.

    Returns:
        Its cost, in no unit; the clicks of its users; and a bound of its rows.
    """
    item_starts, item_users, user_starts, _ = lists
    n_items = len(item_starts) - 1
    costs = np.empty(n_items, np.int64)
    n_entries = np.zeros(n_items, np.int64)
    n_rows = np.empty(n_items, np.int64)
    for trigger in range(n_items):
        n_users = item_starts[trigger + 1] - item_starts[trigger]
        for place in range(item_starts[trigger], item_starts[trigger + 1]):
            user = item_users[place]
            n_entries[trigger] += user_starts[user + 1] - user_starts[user]
        costs[trigger] = n_entries[trigger] * (8 + n_users)
        n_rows[trigger] = min(truncation, n_entries[trigger] // least, n_items - 1)
    return costs, n_entries, n_rows


@njit(cache=True, nogil=True)
def walk_rows(first, last, lists, item_ids, weights, pair_weight, truncation, is_self_paired, seen):
    """
    Score and rank the targets of the triggers ``first`` up to ``last``, which is excluded (Eq. 3).

    Args:
        lists: see above.
        item_ids: int64 id per item code.
        weights: float64 w_u per user.
        pair_weight: see above.
        truncation: T, targets kept per trigger.
        is_self_paired: add the terms u = v.
        seen: int32 scratch with a 0 for each item, which it holds again at the end.

    Returns:
        Per row, by trigger and rank: trigger id and target id int64, score float64, rank and number of
        common users int32.
    """
    least = 1 if is_self_paired else 2
    n_users_most, n_entries_most, n_rows_most = _largest(first, last, lists, truncation, least)
    n_reached_most = min(n_entries_most, len(seen))
    users = (
        np.empty(n_users_most + 1, np.int64),
        np.zeros(n_users_most, np.int32),
        np.empty(n_users_most + 1, np.uint32),
        np.empty(n_users_most),
    )
    targets = (
        np.empty(n_reached_most, np.uint32),
        np.empty(n_reached_most + 1, np.int32),
        np.empty(n_reached_most, np.int32),
    )
    entries = (np.empty(n_entries_most, np.uint32), np.empty(n_entries_most + 1, np.uint32))
    score = np.empty(n_reached_most)
    ranking = new_ranking(n_reached_most)
    trigger_id, target_id = np.empty(n_rows_most, np.int64), np.empty(n_rows_most, np.int64)
    row_score = np.empty(n_rows_most)
    row_rank, row_common = np.empty(n_rows_most, np.int32), np.empty(n_rows_most, np.int32)
    n_rows = 0
    for trigger in range(first, last):
        n_reached = _list_common_users(trigger, lists, least, seen, users, targets, entries)
        if n_reached == 0:
            continue
        _add_terms(
            trigger, lists, weights, pair_weight, is_self_paired, n_reached, users, targets, entries, score
        )
        reached, starts, _ = targets
        for place in range(n_reached):
            score[place] = round_score(score[place])
        order = rank_targets(reached, score, n_reached, truncation, False, ranking)
        for rank in range(len(order)):
            place = order[rank]
            trigger_id[n_rows] = item_ids[trigger]
            target_id[n_rows] = item_ids[reached[place]]
            row_score[n_rows] = score[place]
            row_rank[n_rows] = rank + 1
            row_common[n_rows] = starts[place + 1] - starts[place]
            n_rows += 1
    return (
        trigger_id[:n_rows].copy(),
        target_id[:n_rows].copy(),
        row_score[:n_rows].copy(),
        row_rank[:n_rows].copy(),
        row_common[:n_rows].copy(),
    )


@njit(cache=True, nogil=True)
def _largest(first, last, lists, truncation, least):
    """Give the most users of one trigger, the most clicks of one trigger's users, a bound of all rows."""
    item_starts, item_users, user_starts, _ = lists
    n_users_most = 0
    n_entries_most = 0
    n_rows_most = 0
    for trigger in range(first, last):
        n_entries = 0
        for place in range(item_starts[trigger], item_starts[trigger + 1]):
            user = item_users[place]
            n_entries += user_starts[user + 1] - user_starts[user]
        n_users_most = max(n_users_most, item_starts[trigger + 1] - item_starts[trigger])
        n_entries_most = max(n_entries_most, n_entries)
        n_rows_most += min(truncation, n_entries // least, len(item_starts) - 1)
    return n_users_most, n_entries_most, n_rows_most


@njit(cache=True, nogil=True)
def _list_common_users(trigger, lists, least, seen, users, targets, entries):
    """
    Find the items that at least ``least`` of the trigger's users clicked; give their number.

    Fills targets = (reached: their codes, starts of their lists, next: a copy of the starts) and
    entries = (list_users: their users, ascending, user_targets: for each user the places in reached of the
    items that are his), the latter from users[0].
    """
    item_starts, item_users, user_starts, user_items = lists
    reached, starts, next_place = targets
    list_users, user_targets = entries
    target_starts = users[0]
    first_user = item_starts[trigger]
    n_users = item_starts[trigger + 1] - first_user
    n_reached = 0
    seen[trigger] = NO_TARGET
    for u in range(n_users):
        user = item_users[first_user + u]
        for place in range(user_starts[user], user_starts[user + 1]):
            item = user_items[place]
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
    for u in range(n_users):
        user = item_users[first_user + u]
        target_starts[u] = end
        for place in range(user_starts[user], user_starts[user + 1]):
            mark = seen[user_items[place]]
            seen[user_items[place]] = min(mark, 0)
            user_targets[end] = -1 - mark
            end += mark < 0  # without a branch, which would be taken at random
        for entry in range(target_starts[u], end):
            target = user_targets[entry]
            list_users[next_place[target]] = u
            next_place[target] += 1
    target_starts[n_users] = end
    for place in range(n_reached):
        seen[reached[place]] = 0
        next_place[place] = starts[place]
    return n_reached


@njit(cache=True, nogil=True)
def _add_terms(
    trigger, lists, weights, pair_weight, is_self_paired, n_reached, users, targets, entries, score
):
    """Sum the terms of all pairs of the trigger's users into ``score``; uses up the next places."""
    item_starts, item_users, user_starts, _ = lists
    _, starts, next_place = targets
    list_users, user_targets = entries
    target_starts, n_shared, partners, term = users
    first_user = item_starts[trigger]
    score[:n_reached] = 0.0
    for u in range(item_starts[trigger + 1] - first_user):
        user = item_users[first_user + u]
        n_partners = 0
        for entry in range(target_starts[u], target_starts[u + 1]):
            target = user_targets[entry]
            next_place[target] += 1  # past u itself: what is left are the users v > u
            for place in range(next_place[target], starts[target + 1]):
                v = list_users[place]
                n = n_shared[v]
                partners[n_partners] = v
                n_partners += n == 0
                n_shared[v] = n + 1
        for place in range(n_partners):
            v = partners[place]
            n = n_shared[v] + 1  # and the trigger itself
            term[v] = weights[user] * weights[item_users[first_user + v]] * pair_weight[n]
            n_shared[v] = 0
        self_term = weights[user] * weights[user] * pair_weight[user_starts[user + 1] - user_starts[user]] / 2
        for entry in range(target_starts[u], target_starts[u + 1]):
            target = user_targets[entry]
            if is_self_paired:
                score[target] += self_term
            first, last = next_place[target], starts[target + 1]
            if first < last:
                score[target] += sum_terms(term, 0, list_users, first, last)
