"""How does the click worker run? Its settings."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.pi2i.config import MOST_TRIGGERS


class NearlineConfig(BaseModel):
    """The worker that turns clicks into fresh PI2I candidates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clicks_url: str = Field(
        "",
        description="Where clicks come from: redis://host:port/db (a stream, for any number of workers) or "
        "file:///path.jsonl (one worker). Empty: the online store's Redis, or <var>/nearline/clicks.jsonl.",
    )
    k: int = Field(500, ge=1, le=10_000, description="Candidates written for a user.")
    n_clicked: int = Field(
        200,
        ge=MOST_TRIGGERS,
        le=10_000,
        description="Distinct items, the last clicked, that are kept of a user between releases.",
    )
    clicked_days: int = Field(
        14, ge=1, le=365, description="A user who does not click for so long is forgotten between releases."
    )
    batch_size: int = Field(
        32, ge=1, le=10_000, description="Events taken at once; those of one user are answered together."
    )
    claim_after_seconds: float = Field(
        10.0,
        ge=0.1,
        le=3600,
        description="Events that a worker took and did not finish for so long go to another one; longer than "
        "a batch takes.",
    )
    max_deliveries: int = Field(
        5, ge=1, le=100, description="An event that was taken so often and never finished is put aside."
    )
    most_ahead_seconds: float = Field(
        60.0, ge=0, le=86_400, description="A click further in the future than this is put aside."
    )
    patience_seconds: float = Field(
        60.0,
        ge=0.1,
        le=86_400,
        description="How long a store or stream that does not answer is tried before the worker gives up.",
    )
    n_threads: int = Field(2, ge=1, le=256, description="CPU threads of scoring.")

    @model_validator(mode="after")
    def _finishes_before_others_claim(self) -> Self:
        if self.batch_size > 1 and self.claim_after_seconds < 1:
            raise ValueError(f"claim_after_seconds {self.claim_after_seconds} is less than a batch may take")
        return self
