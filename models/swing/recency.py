"""Which clicks of each user are the most recent?"""

import numpy as np

from models.swing.clicks import NumberedClicks

CLICKS_PER_STEP = 1 << 22


def keep_most_recent(clicks: NumberedClicks, most: int) -> tuple[NumberedClicks, np.ndarray, int]:
    """
    Keep the ``most`` items of each user that he clicked last, ties by item id.

    Returns:
        The kept clicks, each once; the number of distinct items of each user before, int64; and the number
        of users who lost some.
    """
    n_users = len(clicks.user_ids)
    order = np.argsort(clicks.user, kind="stable")
    starts = _starts(np.bincount(clicks.user, minlength=n_users))
    rank_of_item = np.empty(len(clicks.item_ids), np.int32)
    rank_of_item[np.argsort(clicks.item_ids)] = np.arange(len(clicks.item_ids), dtype=np.int32)
    n_items_of = np.zeros(n_users, np.int64)
    kept = []
    first = 0
    while first < n_users:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + CLICKS_PER_STEP, side="right")) - 1)
        places = _latest_of_each_pair(clicks, rank_of_item, order[starts[first] : starts[last]])
        user = clicks.user[places]
        n_items_of[first:last] = np.bincount(user - first, minlength=last - first)
        places = places[np.lexsort((rank_of_item[clicks.item[places]], ~clicks.time[places], user))]
        user_starts = _starts(n_items_of[first:last])
        kept.append(places[np.arange(len(places)) - user_starts[user - first] < most])
        first = last
    places = np.concatenate(kept) if kept else np.empty(0, np.int64)
    recent = NumberedClicks(
        clicks.user_ids, clicks.item_ids, clicks.user[places], clicks.item[places], clicks.time[places]
    )
    return recent, n_items_of, int(np.sum(n_items_of > most))


def _latest_of_each_pair(clicks: NumberedClicks, rank_of_item: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Give the place of the last click of each (user, item), by user."""
    places = places[np.lexsort((clicks.time[places], rank_of_item[clicks.item[places]], clicks.user[places]))]
    user, item = clicks.user[places], clicks.item[places]
    is_last = np.ones(len(places), bool)
    is_last[:-1] = (user[1:] != user[:-1]) | (item[1:] != item[:-1])
    return places[is_last]


def _starts(counts: np.ndarray) -> np.ndarray:
    """Give where each group starts, int64 [n + 1]."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
