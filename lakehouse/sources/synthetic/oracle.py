"""
What could a perfect model of the synthetic world retrieve?

Scores from the latent state, for measuring how much of the planted structure a method finds. They are upper
marks for tests and reports; no method may read them. Shapes: B users of a block, I items, M communities.
"""

import numpy as np

from lakehouse.sources.synthetic.behaviour import click_probability, days_until_wanted, home_favour
from lakehouse.sources.synthetic.interests import Interests
from lakehouse.sources.synthetic.population import (
    LOYALTY,
    Catalogue,
    Users,
    community_popularity,
    fit,
    own_community,
)
from lakehouse.sources.synthetic.requests import HOME, opening_shares, opening_taste, scenario_shares
from lakehouse.sources.synthetic.world import SyntheticWorld

_DRAWS_PER_INTEREST = 40.0


def interest_scores(world: SyntheticWorld, block: int, number: int) -> np.ndarray:
    """
    Score every item by the user's interests at the start of day ``number``, float32 [B, I].

    Knows what the past could tell at best: long-term interests, triggers, tastes and popularity; not which
    interests the day will open, nor on which day an item is wanted.
    """
    config, items, users = world.config, world.items, world.users(block, number)
    catalogue = Catalogue(items, number)
    weight = _community_weights(world, users, world.interests(block, number))  # [B, M]
    per_cluster = config.communities_per_cluster
    in_cluster = weight.reshape(len(weight), -1, per_cluster).sum(axis=2)  # [B, C]

    popularity = items.weights(number)
    inner = np.maximum(np.diff(catalogue.community_bounds), 1e-12)[items.community]
    outer = np.diff(catalogue.cluster_bounds)[items.cluster]
    community, taste = config.community_strength, config.taste_strength
    in_ranking = weight[:, items.community] * _seen(taste * community * popularity / inner)
    in_ranking += in_cluster[:, items.cluster] * _seen(taste * (1.0 - community) * popularity / outer)
    by_interest = in_ranking * click_probability(config, np.zeros(1), np.ones(1), _suits(world, users))
    by_popularity = 0.3 * _seen((1.0 - taste) * popularity / popularity.sum())
    return np.where(popularity > 0, by_interest + by_popularity, 0.0).astype(np.float32)


def wanted_scores(world: SyntheticWorld, block: int, number: int) -> np.ndarray:
    """Score as ``interest_scores``, knowing also which items each user wants on the day, float32 [B, I]."""
    users = world.users(block, number)
    until = days_until_wanted(world.config, users.index[:, None], np.arange(world.items.n), number)
    return interest_scores(world, block, number) * np.where(until == 0, 1.0, 0.03).astype(np.float32)


def _suits(world: SyntheticWorld, users: Users) -> np.ndarray:
    return fit(users.style[:, None, :], world.items.style)


def _seen(share: np.ndarray) -> np.ndarray:
    """Give the probability that an item with this share of an interest's draws is drawn at all."""
    return 1.0 - np.exp(-_DRAWS_PER_INTEREST * share)


def _community_weights(world: SyntheticWorld, users: Users, interests: Interests) -> np.ndarray:
    """Give how often a request of each user is about each community, expected over scenarios, [B, M]."""
    config = world.config
    shares, opening = scenario_shares(config), 0.8 * opening_shares(config)
    favour = np.exp(np.repeat(home_favour(config), config.communities_per_cluster))  # [M]
    weight = np.zeros((len(users.index), config.n_communities))
    inside = np.tile((1.0 - LOYALTY) * community_popularity(config).ravel(), (len(weight), 1))
    own = own_community(config, np.arange(config.n_clusters), users.index[:, None])
    np.put_along_axis(inside, own, np.take_along_axis(inside, own, axis=1) + LOYALTY, axis=1)
    for scenario in range(config.n_scenarios):
        share = interests.weight[:, scenario]
        total = np.add.reduceat(share, interests.start[:-1])
        known = np.zeros_like(weight)
        np.add.at(known, (interests.user, interests.community), share / total[interests.user])
        taste = opening_taste(config, users.taste, np.full(len(users.index), scenario))
        opened = np.repeat(taste, config.communities_per_cluster, axis=1) * inside
        expected = (1.0 - opening[scenario]) * known + opening[scenario] * opened
        if scenario == HOME:
            expected *= favour
        weight += shares[scenario] * expected
    return weight
