"""
What does the synthetic world look like, and how strong is each signal planted in it?

Sizes first, strengths below; a strength of 0 switches its signal off. ``docs/synthetic_world.md`` has the
formulas.
"""

from datetime import date, timedelta

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCENARIOS = ("home", "search", "shop", "detail", "live", "photo_search", "post_purchase", "coupon")


class SyntheticConfig(BaseModel):
    """Sizes, rates and signal strengths of a seeded world; the same values give the same rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(20260101, ge=0, lt=2**32, description="seed of everything random")
    first_day: date = Field(date(2026, 1, 1), description="first day of the log (UTC)")
    n_days: int = Field(10, ge=1, le=3650, description="days in the log")
    n_users: int = Field(2_000, ge=10, description="users on the first day")
    n_items: int = Field(3_000, ge=100, description="items on the first day")
    n_clusters: int = Field(24, ge=2, le=10_000, description="item clusters (= categories)")
    community_size: int = Field(25, ge=2, le=1_000, description="mean items of a co-click community")
    n_scenarios: int = Field(4, ge=1, le=len(SCENARIOS), description="home and the scenarios beside it")
    active_share: float = Field(0.6, gt=0, le=1, description="mean share of the users active on a day")
    visits_per_day: float = Field(1.8, ge=1, le=6, description="mean visits of an active user")
    new_users_per_day: int = Field(25, ge=0, description="users whose first day each later day is")
    new_items_per_day: int = Field(40, ge=0, description="items that appear on each later day")
    unavailable_share: float = Field(0.03, ge=0, lt=1, description="share of the items unavailable on a day")
    ranking_length: int = Field(100, ge=10, le=2_000, description="items kept of a ranking, at most")
    page_size: int = Field(10, ge=1, le=50, description="items shown of a ranking")
    return_days: int = Field(
        10, ge=2, le=365, description="a user wants an item on one day in so many: clicks hardly repeat"
    )
    interest_days: int = Field(30, ge=1, description="days after which a long-term interest is replaced")
    trigger_days: int = Field(6, ge=1, le=30, description="days for which a trigger can fire")
    order_share: float = Field(0.08, ge=0, le=1, description="mean share of the clicks that become orders")

    taste_strength: float = Field(
        0.85, ge=0, le=1, description="share of a ranking drawn from interests, the rest by popularity"
    )
    community_strength: float = Field(
        0.85, ge=0, le=1, description="share of an interest's items from its community, the rest its cluster"
    )
    scenario_strength: float = Field(
        1.5, ge=0, le=5, description="how far interests differ between scenarios (sd of log weights)"
    )
    leak_strength: float = Field(
        1.0, ge=0, le=10, description="weight in home of an interest opened in another scenario"
    )
    companion_strength: float = Field(
        0.4, ge=0, le=1, description="share of a leaked interest that moves on to the companion community"
    )
    session_strength: float = Field(
        0.25, ge=0, le=1, description="chance that what was opened elsewhere is wanted, in home too, that day"
    )
    home_preference: float = Field(
        1.3, ge=0, le=10, description="how far the home ranking favours half of the clusters"
    )
    trigger_strength: float = Field(
        1.5, ge=0, le=20, description="weight of a one-day-old trigger against all long-term interests"
    )
    trigger_spread: float = Field(
        1.0, ge=0, le=3, description="how far triggers differ in strength by item (sd of log strength)"
    )
    recency_strength: float = Field(0.7, ge=0, le=5, description="rate per day at which triggers fade")
    personal_strength: float = Field(
        0.8, ge=0, le=3, description="how far personal taste decides which trigger fires and what is clicked"
    )
    ranking_skill: float = Field(
        0.9, ge=0, le=1, description="how well a ranking orders by true utility (0: at random)"
    )
    anticipation: float = Field(
        0.7, ge=0, le=1, description="how well rankings see what the user will want on the next days"
    )
    popularity_skew: float = Field(
        0.6, ge=0, lt=1, description="exponent of the power law of popularity (0: all items alike)"
    )
    popularity_drift: float = Field(
        0.4, ge=0, le=3, description="how far the head of the power law moves over days (sd of log weight)"
    )
    new_item_boost: float = Field(1.0, ge=0, le=5, description="log weight that a new item has for some days")
    profile_strength: float = Field(
        0.8, ge=0, le=1, description="how far a user's taste follows what the profile tells"
    )
    feature_strength: float = Field(
        0.95, ge=0, le=1, description="share of items whose author, brand and category tell the truth"
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> "SyntheticConfig":
        if self.page_size > self.ranking_length:
            raise ValueError(
                f"page_size {self.page_size} is more than ranking_length {self.ranking_length}: "
                "a page is the first part of a ranking"
            )
        if self.n_clusters * 2 > self.n_items:
            raise ValueError(
                f"n_clusters {self.n_clusters} is too many for n_items {self.n_items}: at most half of it"
            )
        return self

    @property
    def last_day(self) -> date:
        """Last day of the log."""
        return self.first_day + timedelta(days=self.n_days - 1)

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Names of the scenarios, the primary one (home) first."""
        return SCENARIOS[: self.n_scenarios]

    @property
    def communities_per_cluster(self) -> int:
        """Communities inside each cluster."""
        return max(1, round(self.n_items / (self.community_size * self.n_clusters)))

    @property
    def n_communities(self) -> int:
        """Communities in all; community m lies in cluster m // communities_per_cluster."""
        return self.n_clusters * self.communities_per_cluster
