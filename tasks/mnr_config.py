"""How does the daily cycle look at MNR's streaming job, in replays and live? Read by the settings."""

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

EmptyIsUnset = BeforeValidator(lambda value: value or None)


class MNRDailyConfig(BaseModel):
    """What the daily side of MNR knows of the streaming one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delay_seconds: float = Field(
        1.0, ge=0, le=86_400, description="From a ranking's event time until the store has it, in replays."
    )
    flink_url: Annotated[str | None, EmptyIsUnset] = Field(
        None, description="REST address of the job's Flink cluster; unset, no job is looked after."
    )
    job_name: str = Field("mnr", min_length=1, description="Name of the streaming job on the cluster.")
    max_lag_seconds: float = Field(
        300,
        gt=0,
        description="A job whose watermark or last checkpoint is further behind is unwell. The watermark is "
        "always behind by what the job waits for late events.",
    )
    timeout_seconds: float = Field(10, gt=0, le=120, description="Longest wait for an answer of Flink.")

    @model_validator(mode="after")
    def _flink_is_a_web_address(self) -> Self:
        if self.flink_url is not None:
            address = urlsplit(self.flink_url)
            if address.scheme not in ("http", "https") or not address.hostname:
                raise ValueError("flink_url must start with http:// or https:// and name a host")
        return self
