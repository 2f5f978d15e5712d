"""MNR as the paper writes it, in plain Python and without any thought of speed."""

import math
from collections import Counter
from dataclasses import dataclass

from models.mnr import MNRConfig


@dataclass(frozen=True)
class Ranking:
    """One logged ranking; times in seconds."""

    request_id: int
    time: float
    items: tuple
    categories: tuple
    scores: tuple


def cleaned(ranking: Ranking, truncation: int) -> list[tuple[int, int]]:
    """Give the (item, category) pairs that count, best first."""
    kept: dict[int, int] = {}
    for item, category, score in zip(ranking.items, ranking.categories, ranking.scores, strict=True):
        if item >= 0 and math.isfinite(score) and item not in kept:
            kept[item] = max(category, -1)
    return list(kept.items())[:truncation]


def queue_of(rankings: list[Ranking], config: MNRConfig, scenario: str) -> list[tuple]:
    """Give the queue's visits (time, request, pairs), newest first."""
    visits = {}
    for ranking in rankings:
        pairs = cleaned(ranking, config.truncation_of(scenario))
        if pairs:
            visits.setdefault(ranking.request_id, (ranking.time, ranking.request_id, pairs))
    return sorted(visits.values(), reverse=True)[: config.n_visits]


def best_candidates(rankings: list[Ranking], config: MNRConfig, scenario: str) -> list[tuple[int, float]]:
    """Give (item, score) of a list by Eq. 6, best first: every item scored, all sorted, then dispersed."""
    visits = queue_of(rankings, config, scenario)
    for index in range(1, len(visits)):
        if visits[index - 1][0] - visits[index][0] >= config.idle_seconds:
            visits = visits[:index]
            break
    places = {}
    for time_index, (_, _, pairs) in enumerate(visits):
        for rank_index, (item, category) in enumerate(pairs):
            score = (config.alpha / (config.alpha + rank_index)) * (config.beta / (config.beta + time_index))
            place = (-score, time_index, rank_index, item, category)
            places[item] = min(place, places.get(item, place))
    candidates, n_of_category = [], Counter()
    for negative, _, _, item, category in sorted(places.values()):
        if category >= 0 and config.max_per_category is not None:
            if n_of_category[category] >= config.max_per_category:
                continue
            n_of_category[category] += 1
        candidates.append((item, -negative))
    return candidates[: config.k]
