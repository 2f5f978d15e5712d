"""
What does a user have in mind within a day? The intent that an opening in another scenario leaves behind.

From that request on, and until the day ends, the user wants some items of the opened community, and home
shows of it. The opening's own ranking knows: what its page has no room for is what a nearline channel can
bring home the same day. Shapes: R requests of one block of users, W candidates, Q topics of a request.
"""

import numpy as np

from lakehouse.sources.synthetic.hashing import uniform
from lakehouse.sources.synthetic.population import Items, Users
from lakehouse.sources.synthetic.requests import HOME, Requests

NO_INTENT = -1


def intents_of(items: Items, requests: Requests) -> np.ndarray:
    """Give the community of each request's latest opening elsewhere, itself included, int64 [R]; -1: none."""
    if items.config.session_strength == 0:
        return np.full(len(requests.user), NO_INTENT, np.int64)
    opens = (requests.trigger >= 0) & (requests.scenario != HOME)
    latest = np.maximum.accumulate(np.where(opens, np.arange(len(opens)), -1))
    has_intent = (latest >= 0) & (requests.user[latest] == requests.user)
    opened = items.community[requests.trigger[latest]]
    return np.where(has_intent, opened, NO_INTENT)


def bring_home(
    items: Items, users: Users, requests: Requests, intents: np.ndarray, topics: np.ndarray, day: int
) -> np.ndarray:
    """Give the topics int64 [R, Q], in home each the intent with chance session_strength."""
    config = items.config
    if config.session_strength == 0:
        return topics
    keys = (users.index[requests.user][:, None], day, requests.number[:, None], np.arange(topics.shape[1]))
    is_moved = uniform(config.seed, "session.topic", *keys) < config.session_strength
    is_moved &= ((requests.scenario == HOME) & (intents != NO_INTENT))[:, None]
    return np.where(is_moved, intents[:, None], topics)


def want_today(
    items: Items, user_index: np.ndarray, candidates: np.ndarray, intents: np.ndarray, day: int
) -> np.ndarray:
    """Tell which candidates [R, W] the intent makes wanted: of its community, each with session_strength."""
    config = items.config
    if config.session_strength == 0:
        return np.zeros(candidates.shape, bool)
    is_wanted = uniform(config.seed, "session.want", user_index, candidates, day) < config.session_strength
    return is_wanted & (items.community[candidates] == intents[:, None])
