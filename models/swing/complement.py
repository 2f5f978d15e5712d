"""
What are the Swing scores where nearly every user clicked nearly every item, as in KuaiRec's small matrix?

The common users of i and j are then best told by who is missing. With W_uv the term of a pair of users,
m the users missing from U_i ∩ U_j, and R_u = sum over v of W_uv, all sums over pairs of distinct users,

    s(i, j) = sum of all W_uv  -  sum over u in m of R_u  +  sum over u, v in m of W_uv

that is: leave out all pairs with a missing user, and add back those with two, which were left out twice.
A few missing users make a few terms, where the common ones would make millions. Where more users are
missing than common, or the difference would lose digits, the common ones are summed after all.
"""

import numpy as np
from numba import njit

from models.selection import round_score
from models.swing.ranking import new_ranking, rank_targets

LEAST_SHARE = 0.1  # of the whole sum: below it the difference loses digits that the rounding keeps


@njit(cache=True, nogil=True)
def missing_lists(starts, lists, n_values):
    """List for each group the values that it lacks, ascending: starts int64 and lists uint32."""
    n_groups = len(starts) - 1
    missing = np.empty(n_groups * n_values - len(lists), np.uint32)
    missing_starts = np.zeros(n_groups + 1, np.int64)
    end = 0
    for group in range(n_groups):
        place = starts[group]
        for value in range(n_values):
            if place < starts[group + 1] and lists[place] == value:
                place += 1
            else:
                missing[end] = value
                end += 1
        missing_starts[group + 1] = end
    return missing_starts, missing


@njit(cache=True, nogil=True)
def pair_terms(lists, weights, pair_weight):
    """
    Give the term of every pair of users (for (u, v) and (v, u) together) and each user's sum of them.

    Args:
        lists: item_starts, item_users, user_starts, user_items (`models.swing.walk`).
        weights: float64 w_u per user.
        pair_weight: 2 / (alpha + n) for each number n of shared items.

    Returns:
        float64 [n_users, n_users], symmetric, 0 on the diagonal; and float64 [n_users].
    """
    item_starts, _, user_starts, user_items = lists
    n_users = len(weights)
    n_items = len(item_starts) - 1
    missing_starts, missing = missing_lists(user_starts, user_items, n_items)
    term = np.zeros((n_users, n_users))
    is_missing = np.zeros(n_items, np.bool_)
    for u in range(n_users):
        mine = missing[missing_starts[u] : missing_starts[u + 1]]
        for item in mine:
            is_missing[item] = True
        for v in range(u + 1, n_users):
            other = missing[missing_starts[v] : missing_starts[v + 1]]
            n_both = 0
            for item in other:
                n_both += is_missing[item]
            n_shared = n_items - len(mine) - len(other) + n_both
            term[u, v] = term[v, u] = weights[u] * weights[v] * pair_weight[n_shared] if n_shared else 0.0
        for item in mine:
            is_missing[item] = False
    sums = np.empty(n_users)
    for u in range(n_users):
        sums[u] = np.sum(term[u])
    return term, sums


@njit(cache=True, nogil=True)
def complement_rows(first, last, lists, item_ids, missing, term, sums, truncation):
    """
    Score and rank the targets of the triggers ``first`` up to ``last``, which is excluded (Eq. 3).

    Args:
        lists: as for `pair_terms`.
        item_ids: int64 id per item code.
        missing: starts and lists of the users missing from each item (`missing_lists`).
        term, sums: from `pair_terms`.
        truncation: T, targets kept per trigger.

    Returns:
        Per row, by trigger and rank: trigger id and target id int64, score float64, rank and number of
        common users int32.
    """
    item_starts, item_users, _, _ = lists
    missing_starts, missing_users = missing
    n_items, n_users = len(item_ids), len(sums)
    whole = np.sum(sums) / 2
    codes, n_common = np.empty(n_items, np.uint32), np.empty(n_items, np.int32)
    score = np.empty(n_items)
    either = np.empty(n_users, np.uint32)
    ranking = new_ranking(n_items)
    n_rows_most = (last - first) * min(truncation, n_items)
    trigger_id, target_id = np.empty(n_rows_most, np.int64), np.empty(n_rows_most, np.int64)
    row_score = np.empty(n_rows_most)
    row_rank, row_common = np.empty(n_rows_most, np.int32), np.empty(n_rows_most, np.int32)
    n_rows = 0
    for trigger in range(first, last):
        mine = missing_users[missing_starts[trigger] : missing_starts[trigger + 1]]
        n_scored = 0
        for target in range(n_items):
            if target == trigger:
                continue
            others = missing_users[missing_starts[target] : missing_starts[target + 1]]
            n_missing = _unite(mine, others, either)
            if n_users - n_missing < 2:
                continue
            total = -1.0
            if 2 * n_missing <= n_users:
                total = whole + _sum_missing(either[:n_missing], term, sums)
            if total < LEAST_SHARE * whole:
                users = item_users[item_starts[trigger] : item_starts[trigger + 1]]
                others = item_users[item_starts[target] : item_starts[target + 1]]
                total = _sum_pairs(either[: _intersect(users, others, either)], term)
            codes[n_scored] = target
            n_common[n_scored] = n_users - n_missing
            score[n_scored] = round_score(total)
            n_scored += 1
        order = rank_targets(codes, score, n_scored, truncation, ranking)
        for rank in range(len(order)):
            place = order[rank]
            trigger_id[n_rows] = item_ids[trigger]
            target_id[n_rows] = item_ids[codes[place]]
            row_score[n_rows] = score[place]
            row_rank[n_rows] = rank + 1
            row_common[n_rows] = n_common[place]
            n_rows += 1
    return (
        trigger_id[:n_rows].copy(),
        target_id[:n_rows].copy(),
        row_score[:n_rows].copy(),
        row_rank[:n_rows].copy(),
        row_common[:n_rows].copy(),
    )


@njit(cache=True, nogil=True)
def _unite(mine, others, union):
    """Write the ascending union of two ascending lists and give its length."""
    n = a = b = 0
    while a < len(mine) and b < len(others):
        union[n] = min(mine[a], others[b])
        is_mine, is_other = mine[a] <= others[b], others[b] <= mine[a]
        a += is_mine
        b += is_other
        n += 1
    while a < len(mine):
        union[n] = mine[a]
        a += 1
        n += 1
    while b < len(others):
        union[n] = others[b]
        b += 1
        n += 1
    return n


@njit(cache=True, nogil=True)
def _intersect(mine, others, common):
    """Write the ascending intersection of two ascending lists and give its length."""
    n = a = b = 0
    while a < len(mine) and b < len(others):
        if mine[a] == others[b]:
            common[n] = mine[a]
            n += 1
        is_mine, is_other = mine[a] <= others[b], others[b] <= mine[a]
        a += is_mine
        b += is_other
    return n


@njit(cache=True, nogil=True)
def _sum_missing(missing, term, sums):
    """Give what the missing users take away: their sums, less the pairs that this counts twice."""
    total = 0.0
    for u in range(len(missing)):
        row = term[missing[u]]
        left_out = sums[missing[u]]
        for v in range(u + 1, len(missing)):
            left_out -= row[missing[v]]
        total -= left_out
    return total


@njit(cache=True, nogil=True)
def _sum_pairs(users, term):
    total = 0.0
    for u in range(len(users)):
        row = term[users[u]]
        for v in range(u + 1, len(users)):
            total += row[users[v]]
    return total
