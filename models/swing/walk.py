"""
What are the Swing scores of one range of triggers, for clicks of any size?

For a trigger i only the users U_i matter, and of their items only those that at least two of them share.
The kernel lists, for every such item j, its users among U_i (`models.swing.neighbours`); walking those lists
meets every pair (u, v) in U_i ∩ U_j once to count |I_u ∩ I_v| and once to add its term.
"""

import numpy as np
from numba import njit

from models.selection import round_score
from models.swing.neighbours import list_common_users, new_neighbours
from models.swing.ranking import new_ranking, rank_targets
from models.swing.terms import sum_terms


@njit(cache=True, nogil=True)
def estimate_triggers(lists, truncation, least):
    """
    Estimate what each trigger takes, int64 [n_items] each.

    Args:
        lists: item_starts, item_users, user_starts, user_items (`models.swing.neighbours`).
        truncation: T, targets kept per trigger.
        least: users that a target shares with its trigger.

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
        lists: as for `estimate_triggers`.
        item_ids: int64 id per item code.
        weights: float64 w_u per user.
        pair_weight: 2 / (alpha + n), for (u, v) and (v, u), for each number n of shared items.
        truncation: T, targets kept per trigger.
        is_self_paired: add the terms u = v.
        seen: int32 scratch with a 0 for each item, which it holds again at the end.

    Returns:
        Per row, by trigger and rank: trigger id and target id int64, score float64, rank and number of
        common users int32.
    """
    least = 1 if is_self_paired else 2
    n_users_most, n_entries_most, n_rows_most = _largest(first, last, lists, truncation, least)
    neighbours = new_neighbours(n_users_most, n_entries_most, len(seen))
    reached, starts = neighbours[0][:2]
    users = (
        np.zeros(n_users_most, np.int32),
        np.empty(n_users_most + 1, np.uint32),
        np.empty(n_users_most),
    )
    score = np.empty(len(reached))
    ranking = new_ranking(len(reached))
    trigger_id, target_id = np.empty(n_rows_most, np.int64), np.empty(n_rows_most, np.int64)
    row_score = np.empty(n_rows_most)
    row_rank, row_common = np.empty(n_rows_most, np.int32), np.empty(n_rows_most, np.int32)
    n_rows = 0
    for trigger in range(first, last):
        n_reached = list_common_users(trigger, lists, least, seen, neighbours)
        if n_reached == 0:
            continue
        score[:n_reached] = 0.0
        mine = lists[1][lists[0][trigger] : lists[0][trigger + 1]]
        if is_self_paired:
            _add_self_terms(mine, lists[2], weights, pair_weight, neighbours[0], score)
        _add_terms(mine, weights, pair_weight, neighbours[0], users, score)
        for place in range(n_reached):
            score[place] = round_score(score[place])
        order = rank_targets(reached, score, n_reached, truncation, ranking)
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
def _add_self_terms(mine, user_starts, weights, pair_weight, targets, score):
    """Add the term u = v of each of the trigger's users ``mine`` to the score of each target of his."""
    _, _, _, user_targets, target_starts, _ = targets
    for u in range(len(mine)):
        user = mine[u]
        n_items = user_starts[user + 1] - user_starts[user]
        term = weights[user] * weights[user] * pair_weight[n_items] / 2
        for entry in range(target_starts[u], target_starts[u + 1]):
            score[user_targets[entry]] += term


@njit(cache=True, nogil=True)
def _add_terms(mine, weights, pair_weight, targets, users, score):
    """
    Add the terms of all pairs of the trigger's users ``mine`` to ``score``.

    Args:
        targets: from `list_common_users`; its next places are used up.
        users: scratch per user: zeros, partners, terms.
    """
    _, starts, next_place, user_targets, target_starts, list_users = targets
    n_shared, partners, term = users
    for u in range(len(mine)):
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
        if n_partners == 0:
            continue
        weight = weights[mine[u]]
        for place in range(n_partners):
            v = partners[place]
            term[v] = weight * weights[mine[v]] * pair_weight[n_shared[v] + 1]  # and the trigger itself
            n_shared[v] = 0
        for entry in range(target_starts[u], target_starts[u + 1]):
            target = user_targets[entry]
            first, last = next_place[target], starts[target + 1]
            if first < last:
                score[target] += sum_terms(term, 0, list_users, first, last)
