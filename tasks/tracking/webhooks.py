"""Whom does MLflow call when an alias of a model version moves?"""

from mlflow.entities.webhook import WebhookEvent, WebhookStatus
from mlflow.exceptions import MlflowException

from lakehouse.storage import one_line
from tasks.settings import Settings
from tasks.tracking.connection import connected

EVENTS = ("model_version_alias.created", "model_version_alias.deleted")


class WebhookRefused(ValueError):
    """MLflow does not take the webhook; the message tells why and what its server needs."""


def register_alias_webhook(name: str, url: str, secret: str, settings: Settings) -> None:
    """
    Have ``url`` called, signed with ``secret``, when an alias is set or deleted; one webhook for each name.

    Raises:
        WebhookRefused: MLflow refuses the address, or cannot read the webhooks that it has.
    """
    events = [WebhookEvent.from_str(event) for event in EVENTS]
    with connected(settings) as client:
        try:
            known, token = [], None
            while token != "":
                page = client.list_webhooks(max_results=100, page_token=token)
                known += [webhook.webhook_id for webhook in page if webhook.name == name]
                token = page.token or ""
            if not known:
                client.create_webhook(name, url, events, secret=secret, status=WebhookStatus.ACTIVE)
            for webhook_id in known[:1]:
                client.update_webhook(
                    webhook_id, url=url, events=events, secret=secret, status=WebhookStatus.ACTIVE
                )
            for webhook_id in known[1:]:
                client.delete_webhook(webhook_id)
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "INTERNAL_ERROR"):
                raise
            raise WebhookRefused(
                f"MLflow at {settings.tracking_uri} does not take the webhook {url} ({one_line(error)}): "
                "its server needs MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, the same at every start, and for a "
                "private address MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and "
                "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true"
            ) from error
