"""
What are the Swing scores where all pairs of users fit in memory?

Without a user cap s(i, j) = s(j, i), so each pair of items is computed once, from the item with fewer
users, for which there is less to look up. |I_u ∩ I_v| is counted once for every pair of users, rather than
once for every trigger that they share.

Items are numbered 0, 1, ... by ascending number of users here (ties by code), so that the targets of i are
the items behind it. ``lists`` is the tuple (item_starts, item_users, user_starts, user_items) in these
numbers, all ascending. Users of one trigger are numbered 0, 1, ... in ascending order.
"""

import numpy as np
from numba import njit

from models.selection import round_score
from models.swing.ranking import new_ranking, rank_targets
from models.swing.terms import sum_terms


@njit(cache=True, nogil=True)
def user_costs(lists):
    """Estimate the cost of `count_shared_items` for each user, int64."""
    item_starts, _, user_starts, user_items = lists
    costs = np.zeros(len(user_starts) - 1, np.int64)
    for user in range(len(costs)):
        for place in range(user_starts[user], user_starts[user + 1]):
            item = user_items[place]
            costs[user] += item_starts[item + 1] - item_starts[item]
    return costs


@njit(cache=True, nogil=True)
def item_costs(lists):
    """Estimate the cost of `pair_scores` for each item, and bound its pairs; both int64."""
    item_starts, item_users, user_starts, _ = lists
    costs = np.zeros(len(item_starts) - 1, np.int64)
    n_pairs_most = np.zeros(len(item_starts) - 1, np.int64)
    for item in range(len(costs)):
        n_entries = 0
        for place in range(item_starts[item], item_starts[item + 1]):
            user = item_users[place]
            n_entries += user_starts[user + 1] - user_starts[user]
        n_users = item_starts[item + 1] - item_starts[item]
        costs[item] = n_users * n_users + 4 * n_entries
        n_pairs_most[item] = min(len(costs) - 1 - item, n_entries // 2)
    return costs, n_pairs_most


@njit(cache=True, nogil=True)
def count_shared_items(first, last, lists, n_shared):
    """
    Write |I_u ∩ I_v| to ``n_shared[u, v]`` for the users u from ``first`` up to ``last`` and all v > u.

    Args:
        n_shared: uint16 [n_users, n_users], zeros.
    """
    item_starts, item_users, user_starts, user_items = lists
    behind = np.empty(len(item_starts) - 1, np.int64)  # for each item, where its users behind u start
    for item in range(len(behind)):
        users = item_users[item_starts[item] : item_starts[item + 1]]
        behind[item] = item_starts[item] + np.searchsorted(users, first)
    for u in range(first, last):
        row = n_shared[u]
        for place in range(user_starts[u], user_starts[u + 1]):
            item = user_items[place]
            behind[item] += 1
            for other in range(behind[item], item_starts[item + 1]):
                row[item_users[other]] += 1


@njit(cache=True, nogil=True)
def pair_scores(first, last, lists, weights, pair_weight, n_shared, n_most):
    """
    Score the pairs of items (i, j), i < j, for i from ``first`` up to ``last``, which is excluded (Eq. 3).

    Args:
        lists: see above.
        weights: float64 w_u per user.
        pair_weight: 2 / (alpha + n) for each number n of shared items.
        n_shared: |I_u ∩ I_v| for u < v.
        n_most: bound of the number of pairs.

    Returns:
        ``n_targets`` int32 [last - first], and for each pair, by i: j uint32, score float64, number of
        common users int32.
    """
    item_starts, item_users, user_starts, user_items = lists
    n_items = len(item_starts) - 1
    n_users_most = 0
    n_entries_most = 0
    for item in range(first, last):
        n_users = item_starts[item + 1] - item_starts[item]
        n_users_most = max(n_users_most, n_users)
        n_entries = 0
        for place in range(item_starts[item], item_starts[item + 1]):
            user = item_users[place]
            n_entries += user_starts[user + 1] - user_starts[user]
        n_entries_most = max(n_entries_most, n_entries)
    seen = np.zeros(n_items, np.int32)
    reached = np.empty(min(n_items, n_entries_most), np.uint32)
    next_place = np.empty(min(n_items, n_entries_most) + 1, np.int32)
    list_users = np.empty(n_entries_most, np.uint32)
    behind = np.empty(n_users_most, np.int64)
    term = np.empty(n_users_most * n_users_most)
    n_targets = np.zeros(last - first, np.int32)
    row_target = np.empty(n_most, np.uint32)
    row_score = np.empty(n_most)
    row_common = np.empty(n_most, np.int32)
    n_rows = 0
    for i in range(first, last):
        users = item_users[item_starts[i] : item_starts[i + 1]]
        n_reached = _list_common_users(
            i, users, user_starts, user_items, seen, reached, next_place, list_users, behind
        )
        if n_reached == 0:
            continue
        _fill_terms(users, weights, pair_weight, n_shared, term)
        start = 0
        for place in range(n_reached):
            end = next_place[place]
            total = 0.0
            for user_place in range(start, end - 1):
                offset = list_users[user_place] * len(users)
                total += sum_terms(term, offset, list_users, user_place + 1, end)
            row_target[n_rows] = reached[place]
            row_score[n_rows] = round_score(total)
            row_common[n_rows] = end - start
            n_rows += 1
            start = end
        n_targets[i - first] = n_reached
    return n_targets, row_target[:n_rows].copy(), row_score[:n_rows].copy(), row_common[:n_rows].copy()


@njit(cache=True, nogil=True)
def _list_common_users(i, users, user_starts, user_items, seen, reached, next_place, list_users, behind):
    """
    Find the items behind ``i`` that two of its users clicked; give their number.

    Fills ``reached`` with them and ``list_users`` with their users, ascending, up to their ``next_place``.
    """
    n_reached = 0
    for u in range(len(users)):
        place = user_starts[users[u] + 1] - 1
        while user_items[place] > i:
            item = user_items[place]
            n = seen[item] + 1
            seen[item] = n
            if n == 2:
                reached[n_reached] = item
                n_reached += 1
            place -= 1
        behind[u] = place + 1
    end = 0
    for place in range(n_reached):
        item = reached[place]
        next_place[place] = end
        end += seen[item]
        seen[item] = -1 - place
    for u in range(len(users)):
        for place in range(behind[u], user_starts[users[u] + 1]):
            item = user_items[place]
            mark = seen[item]
            if mark < 0:
                target = np.uint32(-1 - mark)
                list_users[next_place[target]] = u
                next_place[target] += 1
            else:
                seen[item] = 0
    for place in range(n_reached):
        seen[reached[place]] = 0
    return n_reached


@njit(cache=True, nogil=True)
def _fill_terms(users, weights, pair_weight, n_shared, term):
    """Write the term of users u < v to ``term[u * len(users) + v]``."""
    n_users = len(users)
    for u in range(n_users - 1):
        weight = weights[users[u]]
        shared = n_shared[users[u]]
        row = term[u * n_users : (u + 1) * n_users]
        for v in range(u + 1, n_users):
            row[v] = weight * weights[users[v]] * pair_weight[shared[users[v]]]


@njit(cache=True, nogil=True)
def count_rows(first, n_targets, target, order, counts):
    """Add to ``counts[code + 1]`` how many of the pairs, as `pair_scores` gave them, each item is in."""
    place = 0
    for i in range(len(n_targets)):
        counts[order[first + i] + 1] += n_targets[i]
        for _ in range(n_targets[i]):
            counts[order[target[place]] + 1] += 1
            place += 1


@njit(cache=True, nogil=True)
def put_rows(first, pairs, order, next_place, rows):
    """
    Put each pair into the rows of both its items.

    Args:
        first: the item i that the pairs start with.
        pairs: as `pair_scores` gave them.
        order: int32, the item code of each number.
        next_place: int64 [n_items], where the next row of each item code goes; moved on.
        rows: target codes uint32, scores float64, numbers of common users int32.
    """
    n_targets, target, score, n_common = pairs
    row_target, row_score, row_common = rows
    place = 0
    for i in range(len(n_targets)):
        code = order[first + i]
        for _ in range(n_targets[i]):
            other = order[target[place]]
            for trigger, reached in ((code, other), (other, code)):
                row = next_place[trigger]
                next_place[trigger] = row + 1
                row_target[row] = reached
                row_score[row] = score[place]
                row_common[row] = n_common[place]
            place += 1


@njit(cache=True, nogil=True)
def ranked_rows(first, last, starts, rows, item_ids, truncation):
    """
    Rank the rows of the triggers ``first`` up to ``last``, which is excluded.

    Args:
        starts: int64, where the rows of each trigger start.
        rows: as `put_rows` left them.
        item_ids: int64 id per item code.
        truncation: T, targets kept per trigger.

    Returns:
        Per row, by trigger and rank: trigger id and target id int64, score float64, rank and number of
        common users int32.
    """
    n_candidates_most = 0
    n_rows_most = 0
    for trigger in range(first, last):
        n_candidates = starts[trigger + 1] - starts[trigger]
        n_candidates_most = max(n_candidates_most, n_candidates)
        n_rows_most += min(truncation, n_candidates)
    ranking = new_ranking(n_candidates_most)
    trigger_id, target_id = np.empty(n_rows_most, np.int64), np.empty(n_rows_most, np.int64)
    row_score = np.empty(n_rows_most)
    row_rank, row_common = np.empty(n_rows_most, np.int32), np.empty(n_rows_most, np.int32)
    n_rows = 0
    for trigger in range(first, last):
        mine = slice(starts[trigger], starts[trigger + 1])
        codes, score, n_common = rows[0][mine], rows[1][mine], rows[2][mine]
        order = rank_targets(codes, score, len(codes), truncation, False, ranking)
        for rank in range(len(order)):
            place = order[rank]
            trigger_id[n_rows] = item_ids[trigger]
            target_id[n_rows] = item_ids[codes[place]]
            row_score[n_rows] = score[place]
            row_rank[n_rows] = rank + 1
            row_common[n_rows] = n_common[place]
            n_rows += 1
    return trigger_id, target_id, row_score, row_rank, row_common
