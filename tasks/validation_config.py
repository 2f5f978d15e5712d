"""Which bounds does a day's data have to keep? Read by the settings; imports no Great Expectations."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Severity = Literal["critical", "warning"]


class ValidationConfig(BaseModel):
    """Bounds of the day's validation. A critical failure stops the day, a warning is reported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trailing_days: int = Field(
        7, ge=1, le=365, description="Days before the day that its volume and scenario shares compare with."
    )
    volume_low: float = Field(
        0.3, ge=0, le=1, description="Fewest rows of a day, as a share of the trailing median."
    )
    volume_high: float = Field(
        3.0, ge=1, description="Most rows of a day, as a multiple of the trailing median."
    )
    max_scenario_drift: float = Field(
        0.25, ge=0, le=1, description="Largest change of a scenario's share of exposures (absolute)."
    )
    max_positions: int = Field(10_000, ge=1, description="Longest plausible page, ranking or history.")
    severities: dict[str, Severity] = Field(
        default_factory=dict,
        description="Severity of single expectations, by name (exposure.volume_high = critical).",
    )
