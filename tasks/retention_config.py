"""How long is kept what no release and no window needs?"""

from pydantic import BaseModel, ConfigDict, Field


class RetentionConfig(BaseModel):
    """Limits of the retention; days count back from the newest ingested day, not from the clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    local_releases: int = Field(
        5, ge=1, description="Newest registered releases whose local copies stay; those in use always do."
    )
    quarantine_days: int = Field(90, ge=1, description="Days whose refused rows stay.")
    data_docs_days: int = Field(90, ge=1, description="Days whose validation reports stay.")
    staged_days: int = Field(14, ge=2, description="Days whose unregistered release folders stay.")
    superseded_grace_hours: float = Field(
        48,
        ge=24,
        description="How long a replaced data file stays: longer than any run, which may still read it.",
    )
