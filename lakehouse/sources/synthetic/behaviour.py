"""
What does each request rank, what does its page show, and what does the user click?

Shapes: R requests of one block of users, W candidates drawn for each, L ranked items, P places of a page.
"""

from dataclasses import dataclass

import numpy as np

from lakehouse.sources.synthetic.config import SyntheticConfig
from lakehouse.sources.synthetic.hashing import hashed, integers
from lakehouse.sources.synthetic.interests import Interests
from lakehouse.sources.synthetic.population import Catalogue, Users, fit
from lakehouse.sources.synthetic.requests import HOME, Requests
from lakehouse.sources.synthetic.sessions import bring_home, intents_of, want_today

_INTERESTS_PER_REQUEST = 4
_DRAWS_PER_RANKED = 1.6
_WANT = 3.0
_AHEAD_DAYS = 3
_TASTE = 0.7
_NOISE = 1.5
_CURIOSITY = 0.03
_CLICK_BASE = -1.0
_CLICK_INTEREST = 1.8
NO_ITEM = -1


@dataclass(frozen=True)
class Behaviour:
    """The rankings, pages and clicks of one block of users on one day."""

    requests: Requests
    ranked: np.ndarray  # int64 [R, L]: item indices, best first, padded with NO_ITEM
    scores: np.ndarray  # float32 [R, L]: falling
    is_click: np.ndarray  # bool [R, P]
    is_order: np.ndarray  # bool [R, P]


def is_favoured(config: SyntheticConfig) -> np.ndarray:
    """Tell which clusters the home ranking favours, bool [C]: about half."""
    return integers(config.seed, "home.favour", 2, np.arange(config.n_clusters)) == 1


def home_favour(config: SyntheticConfig) -> np.ndarray:
    """Give what the home ranking adds to each cluster, float64 [C]: home_preference, plus or minus."""
    return np.where(is_favoured(config), config.home_preference, -config.home_preference)


def days_until_wanted(
    config: SyntheticConfig, user_index: np.ndarray, item: np.ndarray, day: int
) -> np.ndarray:
    """Give the days until each user next wants each item, int64 in [0, return_days), broadcast."""
    phase = hashed(config.seed, "want", user_index, item) % np.uint64(config.return_days)
    return (phase.astype(np.int64) - day) % config.return_days


def click_probability(
    config: SyntheticConfig, until: np.ndarray, interest: np.ndarray, suits: np.ndarray
) -> np.ndarray:
    """Give sigmoid(-1 + 1.8 interest + 0.7 p fit) on the day an item is wanted, 0.03 on others."""
    logit = _CLICK_BASE + _CLICK_INTEREST * interest + _TASTE * config.personal_strength * suits
    return np.where(until == 0, 1.0 / (1.0 + np.exp(-logit)), _CURIOSITY)


def behaviour_of(
    catalogue: Catalogue,
    users: Users,
    interests: Interests,
    requests: Requests,
    *,
    day: int,
    generator: np.random.Generator,
) -> Behaviour:
    """Rank, show and click the requests of one block of users on ``day``."""
    items = catalogue.items
    config = items.config
    intents = intents_of(items, requests)
    candidates, interest = _candidates(catalogue, users, interests, requests, intents, day, generator)
    is_item = candidates != NO_ITEM
    who = users.index[requests.user][:, None]
    until = days_until_wanted(config, who, candidates, day)  # [R, W]
    until = np.where(want_today(items, who, candidates, intents, day), 0, until)
    suits = fit(users.style[requests.user][:, None, :], items.style[candidates])
    want = np.where(until <= _AHEAD_DAYS, _WANT * (1.0 - until / (_AHEAD_DAYS + 1.0)), 0.0)
    want = np.where(until == 0, want, config.anticipation * want)
    utility = interest + _TASTE * config.personal_strength * suits + want
    is_home = requests.scenario == HOME
    utility[is_home] += home_favour(config)[items.cluster[candidates[is_home]]]

    skill = config.ranking_skill
    noise = generator.standard_normal(candidates.shape, dtype=np.float32)
    score = skill * utility + np.sqrt(1.0 - skill**2) * _NOISE * noise
    score = np.where(is_item, score, -np.inf)
    _show_triggers(config, requests, candidates, score, generator)

    length = min(config.ranking_length, candidates.shape[1])
    order = np.argsort(-score, axis=1, kind="stable")[:, :length]
    ranked = np.take_along_axis(candidates, order, axis=1)
    page = order[:, : config.page_size]
    shown = ranked[:, : config.page_size]
    probability = click_probability(
        config, *(np.take_along_axis(values, page, axis=1) for values in (until, interest, suits))
    )
    probability = np.where(shown == requests.trigger[:, None], 1.0, probability)
    is_click = (generator.random(shown.shape) < probability) & (shown != NO_ITEM)
    is_click = _first_only(is_click, requests.user, shown, items.n)
    ordered = config.order_share * np.where(np.take_along_axis(suits, page, axis=1) > 0, 1.5, 0.5)
    return Behaviour(
        requests=requests,
        ranked=ranked,
        scores=np.take_along_axis(score, order, axis=1).astype(np.float32),
        is_click=is_click,
        is_order=is_click & (generator.random(shown.shape) < ordered),
    )


def _candidates(
    catalogue: Catalogue,
    users: Users,
    interests: Interests,
    requests: Requests,
    intents: np.ndarray,
    day: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """
    Draw the items each request ranks.

    Returns:
        Item indices int64 [R, W], distinct in a row, repeats replaced by NO_ITEM; and 1.0 where an interest
        brought the item, 0.0 where popularity did, float64 [R, W].
    """
    items = catalogue.items
    config = items.config
    n_requests = len(requests.user)
    n_draws = int(config.ranking_length * _DRAWS_PER_RANKED)
    topic = interests.draw(
        requests.user, requests.scenario, generator.random((n_requests, _INTERESTS_PER_REQUEST))
    )
    topic = bring_home(items, users, requests, intents, topic, day)
    is_opening = requests.trigger >= 0
    topic[is_opening] = items.community[requests.trigger[is_opening]][:, None]

    turn = generator.integers(_INTERESTS_PER_REQUEST, size=(n_requests, n_draws))
    community = np.take_along_axis(topic, turn, axis=1)
    cluster = community // config.communities_per_cluster
    share = generator.random((n_requests, n_draws))
    from_interest = share < config.taste_strength
    from_community = share < config.taste_strength * config.community_strength
    inner, outer = catalogue.community_bounds, catalogue.cluster_bounds
    low = np.where(from_community, inner[community], np.where(from_interest, outer[cluster], 0.0))
    high = np.where(
        from_community,
        inner[community + 1],
        np.where(from_interest, outer[cluster + 1], catalogue.cumulative[-1]),
    )
    drawn = catalogue.pick(low, high, generator.random((n_requests, n_draws)))
    drawn[is_opening, 0] = requests.trigger[is_opening]
    from_interest[is_opening, 0] = True

    keyed = np.sort(drawn * 2 + (~from_interest), axis=1)
    drawn, interest = keyed >> 1, 1.0 - (keyed & 1)
    drawn[:, 1:][drawn[:, 1:] == drawn[:, :-1]] = NO_ITEM
    return drawn, interest


def _show_triggers(
    config: SyntheticConfig,
    requests: Requests,
    candidates: np.ndarray,
    score: np.ndarray,
    generator: np.random.Generator,
) -> None:
    """Move the trigger of each opening to a random place of its page, in ``score``."""
    rows = np.nonzero(requests.trigger >= 0)[0]
    if len(rows) == 0:
        return
    is_trigger = candidates[rows] == requests.trigger[rows, None]
    others = -np.sort(-np.where(is_trigger, -np.inf, score[rows]), axis=1)
    n_others = np.isfinite(others).sum(axis=1)
    place = np.minimum(generator.integers(config.page_size, size=len(rows)), np.maximum(n_others - 1, 0))
    wanted = others[np.arange(len(rows)), place]
    wanted = np.where(n_others > 0, wanted, 0.0)
    score[rows] = np.where(is_trigger, np.nextafter(wanted, np.inf)[:, None], score[rows])


def _first_only(is_click: np.ndarray, user: np.ndarray, shown: np.ndarray, n_items: int) -> np.ndarray:
    """Keep the first click of each (user, item) of the day; rows are in the order of time for a user."""
    place = np.nonzero(is_click.ravel())[0]
    keys = (user[:, None] * n_items + shown).ravel()[place]
    _, first = np.unique(keys, return_index=True)
    kept = np.zeros(is_click.size, dtype=bool)
    kept[place[first]] = True
    return kept.reshape(is_click.shape)
