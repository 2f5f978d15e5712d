"""How is a person told that a run failed or is late? By the log, and by a webhook where one is configured."""

import logging
import threading
from dataclasses import dataclass
from datetime import date
from typing import Literal

import httpx

from tasks.alerts_config import AlertsConfig

# httpx tells the address of each request at INFO, and the webhook's is a secret.
logging.getLogger("httpx").setLevel(logging.WARNING)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """
    What happened to a DAG run, for the engineer on call.

    ``reason`` and ``advice`` are one line each; ``day``, ``task_id`` and ``log_url`` are None where unknown.
    """

    kind: Literal["failure", "deadline"]
    dag_id: str
    run_id: str
    day: date | None
    task_id: str | None
    reason: str
    log_url: str | None
    advice: str

    def text(self) -> str:
        """Give the whole alert as a few lines to read."""
        what = f"{self.dag_id} of {self.day}" if self.day else f"{self.dag_id}, run {self.run_id},"
        state = "failed" if self.kind == "failure" else "is late"
        lines = [
            f"{what} {state}" + (f" at {self.task_id}" if self.task_id else ""),
            self.reason,
            self.advice,
        ]
        return "\n".join(lines + ([f"log: {self.log_url}"] if self.log_url else []))

    def payload(self) -> dict[str, str | None]:
        """Give the JSON that the webhook gets."""
        return {
            "text": self.text(),
            "kind": self.kind,
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "day": self.day.isoformat() if self.day else None,
            "task_id": self.task_id,
            "reason": self.reason,
            "log_url": self.log_url,
        }


def send_alert(alert: Alert, config: AlertsConfig) -> bool:
    """
    Log the alert and post it to the webhook; tell whether the webhook took it.

    Never raises for a webhook that is down, slow or says no, and never takes longer than
    ``timeout_seconds``: that is logged, without the webhook's address.
    """
    log.error("ALERT %s", alert.text())
    if config.webhook_url is None:
        return False
    outcome = ["it did not answer in time"]
    thread = threading.Thread(target=_post, args=(alert, config, outcome), daemon=True)
    thread.start()
    thread.join(config.timeout_seconds)
    if outcome[0]:
        log.warning("the alert webhook did not take the alert: %s", outcome[0])
    return not outcome[0]


def _post(alert: Alert, config: AlertsConfig, outcome: list[str]) -> None:
    """Post the alert; put what went wrong into ``outcome[0]``, empty where nothing did."""
    try:
        answer = httpx.post(
            config.webhook_url.get_secret_value(), json=alert.payload(), timeout=config.timeout_seconds
        )
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        outcome[0] = type(error).__name__  # its message may hold the address
    else:
        outcome[0] = "" if answer.is_success else f"it answered {answer.status_code}"
