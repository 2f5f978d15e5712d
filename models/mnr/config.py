"""How are rankings queued and scored? MNR's hyperparameters, named as in the paper (2.2)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Truncation = Annotated[int, Field(ge=1, le=10_000)]


class UnknownScenario(ValueError):
    """A scenario has no truncation, and the default refuses it; the message names the setting."""


class MNRConfig(BaseModel):
    """Hyperparameters of MNR."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    truncation: dict[str, Truncation] = Field(
        default_factory=dict,
        description="Truncate_s (Eq. 4): items of a ranking that count, per scenario; the paper has 500 for "
        "detail, post-purchase and main search, 20 for in-shop and photo search.",
    )
    default_truncation: Truncation | None = Field(
        500, description="The same for scenarios that truncation does not name; unset, those are refused."
    )
    n_visits: int = Field(10, ge=1, le=1000, description="N (Eq. 5): latest visits that a queue keeps.")
    alpha: float = Field(
        50.0,
        gt=0,
        le=1e9,
        allow_inf_nan=False,
        description="Of Eq. 6: a larger one weighs time more.",
    )
    beta: float = Field(
        10.0,
        gt=0,
        le=1e9,
        allow_inf_nan=False,
        description="Of Eq. 6: a larger one weighs rank more.",
    )
    max_per_category: int | None = Field(
        20,
        ge=1,
        description="Dispersal: items of one category in a list; unset, no limit. An item without a category "
        "is not limited.",
    )
    k: int = Field(200, ge=1, le=10_000, description="Items of a list, per user and scenario.")
    order: Literal["score", "fifo", "random"] = Field(
        "score",
        description="What decides: score is Eq. 6; fifo the visit's time alone; random nothing. In the last "
        "two, chance replaces the rank.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of that chance.")
    idle_seconds: int = Field(
        14 * 86_400,
        ge=1,
        description="A queue without a visit for so long is forgotten: what came before counts no more.",
    )

    def truncation_of(self, scenario: str) -> int:
        """
        Give Truncate_s of a scenario.

        Raises:
            UnknownScenario: it is not named and there is no default.
        """
        found = self.truncation.get(scenario, self.default_truncation)
        if found is None:
            raise UnknownScenario(
                f"scenario {scenario!r} has no truncation; name it in mnr.truncation or set "
                "mnr.default_truncation"
            )
        return found
