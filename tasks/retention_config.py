"""How long is kept what no release and no window needs?"""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# An empty variable means what is not set at all: kept for good.
Limit = Annotated[int | None, BeforeValidator(lambda value: None if value == "" else value)]


class PartitionDays(BaseModel):
    """Days of each class of tables that stay, the newest ingested one included; unset: all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    logs: Limit = Field(None, ge=2, description="exposure, ranking_log, retrieval_log, item and user.")
    derived: Limit = Field(None, ge=2, description="click to pi2i_sample, what is made from the logs.")
    checkpoints: Limit = Field(None, ge=2, description="Trained models; those of releases are in MLflow too.")
    figures: Limit = Field(None, ge=2, description="metric, example and gate: small, and what plots go by.")


class RetentionConfig(BaseModel):
    """Limits of the retention. Days count back from the newest ingested day, not from the clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition_days: PartitionDays = Field(
        default_factory=PartitionDays, description="At least window_days + 1: the next day needs its window."
    )
    quarantine_days: int = Field(90, ge=1, description="Days whose refused rows stay.")
    data_docs_days: int = Field(90, ge=1, description="Days whose validation reports stay.")
    staged_days: int = Field(14, ge=2, description="Days whose unregistered release folders stay.")
    release_local_copies: int = Field(
        5, ge=1, description="Newest registered releases whose local copies stay; those in use always do."
    )
    release_days: Limit = Field(
        None,
        ge=2,
        description="Days whose registered releases stay in MLflow, with the runs of the day and all "
        "artifacts; unset: all of them. Never champion, challenger or what serves.",
    )
    releases: int = Field(
        30, ge=1, description="Registered releases, of the latest days, that stay however old they are."
    )
    rollback_releases: int = Field(
        5, ge=1, description="Releases that so many rollbacks in a row would go back to, which always stay."
    )
    superseded_grace_hours: float = Field(
        48,
        ge=24,
        description="What was written, replaced or served this recently stays: longer than any run.",
    )
