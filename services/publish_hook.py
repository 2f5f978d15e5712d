"""
How is a champion served at once, when a person moves the alias in MLflow?

MLflow calls this small server, a webhook, when an alias of a model version was set or deleted; for the alias
champion of our model it triggers ``publish_release`` in Airflow. Nothing hangs on it: a call that is lost, or
an Airflow that is away, costs minutes, because the schedule of ``publish_release`` looks every five.

    python -m services.publish_hook             serve, and have the webhook registered once MLflow answers
    python -m services.publish_hook --register  register the webhook in MLflow and end; safe to repeat

Variables of the hook: TRIBUTARY_SERVICES__HOOK_PORT and TRIBUTARY_SERVICES__HOOK_SECRET; to trigger,
TRIBUTARY_SERVICES__AIRFLOW_URL, AIRFLOW_ADMIN_USERNAME and AIRFLOW_ADMIN_PASSWORD; to register,
TRIBUTARY_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of an administrator, and
TRIBUTARY_SERVICES__HOOK_URL where MLflow runs elsewhere. Variables of the MLflow server:
MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY, a Fernet key that stays the same, or it cannot read the secret after a
restart; and, as the hook is on a private network, MLFLOW_WEBHOOK_ALLOWED_SCHEMES=http,https and
MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true. ``GET /health`` answers 200.
"""

import argparse
import base64
import hashlib
import hmac
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from services.airflow_api import AirflowRefused, AirflowUnavailable, open_airflow
from tasks.settings import Settings, load_settings

DAG_ID = "publish_release"
HOST = "127.0.0.1"
MOST_BYTES = 1 << 16
OLDEST_SECONDS = 300
PAUSE_SECONDS = 5.0
REQUEST_TIMEOUT_SECONDS = 10
REGISTER_EVERY_SECONDS = 15.0

log = logging.getLogger(__name__)


class BadHook(ValueError):
    """The settings do not make a hook; the message names what is missing."""


class BadCall(ValueError):
    """A call that is not MLflow's, or not a call of now."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m services.publish_hook", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--register", action="store_true", help="register the webhook in MLflow and end")
    parser.add_argument("--host", default=HOST, help="address to listen on (default: %(default)s)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = load_settings()
        if options.register:
            register(settings)
            return 0
        with PublishHook(settings, options.host) as server:
            threading.Thread(target=_register_once_mlflow_answers, daemon=True).start()
            log.info("the publish hook listens on %s:%d", *server.server_address[:2])
            server.serve_forever()
    except KeyboardInterrupt:
        return 0
    except (ValueError, LookupError, OSError) as error:
        print(f"publish_hook: {error}", file=sys.stderr)
        return 1
    return 0


def register(settings: Settings) -> None:
    """
    Register the webhook in MLflow, or bring the registered one up to date.

    Raises:
        BadHook: the settings name no port or secret, or MLflow is no server.
        WebhookRefused: MLflow refuses the address of the hook.
        TrackingUnavailable: MLflow does not answer.
    """
    from tasks import tracking

    secret = _secret(settings)
    services = settings.services
    if not services.hook_url and not services.hook_port:
        raise BadHook("there is no address of the hook: set TRIBUTARY_SERVICES__HOOK_PORT")
    if not settings.tracking_uri.startswith("http"):
        raise BadHook(f"only an MLflow server calls webhooks, and tracking_uri is {settings.tracking_uri}")
    url = services.hook_url or f"http://{HOST}:{services.hook_port}"
    tracking.register_alias_webhook(DAG_ID, url, secret, settings)
    log.info("MLflow at %s calls %s when an alias moves", settings.tracking_uri, url)


def check_signature(headers: Mapping[str, str], body: bytes, secret: str) -> None:
    """
    Check that MLflow signed this call, and signed it now.

    Raises:
        BadCall: a header is missing, the signature is another one, or the call is more than five minutes old.
    """
    given = [headers.get(f"X-MLflow-{name}", "") for name in ("Delivery-Id", "Timestamp", "Signature")]
    if not all(given):
        raise BadCall("the call is not signed")
    delivery_id, timestamp, signature = given
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    if not hmac.compare_digest(f"v1,{base64.b64encode(digest).decode()}".encode(), signature.encode()):
        raise BadCall("the signature is not that of the secret")
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > OLDEST_SECONDS:
        raise BadCall(f"the call is not of the last {OLDEST_SECONDS} s; compare the clocks of the machines")


def is_champion_move(body: bytes, model_name: str) -> bool:
    """
    Tell whether a call says that our model's alias champion was set or deleted.

    Raises:
        BadCall: it is not JSON of MLflow's form.
    """
    try:
        call = json.loads(body)
        entity, action, data = call["entity"], call["action"], call["data"]
        return (
            entity == "model_version_alias"
            and action in ("created", "deleted")
            and (data["name"], data["alias"]) == (model_name, "champion")
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadCall(f"the call is none of MLflow's: {error!r}") from error


class Trigger:
    """Triggers publishing at once, and while moves keep coming, once in ``pause_seconds``."""

    def __init__(self, settings: Settings, pause_seconds: float = PAUSE_SECONDS):
        """Start the thread that triggers."""
        self._settings, self._pause_seconds = settings, pause_seconds
        self._moved = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def notice(self) -> None:
        """Take note of a move and return at once."""
        self._moved.set()

    def _run(self) -> None:
        while True:
            self._moved.wait()
            self._moved.clear()
            try:
                with open_airflow(self._settings) as airflow:
                    log.info("the alias champion moved: triggered %s", airflow.trigger_dag(DAG_ID))
            except (AirflowUnavailable, AirflowRefused) as error:
                log.error("the alias champion moved; its schedule will publish it, since %s", error)
            except Exception:
                log.exception("the alias champion moved; its schedule will publish it")
            time.sleep(self._pause_seconds)


class PublishHook(ThreadingHTTPServer):
    """The server; its port is ``services.hook_port``."""

    daemon_threads = True

    def __init__(self, settings: Settings, host: str = HOST, *, pause_seconds: float = PAUSE_SECONDS):
        """
        Listen, from now on.

        Raises:
            BadHook: there is no port, no secret, or no Airflow to trigger.
            OSError: the port is taken; the message names it.
        """
        self.secret = _secret(settings)
        self.model_name = settings.model_name
        port = settings.services.hook_port
        if not port:
            raise BadHook("there is no port to listen on: set TRIBUTARY_SERVICES__HOOK_PORT")
        open_airflow(settings).close()
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise OSError(
                f"cannot listen on {host}:{port} ({error.strerror}): set TRIBUTARY_SERVICES__HOOK_PORT"
            ) from error
        self.trigger = Trigger(settings, pause_seconds)


class _Handler(BaseHTTPRequestHandler):
    server: PublishHook
    timeout = REQUEST_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        """Tell that the hook is there."""
        is_health = self.path == "/health"
        self._answer(HTTPStatus.OK if is_health else HTTPStatus.NOT_FOUND, "ok" if is_health else "not found")

    def do_POST(self) -> None:
        """Take a call of MLflow."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a call has at most {MOST_BYTES} bytes")
            return
        body = self.rfile.read(int(length))
        try:
            check_signature(self.headers, body, self.server.secret)
        except BadCall as error:
            log.warning("refused a call from %s: %s", self.client_address[0], error)
            self._answer(HTTPStatus.UNAUTHORIZED, str(error))
            return
        try:
            is_ours = is_champion_move(body, self.server.model_name)
        except BadCall as error:
            self._answer(HTTPStatus.BAD_REQUEST, str(error))
            return
        if is_ours:
            self.server.trigger.notice()
        self._answer(HTTPStatus.ACCEPTED, "publishing" if is_ours else "nothing to do")

    def log_message(self, *_: Any) -> None:
        """Keep the standard line per request out of the log."""

    def _answer(self, status: HTTPStatus, text: str) -> None:
        content = json.dumps({"message": text}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True


def _secret(settings: Settings) -> str:
    if settings.services.hook_secret is None:
        raise BadHook("the hook has no secret to know MLflow by: set TRIBUTARY_SERVICES__HOOK_SECRET")
    return settings.services.hook_secret.get_secret_value()


def _register_once_mlflow_answers() -> None:
    """Register in a process of its own, which alone loads MLflow, until that went well."""
    while subprocess.run(
        [sys.executable, "-m", "services.publish_hook", "--register"], check=False
    ).returncode:
        time.sleep(REGISTER_EVERY_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
