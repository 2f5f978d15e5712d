"""
When does each user come, to which scenario, and which new interest does a request open?

The requests of a (block of users, day) are hashes of (seed, user, day), so the openings of earlier days can
be had again without what those days wrote. An *opening* is a request for one community that ends in a click
on one item of it: the trigger.
"""

from dataclasses import dataclass

import numpy as np

from lakehouse.sources.synthetic.config import SyntheticConfig
from lakehouse.sources.synthetic.hashing import draw, normal, uniform
from lakehouse.sources.synthetic.population import Catalogue, Users, community_inside

HOME = 0
MAX_VISITS = 8
PAGES = 2
_SECOND_PAGE_SHARE = 0.25
_HOME_SHARE = 0.55
_OPENING_SHARE_HOME = 0.1
_OPENING_SHARE_ELSEWHERE = 0.35
_OPENING_TASTE = 0.6
_LAST_START_SECONDS = 23 * 3600
_HOURLY = np.array([3, 2, 1, 1, 1, 2, 3, 5, 6, 6, 6, 7, 8, 7, 6, 6, 6, 7, 8, 10, 12, 12, 9], dtype=np.float64)


@dataclass(frozen=True)
class Requests:
    """The requests of a block of users on one day, by user and time; R rows."""

    user: np.ndarray  # int64 [R]: row of the user in its block
    number: np.ndarray  # int64 [R]: unique per user and day
    scenario: np.ndarray  # int64 [R]: index into config.scenarios, 0 = home
    seconds: np.ndarray  # float64 [R]: since midnight UTC, at least a page apart for one user
    trigger: np.ndarray  # int64 [R]: item index that an opening request is about, -1 elsewhere

    def openings(self) -> "Requests":
        """Keep the opening requests."""
        rows = self.trigger >= 0
        return Requests(
            self.user[rows], self.number[rows], self.scenario[rows], self.seconds[rows], self.trigger[rows]
        )


def scenario_shares(config: SyntheticConfig) -> np.ndarray:
    """Give the share of the visits that go to each scenario, float64 [S]."""
    if config.n_scenarios == 1:
        return np.ones(1)
    other = 1.0 / np.arange(1, config.n_scenarios)
    return np.concatenate([[_HOME_SHARE], (1.0 - _HOME_SHARE) * other / other.sum()])


def opening_shares(config: SyntheticConfig) -> np.ndarray:
    """Give the share of each scenario's first-page requests that open an interest, float64 [S]."""
    shares = np.full(config.n_scenarios, _OPENING_SHARE_ELSEWHERE)
    shares[HOME] = _OPENING_SHARE_HOME
    return shares


def opening_taste(config: SyntheticConfig, taste: np.ndarray, scenario: np.ndarray) -> np.ndarray:
    """
    Give the probability of each cluster for an opening, float64 [n, C].

    p(k | u, s) is proportional to taste_uk^0.6 * exp(scenario_strength / 2 * N_sk).
    """
    cluster = np.arange(config.n_clusters)
    tilt = normal(config.seed, "scenario.cluster", np.arange(config.n_scenarios)[:, None], cluster)
    weight = taste**_OPENING_TASTE * np.exp(config.scenario_strength / 2.0 * tilt)[scenario]
    return weight / weight.sum(axis=1, keepdims=True)


def requests_of(catalogue: Catalogue, users: Users, day: int) -> Requests:
    """Draw the requests of ``users`` on day number ``day``, which may lie before the first day."""
    config = catalogue.items.config
    seed = config.seed
    who = users.index[:, None]
    visit = np.arange(MAX_VISITS)
    exists = users.birth_day <= max(day, 0)
    is_born = (users.birth_day == day) & (users.birth_day > 0)
    is_active = (uniform(seed, "active", users.index, day) < users.activity) & exists | is_born
    n_visits = _count_visits(config, uniform(seed, "visits", users.index, day))
    has_visit = is_active[:, None] & (visit < n_visits[:, None])  # [B, V]
    has_second = uniform(seed, "pages", who, day, visit) < _SECOND_PAGE_SHARE
    present = np.stack([has_visit, has_visit & has_second], axis=2)  # [B, V, P]

    bounds = np.cumsum(scenario_shares(config))[:-1]
    scenario = np.searchsorted(bounds, uniform(seed, "scenario", who, day, visit), side="right")
    start = _time_of_day(uniform(seed, "start", who, day, visit))
    pause = np.stack([np.zeros_like(start), 90.0 + 150.0 * uniform(seed, "pause", who, day, visit)], axis=2)

    user, place, page = np.nonzero(present)
    seconds = np.floor(start[user, place] + pause[user, place, page])
    by_time = np.lexsort((place * PAGES + page, seconds, user))
    user, place, page = user[by_time], place[by_time], page[by_time]
    scenario = scenario[user, place]
    number = place * PAGES + page
    opens = (page == 0) & (
        uniform(seed, "opens", users.index[user], day, number) < opening_shares(config)[scenario]
    )
    trigger = np.full(len(user), -1, dtype=np.int64)
    trigger[opens] = _triggers(catalogue, users, day, user[opens], number[opens], scenario=scenario[opens])
    return Requests(
        user=user,
        number=number,
        scenario=scenario,
        seconds=_keep_apart(user, seconds[by_time], gap=2.0 * config.page_size + 30.0),
        trigger=trigger,
    )


def _count_visits(config: SyntheticConfig, fraction: np.ndarray) -> np.ndarray:
    more = config.visits_per_day - 1.0
    if more == 0:
        return np.ones(len(fraction), dtype=np.int64)
    extra = np.floor(np.log(fraction) / np.log(more / (1.0 + more)))
    return 1 + np.minimum(extra, MAX_VISITS - 1).astype(np.int64)


def _time_of_day(fraction: np.ndarray) -> np.ndarray:
    cumulative = np.concatenate([[0.0], np.cumsum(_HOURLY) / _HOURLY.sum()])
    return np.interp(fraction, cumulative, np.linspace(0.0, _LAST_START_SECONDS, len(cumulative)))


def _keep_apart(user: np.ndarray, seconds: np.ndarray, *, gap: float) -> np.ndarray:
    """Delay requests until each is at least ``gap`` after the user's one before; rows by user and time."""
    if len(user) == 0:
        return seconds
    first = np.concatenate([[True], user[1:] != user[:-1]])
    place = np.arange(len(user)) - np.maximum.accumulate(np.where(first, np.arange(len(user)), 0))
    lane = user * 1e7  # users never delay each other: their lanes lie further apart than a day
    return np.maximum.accumulate(seconds - gap * place + lane) + gap * place - lane


def _triggers(
    catalogue: Catalogue,
    users: Users,
    day: int,
    user: np.ndarray,
    number: np.ndarray,
    *,
    scenario: np.ndarray,
) -> np.ndarray:
    """Draw the item that each opening is about: cluster by taste, community and item by popularity."""
    config = catalogue.items.config
    keys = (users.index[user], day, number)
    taste = opening_taste(config, users.taste[user], scenario)
    cluster = draw(taste, uniform(config.seed, "opening.cluster", *keys))
    community = community_inside(config, cluster, *keys)
    bounds = catalogue.community_bounds
    fraction = uniform(config.seed, "opening.item", *keys)
    return catalogue.pick(bounds[community], bounds[community + 1], fraction)
