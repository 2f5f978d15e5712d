"""
What are the Swing scores where all pairs of items are wanted at once?

Without a user cap s(i, j) = s(j, i), so each pair of items is computed once, from the item with fewer
users, for which there is less to look up. |I_u ∩ I_v| is counted once for every pair of users, rather than
once for every trigger that they share.

Items are numbered 0, 1, ... by ascending number of users here (ties by code), so that the targets of i are
the items behind it. ``lists`` is the tuple (item_starts, item_users, user_starts, user_items) in these
numbers, all ascending. Users of one trigger are numbered 0, 1, ... in ascending order.

What the pairs of an item's users share is counted user by user, in a row that stays in the processor's
cache, and written to where `pair_scores` reads it in order: ``n_shared`` (uint16) holds |I_u ∩ I_v| of the
users u < v of each item, from its ``cell_starts`` (int64) on, ordered by u and v.

``pairs`` holds for each pair of items its score (float64), second item (uint32) and number of common users
(int32); ``begins`` and ``ends`` (int64) tell where those of each first item lie.
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
    item_starts, _, user_starts, user_items = lists
    n_items = len(item_starts) - 1
    n_entries = np.zeros(n_items, np.int64)
    for user in range(len(user_starts) - 1):
        for place in range(user_starts[user], user_starts[user + 1]):
            n_entries[user_items[place]] += user_starts[user + 1] - 1 - place
    costs = np.empty(n_items, np.int64)
    n_pairs_most = np.empty(n_items, np.int64)
    for item in range(n_items):
        n_users = item_starts[item + 1] - item_starts[item]
        costs[item] = n_users * n_users + 8 * n_entries[item]
        n_pairs_most[item] = min(n_items - 1 - item, n_entries[item] // 2)
    return costs, n_pairs_most


@njit(cache=True, nogil=True)
def count_shared_items(first, last, items, lists, cell_starts, n_shared):
    """
    Fill ``n_shared`` for the users u from ``first`` up to ``last``, which is excluded, and all v > u.

    Args:
        items: first item and, excluded, last item whose cells are filled.
    """
    item_starts, item_users, user_starts, user_items = lists
    behind = np.empty(len(item_starts) - 1, np.int64)  # for each item, where its users behind u start
    for item in range(len(behind)):
        users = item_users[item_starts[item] : item_starts[item + 1]]
        behind[item] = item_starts[item] + np.searchsorted(users, first)
    row = np.zeros(len(user_starts) - 1, np.uint16)
    for u in range(first, last):
        mine = user_items[user_starts[u] : user_starts[u + 1]]
        for item in mine:
            behind[item] += 1
            for place in range(behind[item], item_starts[item + 1]):
                row[item_users[place]] += np.uint16(1)
        for item in mine:
            if items[0] <= item < items[1]:
                n_users = item_starts[item + 1] - item_starts[item]
                n_before = behind[item] - 1 - item_starts[item]
                cell = np.uint64(cell_starts[item] + n_before * (2 * n_users - n_before - 1) // 2)
                for place in range(behind[item], item_starts[item + 1]):
                    n_shared[cell] = row[item_users[place]]
                    cell += np.uint64(1)
        row[u + 1 :] = 0


@njit(cache=True, nogil=True)
def pair_scores(first, last, lists, weights, pair_weight, cell_starts, n_shared, pairs, begins, ends):
    """
    Score the pairs of items (i, j), i < j, for i from ``first`` up to ``last``, which is excluded (Eq. 3).

    Args:
        lists: see above.
        weights: float64 w_u per user.
        pair_weight: 2 / (alpha + n) for each number n of shared items.
        cell_starts, n_shared: see above.
        pairs: filled from ``begins[first]`` on, without gaps.
        begins, ends: filled.
    """
    item_starts, item_users, user_starts, user_items = lists
    pair_score, pair_target, pair_common = pairs
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
    reached = np.empty(n_items + 1, np.uint32)
    target_ends = np.empty(n_items, np.int32)
    list_users = np.empty(n_entries_most, np.uint32)
    behind = np.empty(n_users_most, np.int64)
    term = np.empty(n_users_most * n_users_most)
    pair = begins[first]
    for i in range(first, last):
        begins[i] = pair
        users = item_users[item_starts[i] : item_starts[i + 1]]
        n_reached = _list_common_users(
            i, users, user_starts, user_items, seen, reached, target_ends, list_users, behind
        )
        if n_reached:
            _fill_terms(weights[users], pair_weight, n_shared[cell_starts[i] : cell_starts[i + 1]], term)
        start = 0
        for place in range(n_reached):
            end = target_ends[place]
            total = 0.0
            for user_place in range(start, end - 1):
                offset = list_users[user_place] * len(users)
                total += sum_terms(term, offset, list_users, user_place + 1, end)
            pair_target[pair] = reached[place]
            pair_score[pair] = round_score(total)
            pair_common[pair] = end - start
            pair += 1
            start = end
        ends[i] = pair


@njit(cache=True, nogil=True)
def _list_common_users(i, users, user_starts, user_items, seen, reached, ends, list_users, behind):
    """
    Find the items behind ``i`` that two of its users clicked; give their number.

    Fills ``reached`` with them and ``list_users`` with their users, ascending, up to their ``ends``.
    """
    n_reached = 0
    for u in range(len(users)):
        place = user_starts[users[u] + 1] - 1
        while user_items[place] > i:
            item = user_items[place]
            n = seen[item] + 1
            seen[item] = n
            reached[n_reached] = item
            n_reached += n == 2  # without a branch, which would be taken at random
            place -= 1
        behind[u] = place + 1
    end = 0
    for place in range(n_reached):
        item = reached[place]
        n = seen[item]
        seen[item] = -1 - end  # where its next user goes
        end += n
        ends[place] = end
    for u in range(len(users)):
        for place in range(behind[u], user_starts[users[u] + 1]):
            item = user_items[place]
            mark = seen[item]
            if mark < 0:
                list_users[np.uint32(-1 - mark)] = u
                seen[item] = mark - 1
            else:
                seen[item] = 0
    for place in range(n_reached):
        seen[reached[place]] = 0
    return n_reached


@njit(cache=True, nogil=True)
def _fill_terms(weights, pair_weight, n_shared, term):
    """Write the term of users u < v to ``term[u * n_users + v]``."""
    n_users = len(weights)
    cell = np.uint64(0)
    for u in range(n_users - 1):
        row = term[u * n_users : (u + 1) * n_users]
        for v in range(u + 1, n_users):
            row[v] = weights[u] * weights[v] * pair_weight[n_shared[cell]]
            cell += np.uint64(1)


@njit(cache=True, nogil=True)
def count_backwards(target, begins, ends):
    """Give where the pairs of each second item start once `list_backwards` has listed them, int64."""
    starts = np.zeros(len(begins) + 1, np.int64)
    for i in range(len(begins)):
        for pair in range(begins[i], ends[i]):
            starts[target[pair] + 1] += 1
    for item in range(len(begins)):
        starts[item + 1] += starts[item]
    return starts


@njit(cache=True, nogil=True)
def list_backwards(target, begins, ends, starts, backwards):
    """
    List for each second item its pairs.

    Args:
        target, begins, ends: as `pair_scores` left them.
        starts: from `count_backwards`.
        backwards: uint32 [n_pairs, 2]; filled with first item and place in ``pairs``.
    """
    next_place = starts[:-1].copy()
    for i in range(len(begins)):
        for pair in range(begins[i], ends[i]):
            place = next_place[target[pair]]
            next_place[target[pair]] = place + 1
            backwards[place, 0] = i
            backwards[place, 1] = pair


@njit(cache=True, nogil=True)
def ranked_rows(
    first, last, pairs, begins, ends, starts, backwards, order, number, item_ids, truncation, rows
):
    """
    Rank the targets of the triggers ``first`` up to ``last``, which is excluded.

    Args:
        pairs, begins, ends: as `pair_scores` left them.
        starts, backwards: as `list_backwards` left them.
        order, number: int32, the item code of each number here, and the number of each code.
        item_ids: int64 id per item code.
        truncation: T, targets kept per trigger.
        rows: filled, by trigger and rank: trigger id and target id int64, score float64, rank and number of
            common users int32.
    """
    pair_score, pair_target, pair_common = pairs
    trigger_id, target_id, row_score, row_rank, row_common = rows
    n_most = 0
    for trigger in range(first, last):
        i = number[trigger]
        n_most = max(n_most, ends[i] - begins[i] + starts[i + 1] - starts[i])
    codes, score, n_common = np.empty(n_most, np.uint32), np.empty(n_most), np.empty(n_most, np.int32)
    ranking = new_ranking(n_most)
    row = 0
    for trigger in range(first, last):
        i = number[trigger]
        n = 0
        for pair in range(begins[i], ends[i]):
            codes[n] = order[pair_target[pair]]
            score[n] = pair_score[pair]
            n_common[n] = pair_common[pair]
            n += 1
        for place in range(starts[i], starts[i + 1]):
            pair = backwards[place, 1]
            codes[n] = order[backwards[place, 0]]
            score[n] = pair_score[pair]
            n_common[n] = pair_common[pair]
            n += 1
        ranked = rank_targets(codes, score, n, truncation, ranking)
        for rank in range(len(ranked)):
            place = ranked[rank]
            trigger_id[row] = item_ids[trigger]
            target_id[row] = item_ids[codes[place]]
            row_score[row] = score[place]
            row_rank[row] = rank + 1
            row_common[row] = n_common[place]
            row += 1
