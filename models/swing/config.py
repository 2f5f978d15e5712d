"""What can be chosen about a Swing index?"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SwingConfig(BaseModel):
    """Options of the Swing index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(1.0, ge=1e-9, le=1e9, description="smoothing of Eq. 2: added to |Iu ∩ Iv|")
    truncation: int = Field(1250, ge=1, lt=2**31, description="T: targets kept per trigger")
    user_weight: Literal["inverse_sqrt", "none"] = Field(
        "inverse_sqrt", description="w_u: inverse_sqrt damps active users (Eq. 3), none is Eq. 2"
    )
    include_self_pairs: bool = Field(
        False, description="also add u = v, so that one shared user links two items; for very sparse logs"
    )
    max_users_per_item: int | None = Field(
        None,
        ge=2,
        lt=2**31,
        description="users kept per trigger, chosen by a seeded hash; makes scores asymmetric; none: all",
    )
    max_items_per_user: int | None = Field(
        None, ge=2, lt=2**31, description="most recent items kept per user (ties by item id); none: all"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the hash of users")
    n_threads: int = Field(0, ge=0, description="threads, 0 for one per CPU; never changes the result")
    memory_budget_gib: float | None = Field(
        None,
        gt=0,
        le=2**20,
        description="memory a build may add to its process (GiB); never changes the result; none: no limit",
    )
