"""
What are the Swing scores of one range of triggers?

For a trigger i only the users U_i matter, and of their items only those that several of them share. The
kernel lists, for every item j, its users among U_i; walking those lists meets every pair (u, v) in
U_i ∩ U_j exactly once per target, so the cost is the number of terms of the sum and nothing is scanned
in vain. Terms are added in ascending order of (u, v): the result is the same at any number of threads.

``clicks`` below is the tuple (item_starts, item_users, user_starts, user_items): the users of each trigger
after the user cap and the items of each user after the item cap, both ascending, as flat lists of int32
with int64 starts. Users of one trigger are numbered 0, 1, ... in that order.
"""

import numpy as np
from numba import njit

from models.selection import best_first, round_score


@njit(cache=True, nogil=True)
def swing_rows(triggers, clicks, weights, alpha, truncation, is_self_paired):
    """
    Score and rank the targets of a range of triggers (Eq. 3).

    Args:
        triggers: (first, last) codes of the range, last excluded.
        clicks: see above.
        weights: float64 w_u per user.
        alpha: smoothing of Eq. 2.
        truncation: T, targets kept per trigger.
        is_self_paired: add the terms u = v.

    Returns:
        ``n_targets`` int32 [last - first], and per row, by trigger and rank: target code int32,
        score float64, number of common users int32.
    """
    first, last = triggers
    n_items = len(clicks[0]) - 1
    n_users_most, n_entries_most = _largest(first, last, clicks)
    n_common = np.zeros(n_items, np.int32)
    reached = np.empty(n_items, np.int32)
    list_next = np.empty(n_items, np.int64)
    list_end = np.empty(n_items, np.int64)
    list_users = np.empty(n_entries_most, np.int32)
    score = np.zeros(n_items, np.float64)
    pairs = (np.zeros(n_users_most, np.int32), np.empty(n_users_most, np.int32), np.empty(n_users_most))

    n_targets = np.zeros(last - first, np.int32)
    n_rows_most = (last - first) * min(truncation, n_items)
    row_target = np.empty(n_rows_most, np.int32)
    row_score = np.empty(n_rows_most, np.float64)
    row_common = np.empty(n_rows_most, np.int32)
    n_rows = 0

    for trigger in range(first, last):
        n_reached = _count_common_users(trigger, clicks, n_common, reached)
        _list_common_users(trigger, clicks, n_common, reached[:n_reached], list_next, list_end, list_users)
        _add_terms(
            trigger, clicks, weights, alpha, is_self_paired, list_next, list_end, list_users, pairs, score
        )
        codes, scores = _ranked(reached[:n_reached], score, truncation)
        n_targets[trigger - first] = len(codes)
        for place in range(len(codes)):
            row_target[n_rows] = codes[place]
            row_score[n_rows] = scores[place]
            row_common[n_rows] = n_common[codes[place]]
            n_rows += 1
        for place in range(n_reached):
            n_common[reached[place]] = 0
            score[reached[place]] = 0.0

    return n_targets, row_target[:n_rows].copy(), row_score[:n_rows].copy(), row_common[:n_rows].copy()


@njit(cache=True, nogil=True)
def _largest(first, last, clicks):
    """Give the most users of one trigger, and the most clicks of the users of one trigger."""
    item_starts, item_users, user_starts, _ = clicks
    n_users_most = 0
    n_entries_most = 0
    for trigger in range(first, last):
        n_entries = 0
        for place in range(item_starts[trigger], item_starts[trigger + 1]):
            user = item_users[place]
            n_entries += user_starts[user + 1] - user_starts[user]
        n_users_most = max(n_users_most, item_starts[trigger + 1] - item_starts[trigger])
        n_entries_most = max(n_entries_most, n_entries)
    return n_users_most, n_entries_most


@njit(cache=True, nogil=True)
def _count_common_users(trigger, clicks, n_common, reached):
    """Fill ``n_common`` = |U_trigger ∩ U_item| and ``reached``, the items where it is above 0."""
    item_starts, item_users, user_starts, user_items = clicks
    n_reached = 0
    for user_place in range(item_starts[trigger], item_starts[trigger + 1]):
        user = item_users[user_place]
        for place in range(user_starts[user], user_starts[user + 1]):
            item = user_items[place]
            if item != trigger:
                if n_common[item] == 0:
                    reached[n_reached] = item
                    n_reached += 1
                n_common[item] += 1
    return n_reached


@njit(cache=True, nogil=True)
def _list_common_users(trigger, clicks, n_common, reached, list_next, list_end, list_users):
    """Write for each reached item its users, ascending: ``list_users[list_next[item] : list_end[item]]``."""
    item_starts, item_users, user_starts, user_items = clicks
    end = 0
    for item in reached:
        list_next[item] = end
        end += n_common[item]
        list_end[item] = end
    first_user = item_starts[trigger]
    for u in range(item_starts[trigger + 1] - first_user):
        user = item_users[first_user + u]
        for place in range(user_starts[user], user_starts[user + 1]):
            item = user_items[place]
            if item != trigger:
                list_users[list_next[item]] = u
                list_next[item] += 1
    for item in reached:
        list_next[item] = list_end[item] - n_common[item]


@njit(cache=True, nogil=True)
def _add_terms(
    trigger, clicks, weights, alpha, is_self_paired, list_next, list_end, list_users, pairs, score
):
    """Add the terms of all pairs of the trigger's users to ``score``; uses up ``list_next``."""
    item_starts, item_users, user_starts, user_items = clicks
    n_shared, partners, term = pairs
    first_user = item_starts[trigger]
    for u in range(item_starts[trigger + 1] - first_user):
        user = item_users[first_user + u]
        first_item, last_item = user_starts[user], user_starts[user + 1]
        n_partners = 0
        for place in range(first_item, last_item):
            item = user_items[place]
            if item != trigger:
                list_next[item] += 1  # past u itself: what is left are the users v > u
                for list_place in range(list_next[item], list_end[item]):
                    v = list_users[list_place]
                    if n_shared[v] == 0:
                        partners[n_partners] = v
                        n_partners += 1
                    n_shared[v] += 1
        for place in range(n_partners):
            v = partners[place]
            weight = weights[user] * weights[item_users[first_user + v]]
            term[v] = 2.0 * weight / (alpha + 1.0 + n_shared[v])  # (u, v) and (v, u); 1 is the trigger
            n_shared[v] = 0
        self_term = weights[user] * weights[user] / (alpha + (last_item - first_item))
        for place in range(first_item, last_item):
            item = user_items[place]
            if item != trigger:
                total = score[item]
                if is_self_paired:
                    total += self_term
                for list_place in range(list_next[item], list_end[item]):
                    total += term[list_users[list_place]]
                score[item] = total


@njit(cache=True, nogil=True)
def _ranked(reached, score, truncation):
    """Give codes and rounded scores of the ``truncation`` best reached items with a positive score."""
    codes = np.empty(len(reached), np.int32)
    scores = np.empty(len(reached), np.float64)
    n_scored = 0
    for item in reached:
        if score[item] > 0.0:
            codes[n_scored] = item
            scores[n_scored] = round_score(score[item])
            n_scored += 1
    return best_first(codes[:n_scored], scores[:n_scored], truncation)
