"""
Who lives in the synthetic world: the latent state of its items, communities and users.

Shapes: I items, M communities, C clusters, B users of a block, D = ``N_STYLES`` dimensions of style.
Everything is a hash of (seed, index): a longer log or more users leave the earlier ones as they are.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lakehouse.sources.synthetic.config import SyntheticConfig
from lakehouse.sources.synthetic.hashing import Keys, draw, integers, normal, uniform

N_STYLES = 4
N_GROUPS = 12
BLOCK_USERS = 2_000
LOYALTY = 0.6
_AUTHORS_PER_COMMUNITY = 3
_N_BRANDS = 40
_NEW_ITEM_DAYS = 3.0
_OUTAGE_DAYS = 3
_TASTE_SD = 2.0
_COMMUNITY_SKEW = 2.5
_CLUSTER_SKEW = 1.5


def n_items_on(config: SyntheticConfig, day: int) -> int:
    """Count the items that exist on day number ``day`` (0 = the first day)."""
    return config.n_items + max(day, 0) * config.new_items_per_day


def n_users_on(config: SyntheticConfig, day: int) -> int:
    """Count the users that exist on day number ``day``."""
    return config.n_users + max(day, 0) * config.new_users_per_day


class Items:
    """All items of the log's days; row i is item index i, new items behind the old ones."""

    def __init__(self, config: SyntheticConfig) -> None:
        """Draw the latent state of every item."""
        seed = config.seed
        self.config = config
        self.n = n_items_on(config, config.n_days - 1)
        index = np.arange(self.n)
        late = index - config.n_items
        self.birth_day = np.where(late < 0, 0, late // max(config.new_items_per_day, 1) + 1)
        self.community = integers(seed, "item.community", config.n_communities, index)  # [I]
        self.cluster = self.community // config.communities_per_cluster  # [I]
        self._log_weight = _community_log_weight(config)[self.community] - config.popularity_skew * np.log(
            uniform(seed, "item.popularity", index)
        )
        self._period = 10.0 + 20.0 * uniform(seed, "item.period", index)
        self._phase = uniform(seed, "item.phase", index)

        author = self.community * _AUTHORS_PER_COMMUNITY + integers(
            seed, "item.author", _AUTHORS_PER_COMMUNITY, index
        )
        brand = integers(seed, "item.brand", _N_BRANDS, index)
        dimension = np.arange(N_STYLES)
        self.style = (  # [I, D], variance 1: the community's and the author's
            0.8 * normal(seed, "community.style", self.community[:, None], dimension)
            + 0.6 * normal(seed, "author.style", author[:, None], dimension)
        ).astype(np.float32)
        log_strength = 0.8 * normal(seed, "brand.strength", brand) + 0.6 * normal(
            seed, "item.strength", index
        )
        spread = config.trigger_spread
        self.trigger_strength = np.exp(spread * log_strength - spread**2 / 2)  # [I], mean 1

        tells = uniform(seed, "item.truth", index) < config.feature_strength
        n_authors = config.n_communities * _AUTHORS_PER_COMMUNITY
        self.category_id = 1 + np.where(
            tells, self.cluster, integers(seed, "item.any_cluster", config.n_clusters, index)
        )
        self.author_id = 1 + np.where(tells, author, integers(seed, "item.any_author", n_authors, index))
        self.brand_id = 1 + np.where(tells, brand, integers(seed, "item.any_brand", _N_BRANDS, index))
        log_price = (
            3.5
            + 0.8 * normal(seed, "cluster.price", self.cluster)
            + 0.3 * normal(seed, "brand.price", brand)
            + 0.3 * normal(seed, "item.price", index)
        )
        self.price = np.round(np.exp(log_price), 2).astype(np.float32)

    @cached_property
    def order(self) -> np.ndarray:
        """Item indices sorted by community (and so by cluster), int64 [I]."""
        return np.argsort(self.community, kind="stable")

    @cached_property
    def starts(self) -> np.ndarray:
        """Where each community starts in ``order``, int64 [M + 1]."""
        return np.searchsorted(self.community[self.order], np.arange(self.config.n_communities + 1))

    def is_available(self, day: int) -> np.ndarray:
        """Tell which items exist on ``day`` and may be shown, bool [I]; outages last three days."""
        index = np.arange(self.n)
        phase = integers(self.config.seed, "item.outage_phase", _OUTAGE_DAYS, index)
        outage = uniform(self.config.seed, "item.outage", index, (day + phase) // _OUTAGE_DAYS)
        return (self.birth_day <= max(day, 0)) & (outage >= self.config.unavailable_share)

    def weights(self, day: int) -> np.ndarray:
        """
        Give the popularity of every item on ``day``, float64 [I]; 0 where it is not available.

        log w_i(d) = -skew * log U_i + drift * sqrt(2) * sin(2 pi (d / P_i + phi_i)) + boost * exp(-age / 3)
        """
        config = self.config
        wave = np.sqrt(2.0) * np.sin(2.0 * np.pi * (day / self._period + self._phase))
        age = np.where(self.birth_day > 0, np.maximum(day - self.birth_day, 0), np.inf)
        log_weight = (
            self._log_weight
            + config.popularity_drift * wave
            + config.new_item_boost * np.exp(-age / _NEW_ITEM_DAYS)
        )
        return np.where(self.is_available(day), np.exp(log_weight), 0.0)


class Catalogue:
    """The items as one day can draw them: cumulative popularity in the order of communities."""

    def __init__(self, items: Items, day: int) -> None:
        """Lay the day's weights out by community."""
        self.items = items
        self.cumulative = np.concatenate([[0.0], np.cumsum(items.weights(day)[items.order])])  # [I + 1]
        self.community_bounds = self.cumulative[items.starts]  # [M + 1]
        self.cluster_bounds = self.community_bounds[:: items.config.communities_per_cluster]  # [C + 1]

    def pick(self, low: np.ndarray, high: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        """
        Draw items by popularity between two bounds of cumulative weight.

        Args:
            low, high: Bounds, broadcastable to ``fraction``; an empty range falls back to all items.
            fraction: Uniform values in [0, 1).

        Returns:
            Item indices, int64, of the shape of ``fraction``.
        """
        is_empty = high <= low
        low = np.where(is_empty, 0.0, low)
        high = np.where(is_empty, self.cumulative[-1], high)
        place = np.searchsorted(self.cumulative, low + fraction * (high - low), side="right") - 1
        return self.items.order[np.minimum(place, self.items.n - 1)]


def community_popularity(config: SyntheticConfig) -> np.ndarray:
    """Give the share of each community inside its cluster, float64 [C, M / C]; rows sum to 1."""
    weight = np.exp(_community_log_weight(config)).reshape(config.n_clusters, -1)
    return weight / weight.sum(axis=1, keepdims=True)


def community_inside(
    config: SyntheticConfig, cluster: np.ndarray, user_index: np.ndarray, *keys: Keys
) -> np.ndarray:
    """
    Draw a community of each cluster for each user, int64 [n].

    With probability ``LOYALTY`` it is the user's own community of that cluster, otherwise one by popularity.
    """
    place = draw(
        community_popularity(config)[cluster],
        uniform(config.seed, "community.fresh", user_index, cluster, *keys),
    )
    is_loyal = uniform(config.seed, "community.loyal", user_index, cluster, *keys) < LOYALTY
    fresh = cluster * config.communities_per_cluster + place
    return np.where(is_loyal, own_community(config, cluster, user_index), fresh)


def own_community(config: SyntheticConfig, cluster: np.ndarray, user_index: np.ndarray) -> np.ndarray:
    """Give the community that a user prefers in a cluster on all days, int64, broadcast."""
    per_cluster = config.communities_per_cluster
    return cluster * per_cluster + integers(config.seed, "community.own", per_cluster, user_index, cluster)


def _community_log_weight(config: SyntheticConfig) -> np.ndarray:
    community = np.arange(config.n_communities)
    spread = _COMMUNITY_SKEW * config.popularity_skew * normal(config.seed, "community.popularity", community)
    return spread + _cluster_log_weight(config)[community // config.communities_per_cluster]


def _cluster_log_weight(config: SyntheticConfig) -> np.ndarray:
    cluster = np.arange(config.n_clusters)
    return _CLUSTER_SKEW * config.popularity_skew * normal(config.seed, "cluster.popularity", cluster)


def companions(config: SyntheticConfig) -> np.ndarray:
    """Give the two companion communities of each community, in other clusters, int64 [M, 2]."""
    per_cluster = config.communities_per_cluster
    community = np.arange(config.n_communities)[:, None]
    variant = np.arange(2)
    step = 1 + integers(config.seed, "companion.cluster", config.n_clusters - 1, community, variant)
    inside = integers(config.seed, "companion.community", per_cluster, community, variant)
    return (community // per_cluster + step) % config.n_clusters * per_cluster + inside


@dataclass(frozen=True)
class Users:
    """The latent state of one block of users."""

    index: np.ndarray  # int64 [B]: user index over the whole world
    group: np.ndarray  # int64 [B]: age band and gender
    taste: np.ndarray  # float64 [B, C]: probability of each cluster
    style: np.ndarray  # float32 [B, D]
    activity: np.ndarray  # float64 [B]: probability of being active on a day
    birth_day: np.ndarray  # int64 [B]

    @property
    def variant(self) -> np.ndarray:
        """Tell which companion of a community the user moves on to, int64 [B]."""
        return (self.style[:, 0] > 0).astype(np.int64)


def user_block(config: SyntheticConfig, block: int, n_users: int) -> Users:
    """
    Draw the users ``[block * BLOCK_USERS, ...)`` below ``n_users``.

    A user's taste is softmax_k(1.6 (p N_gk + sqrt(1 - p^2) N_uk)) with p = ``profile_strength``, g the
    group that the profile tells, and N standard normal.
    """
    seed, told = config.seed, config.profile_strength
    index = np.arange(block * BLOCK_USERS, min((block + 1) * BLOCK_USERS, n_users))
    group = integers(seed, "user.group", N_GROUPS, index)
    cluster = np.arange(config.n_clusters)
    logits = told * normal(seed, "group.taste", group[:, None], cluster)
    logits = logits + np.sqrt(1.0 - told**2) * normal(seed, "user.taste", index[:, None], cluster)
    taste = np.exp(_TASTE_SD * logits + _cluster_log_weight(config))
    activity = config.active_share + 0.8 * min(config.active_share, 1.0 - config.active_share) * (
        uniform(seed, "user.activity", index) * 2.0 - 1.0
    )
    late = index - config.n_users
    return Users(
        index=index,
        group=group,
        taste=taste / taste.sum(axis=1, keepdims=True),
        style=normal(seed, "user.style", index[:, None], np.arange(N_STYLES)).astype(np.float32),
        activity=activity,
        birth_day=np.where(late < 0, 0, late // max(config.new_users_per_day, 1) + 1),
    )


def fit(user_style: np.ndarray, item_style: np.ndarray) -> np.ndarray:
    """Give how well items suit users, mean 0 and variance 1: z_u . v_i / sqrt(D), over the last axis."""
    return np.einsum("...d,...d->...", user_style, item_style) / np.float32(np.sqrt(N_STYLES))


def profile_tokens(config: SyntheticConfig, users: Users) -> list[list[str]]:
    """Give each user's profile as sorted ``name=value`` tokens: age, device (noise), gender, two styles."""
    device = integers(config.seed, "user.device", 3, users.index)
    honest = uniform(config.seed, "user.honest", users.index[:, None], np.arange(2))
    is_high = (users.style[:, :2] > 0) == (honest < (1.0 + config.profile_strength) / 2.0)
    level = np.where(is_high, "high", "low").tolist()
    rows = zip((users.group // 2).tolist(), device.tolist(), (users.group % 2).tolist(), level, strict=True)
    return [
        [f"age={age}", f"device={tool}", f"gender={gender}", f"style_0={first}", f"style_1={second}"]
        for age, tool, gender, (first, second) in rows
    ]
