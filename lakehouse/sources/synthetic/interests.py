"""
What interests does a user bring to a scenario on a day, and how strong is each?

An interest is (user, community) with one weight per scenario. Long-term interests weigh 1 in all; a trigger
of an earlier day adds its community, and in home its companion (the leak). S scenarios, N interests.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lakehouse.sources.synthetic.config import SyntheticConfig
from lakehouse.sources.synthetic.hashing import draw, integers, normal, uniform
from lakehouse.sources.synthetic.population import Items, Users, community_inside, companions, fit
from lakehouse.sources.synthetic.requests import HOME, Requests

N_LONG_TERM = 4


@dataclass(frozen=True)
class Interests:
    """The interests of a block of users as of the start of a day, sorted by user."""

    user: np.ndarray  # int64 [N]: row of the user in its block
    community: np.ndarray  # int64 [N]
    weight: np.ndarray  # float64 [N, S]
    start: np.ndarray  # int64 [B + 1]: the interests of user b are start[b] to start[b + 1]

    def draw(self, user: np.ndarray, scenario: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        """Draw communities by weight: users and scenarios [R], uniform values [R, Q] -> int64 [R, Q]."""
        cumulative = np.zeros((len(self.user) + 1, self.weight.shape[1]))
        np.cumsum(self.weight, axis=0, out=cumulative[1:])
        place = np.empty(fraction.shape, dtype=np.int64)
        for column in range(self.weight.shape[1]):
            rows = scenario == column
            low = cumulative[self.start[user[rows]], column][:, None]
            high = cumulative[self.start[user[rows] + 1], column][:, None]
            target = low + fraction[rows] * (high - low)
            place[rows] = np.searchsorted(cumulative[:, column], target, side="right") - 1
        place = np.clip(place, self.start[user][:, None], self.start[user + 1][:, None] - 1)
        return self.community[place]


def interests_of(
    config: SyntheticConfig, items: Items, users: Users, openings: Mapping[int, Requests], day: int
) -> Interests:
    """
    Gather the interests of ``users`` on ``day``.

    Args:
        config: The world.
        items: Its items.
        users: A block of users.
        openings: Age in days (1 = yesterday) -> the opening requests of that day.
        day: Day number.

    A trigger t of age a, opened in scenario s0, weighs
    A = trigger_strength * strength_t * exp(p f(u, t) - p^2 / 2) * exp(-recency_strength * (a - 1)) in s0,
    p = personal_strength; in home (s0 elsewhere) A * leak_strength, split between its community and the
    companion by companion_strength.
    """
    parts = [_long_term(config, users, day)]
    parts += [_triggered(config, items, users, requests, age) for age, requests in openings.items()]
    user, community, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(user, kind="stable")
    start = np.searchsorted(user[order], np.arange(len(users.index) + 1))
    return Interests(user[order], community[order], weight[order], start)


def _long_term(config: SyntheticConfig, users: Users, day: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    seed = config.seed
    who = users.index[:, None]
    slot = np.arange(N_LONG_TERM)
    life = (day + integers(seed, "interest.phase", config.interest_days, who, slot)) // config.interest_days
    cluster = draw(
        np.repeat(users.taste, N_LONG_TERM, axis=0),
        uniform(seed, "interest.cluster", who, slot, life).ravel(),
    )
    keys = (np.repeat(users.index, N_LONG_TERM), np.tile(slot, len(users.index)), life.ravel())
    community = community_inside(config, cluster, *keys)
    scenario = np.arange(config.n_scenarios)
    tilt = normal(seed, "interest.scenario", who[..., None], slot[:, None], scenario)  # [B, J, S]
    weight = np.exp(config.scenario_strength * tilt)
    weight /= weight.sum(axis=1, keepdims=True)
    user = np.repeat(np.arange(len(users.index)), N_LONG_TERM)
    return user, community, weight.reshape(-1, config.n_scenarios)


def trigger_weight(
    config: SyntheticConfig, items: Items, users: Users, openings: Requests, age: int
) -> np.ndarray:
    """Give A of each opening in its own scenario, float64 [n]."""
    personal = config.personal_strength
    suits = fit(users.style[openings.user], items.style[openings.trigger])
    return (
        config.trigger_strength
        * items.trigger_strength[openings.trigger]
        * np.exp(personal * suits - personal**2 / 2)
        * np.exp(-config.recency_strength * (age - 1))
    )


def _triggered(
    config: SyntheticConfig, items: Items, users: Users, openings: Requests, age: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    strength = trigger_weight(config, items, users, openings, age)
    community = items.community[openings.trigger]
    own = np.zeros((len(strength), config.n_scenarios))
    own[np.arange(len(strength)), openings.scenario] = strength
    leaked = np.where(openings.scenario == HOME, 0.0, strength * config.leak_strength)
    own[:, HOME] += leaked * (1.0 - config.companion_strength)
    moved = np.zeros_like(own)
    moved[:, HOME] = leaked * config.companion_strength
    companion = companions(config)[community, users.variant[openings.user]]
    return (
        np.concatenate([openings.user, openings.user]),
        np.concatenate([community, companion]),
        np.concatenate([own, moved]),
    )
