"""
Which items do scores put first, and how many of what users did next are among them? With numpy alone.

Both environments import this: the product's and RecBole's. Items are numbers from 1 on; ragged lists are
values and offsets.
"""

import numpy as np


def best_items(
    scores: np.ndarray, available: np.ndarray, past: np.ndarray, offsets: np.ndarray, k: int
) -> np.ndarray:
    """
    Give the ``k`` available items with the highest scores outside each user's past.

    Args:
        scores: float [n, n_items], of item 1 first.
        available: bool [n_items].
        past: item numbers of all users, one user after the other.
        offsets: int [n + 1], where each user's past begins.
        k: length of the lists.

    Returns:
        int64 [n, k], best first, ties by number, padded with -1.
    """
    scores = np.where(available, scores, -np.inf)
    scores[np.repeat(np.arange(len(scores)), np.diff(offsets)), past - 1] = -np.inf
    width = min(k, scores.shape[1])
    if not width:
        return np.full((len(scores), k), -1, np.int64)
    last = -np.partition(-scores, width - 1, axis=1)[:, width - 1 : width]
    lists = np.full((len(scores), k), -1, np.int64)
    for row, own in enumerate(scores):
        found = np.flatnonzero((own >= last[row]) & (own > -np.inf))
        found = found[np.argsort(-own[found], kind="stable")][:width]
        lists[row, : len(found)] = found + 1
    return lists


def mean_share(lists: np.ndarray, wanted: np.ndarray, offsets: np.ndarray) -> float:
    """
    Give the mean share of a user's wanted items that the list holds (Eq. 5 of PI2I).

    ``wanted`` are distinct item numbers, 0 for an unknown one: a miss. Users who want none do not count.
    """
    shares = [
        np.isin(own, held).mean()
        for own, held in zip(np.split(wanted, offsets[1:-1]), lists, strict=True)
        if len(own)
    ]
    return float(np.mean(shares))
