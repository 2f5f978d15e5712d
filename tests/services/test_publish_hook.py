"""The publish hook: a real MLflow server calls it when the alias moves, and nobody else can."""

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient

from services.publish_hook import BadHook, PublishHook, main, register
from tasks import tracking
from tasks.settings import Settings
from tests.tasks.small_releases import small_settings

SECRET = "a secret that both know"
PAUSE_SECONDS = 0.3
MOVE = {"entity": "model_version_alias", "action": "created"}
CHAMPION = {"name": "retrieval", "alias": "champion", "version": "1"}


class Airflow(ThreadingHTTPServer):
    """What the hook needs of Airflow's API: a login and a trigger, which notes when it was called."""

    def __init__(self):
        self.triggered: list[float] = []
        super().__init__(("127.0.0.1", 0), AirflowHandler)

    def wait_for(self, n_calls: int, seconds: float = 20) -> int:
        deadline = time.monotonic() + seconds
        while len(self.triggered) < n_calls and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(self.triggered)


class AirflowHandler(BaseHTTPRequestHandler):
    server: Airflow

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/auth/token":
            assert body == {"username": "admin", "password": "password"}
            answer = {"access_token": "token"}
        else:
            assert self.path == "/api/v2/dags/publish_release/dagRuns"
            assert self.headers["Authorization"] == "Bearer token"
            self.server.triggered.append(time.monotonic())
            answer = {"dag_run_id": f"manual__{len(self.server.triggered)}"}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    server = Airflow()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(airflow: Airflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AIRFLOW_ADMIN_USERNAME", "admin")
    monkeypatch.setenv("AIRFLOW_ADMIN_PASSWORD", "password")
    services = {
        "airflow_url": f"http://127.0.0.1:{airflow.server_port}",
        "hook_port": free_port(),
        "hook_secret": SECRET,
    }
    return small_settings(tmp_path / "var", services=services)


@pytest.fixture
def hook(settings: Settings) -> Iterator[str]:
    with PublishHook(settings, pause_seconds=PAUSE_SECONDS) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{settings.services.hook_port}"
        server.shutdown()


def signed(body: bytes, *, secret: str = SECRET, age_seconds: float = 0) -> dict[str, str]:
    timestamp = str(int(time.time() - age_seconds))
    digest = hmac.new(secret.encode(), f"1.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Delivery-Id": "1",
        "X-MLflow-Timestamp": timestamp,
        "X-MLflow-Signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def call(hook: str, **changes: object) -> httpx.Response:
    """Send the call of a champion that moved, with changes, as MLflow would."""
    body = json.dumps(MOVE | {"data": CHAMPION} | changes).encode()
    return httpx.post(hook, content=body, headers=signed(body), trust_env=False)


def test_move_of_the_champion_triggers_publishing_at_once_and_a_burst_once_in_a_while(
    hook: str, airflow: Airflow
) -> None:
    started = time.monotonic()
    for _ in range(20):
        assert call(hook).status_code == 202
    lasted = time.monotonic() - started
    assert airflow.wait_for(2) >= 2
    time.sleep(2 * PAUSE_SECONDS)
    n_calls = len(airflow.triggered)
    assert n_calls <= 2 + lasted / PAUSE_SECONDS
    assert call(hook, action="deleted").status_code == 202
    assert airflow.wait_for(n_calls + 1) == n_calls + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"data": CHAMPION | {"alias": "challenger"}},
        {"data": CHAMPION | {"name": "another_model"}},
        {"entity": "model_version_tag", "action": "set", "data": {"name": "retrieval", "key": "day"}},
    ],
    ids=["another alias", "another model", "another event"],
)
def test_other_events_trigger_nothing(hook: str, airflow: Airflow, changes: dict) -> None:
    assert call(hook, **changes).json() == {"message": "nothing to do"}
    assert airflow.wait_for(1, seconds=0.2) == 0


def test_calls_that_are_not_signed_now_with_the_secret_are_refused(
    hook: str, airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps(MOVE | {"data": CHAMPION}).encode()
    other = body.replace(b"created", b"deleted")
    for headers, message in (
        ({}, "not signed"),
        (signed(body, secret="another"), "not that of the secret"),
        (signed(other), "not that of the secret"),
        (signed(body) | {"X-MLflow-Timestamp": "1"}, "not that of the secret"),
        (signed(body, age_seconds=400), "not of the last 300 s"),
        (signed(body, age_seconds=-400), "not of the last 300 s"),
    ):
        answer = httpx.post(hook, content=body, headers=headers, trust_env=False)
        assert answer.status_code == 401
        assert message in answer.json()["message"]
    assert SECRET not in caplog.text
    assert airflow.wait_for(1, seconds=0.2) == 0


def test_other_requests_get_a_plain_answer(hook: str, airflow: Airflow) -> None:
    assert httpx.get(f"{hook}/health", trust_env=False).status_code == 200
    assert httpx.get(hook, trust_env=False).status_code == 404
    assert httpx.post(hook, content=b"x" * 100_000, trust_env=False).status_code == 413
    assert httpx.post(hook, content=b"{", headers=signed(b"{"), trust_env=False).status_code == 400
    assert httpx.post(hook, content=b"[]", headers=signed(b"[]"), trust_env=False).status_code == 400
    assert len(airflow.triggered) == 0


def test_airflow_that_is_away_is_logged_and_the_hook_goes_on(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    away = settings.services.model_copy(update={"airflow_url": "http://127.0.0.1:1"})
    with PublishHook(settings.model_copy(update={"services": away}), pause_seconds=0.1) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hook = f"http://127.0.0.1:{settings.services.hook_port}"
        for _ in range(2):
            assert call(hook).status_code == 202
        deadline = time.monotonic() + 10
        while "its schedule will publish it" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        assert call(hook).status_code == 202
        server.shutdown()
    assert "its schedule will publish it, since Airflow does not answer" in caplog.text


def test_hook_without_port_secret_or_airflow_is_one_clear_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for change, message in (
        ({"hook_port": 0}, "HOOK_PORT"),
        ({"hook_secret": None}, "HOOK_SECRET"),
        ({"airflow_url": ""}, "AIRFLOW_URL"),
    ):
        services = settings.services.model_copy(update=change)
        with pytest.raises((BadHook, ConnectionError), match=message):
            PublishHook(settings.model_copy(update={"services": services}))
    with (
        socket.create_server(("127.0.0.1", settings.services.hook_port)),
        pytest.raises(OSError, match=r"cannot listen on .*HOOK_PORT"),
    ):
        PublishHook(settings)
    with pytest.raises(BadHook, match="only an MLflow server calls webhooks"):
        register(settings)
    monkeypatch.delenv("TRIBUTARY_SERVICES__HOOK_SECRET", raising=False)
    assert main(["--register"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """A real MLflow server that may call webhooks on this machine."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    variables = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | variables,
        stdout=(tmp_path / "mlflow.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", timeout=1, trust_env=False)
            break
        except httpx.HTTPError:
            assert process.poll() is None and time.monotonic() < deadline, "MLflow does not start"
            time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_moving_the_alias_in_mlflow_triggers_publishing_within_seconds(
    settings: Settings, hook: str, airflow: Airflow, mlflow_server: str
) -> None:
    address = mlflow_server
    settings = settings.model_copy(update={"tracking_uri": address})
    for _ in range(2):
        register(settings)
    client = MlflowClient(address, address)
    (webhook,) = client.list_webhooks()
    assert (webhook.name, webhook.url) == ("publish_release", hook)
    client.create_registered_model("retrieval")
    run = client.create_run("0")
    client.create_model_version("retrieval", run.info.artifact_uri, run.info.run_id)
    client.set_registered_model_alias("retrieval", "challenger", "1")
    moved = time.monotonic()
    client.set_registered_model_alias("retrieval", "champion", "1")
    assert airflow.wait_for(1) == 1
    seconds = airflow.triggered[0] - moved
    print(f"from the move to the trigger: {seconds:.2f} s")
    assert seconds < 10
    client.delete_registered_model_alias("retrieval", "champion")
    assert airflow.wait_for(2) == 2


def test_mlflow_that_takes_no_private_address_is_told_of_in_one_line(settings: Settings) -> None:
    with pytest.raises(tracking.WebhookRefused, match="MLFLOW_WEBHOOK_ALLOWED_SCHEMES") as caught:
        tracking.register_alias_webhook("publish_release", "http://127.0.0.1:8088", SECRET, settings)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
