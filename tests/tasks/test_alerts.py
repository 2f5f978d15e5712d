"""An alert reaches a real webhook, and a bad webhook harms nobody."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from tasks.alerts import Alert, send_alert
from tasks.alerts_config import AlertsConfig

ALERT = Alert(
    kind="failure",
    dag_id="daily_cycle",
    run_id="scheduled__2022-05-04",
    day=date(2022, 5, 3),
    task_id="build_histories",
    reason="MissingPartition: no committed partition of click for 2022-05-01",
    log_url="http://airflow/log",
    advice="mend the cause, then clear build_histories of this run",
)


class Webhook(ThreadingHTTPServer):
    """A server that keeps what is posted to it, and answers as its path says."""

    def __init__(self):
        self.posted: list[dict] = []
        self.release = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.path.startswith("/slow"):
            self.server.release.wait(30)
        self.send_response(500 if self.path.startswith("/broken") else 200)
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


def test_the_webhook_gets_the_facts_and_a_text_to_read(webhook, caplog):
    assert send_alert(ALERT, AlertsConfig(webhook_url=webhook.url("/hook")))
    (posted,) = webhook.posted
    assert posted == {
        "text": "daily_cycle of 2022-05-03 failed at build_histories\n"
        "MissingPartition: no committed partition of click for 2022-05-01\n"
        "mend the cause, then clear build_histories of this run\n"
        "log: http://airflow/log",
        "kind": "failure",
        "dag_id": "daily_cycle",
        "run_id": "scheduled__2022-05-04",
        "day": "2022-05-03",
        "task_id": "build_histories",
        "reason": "MissingPartition: no committed partition of click for 2022-05-01",
        "log_url": "http://airflow/log",
    }
    assert "ALERT daily_cycle of 2022-05-03 failed" in caplog.text


def test_without_a_webhook_the_alert_is_in_the_log(caplog):
    assert not send_alert(ALERT, AlertsConfig())
    assert "ALERT daily_cycle of 2022-05-03 failed at build_histories" in caplog.text


def test_a_slow_webhook_costs_its_timeout_at_most(webhook, caplog):
    started = time.monotonic()
    assert not send_alert(ALERT, AlertsConfig(webhook_url=webhook.url("/slow/secret"), timeout_seconds=0.3))
    assert time.monotonic() - started < 2
    assert "the alert webhook did not take the alert" in caplog.text


@pytest.mark.parametrize(
    ("address", "told"),
    [("/broken/secret", "it answered 500"), ("http://127.0.0.1:1/secret", "ConnectError")],
)
def test_a_webhook_that_fails_is_logged_without_its_address(webhook, caplog, address, told):
    url = address if address.startswith("http") else webhook.url(address)
    with caplog.at_level(logging.DEBUG):
        assert not send_alert(ALERT, AlertsConfig(webhook_url=url))
    assert f"the alert webhook did not take the alert: {told}" in caplog.text
    assert "secret" not in caplog.text


def test_the_address_is_a_secret_and_must_be_a_web_address():
    config = AlertsConfig(webhook_url="https://hooks.example.org/T0/secret")
    assert "secret" not in repr(config)
    assert "secret" not in config.model_dump_json()
    assert AlertsConfig(webhook_url="").webhook_url is None
    for wrong in ("hooks.example.org/secret", "file:///etc/passwd", "https://"):
        with pytest.raises(ValidationError, match="webhook_url must start with https://"):
            AlertsConfig(webhook_url=wrong)
