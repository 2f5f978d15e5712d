"""Whom does a failed or late run tell? Read by the settings; sends nothing."""

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

EmptyIsUnset = BeforeValidator(lambda value: value or None)


class AlertsConfig(BaseModel):
    """
    The webhook that alerts go to, as JSON with the key ``text`` (Slack, Mattermost, Teams), and when.

    Every alert is in the log too. The address is a secret: set it by TRIBUTARY_ALERTS__WEBHOOK_URL.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    webhook_url: Annotated[SecretStr | None, EmptyIsUnset] = Field(
        None, description="Address that alerts are posted to; unset: alerts are in the log only."
    )
    timeout_seconds: float = Field(
        10, gt=0, le=120, description="Longest wait for the webhook; an alert not taken by then is lost."
    )
    deadline_hours: float = Field(
        6, gt=0, le=24 * 7, description="A run not done this long after the end of its day is told of."
    )

    @model_validator(mode="after")
    def _webhook_is_a_web_address(self) -> Self:
        if self.webhook_url is not None:
            address = urlsplit(self.webhook_url.get_secret_value())
            if address.scheme not in ("http", "https") or not address.hostname:
                raise ValueError("webhook_url must start with https:// or http:// and name a host")
        return self
