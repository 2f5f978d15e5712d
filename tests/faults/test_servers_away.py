"""MLflow or the online store is away: one line that a retry may mend, nothing half, and again."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.children import Ended
from tests.faults.tally import Tally
from tests.faults.world import STEPS, World, assert_nothing_is_half_there, facts, served

REGISTRY = "tests.faults.steps:registry"
AT_ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
USING_MLFLOW = ("evaluate", "register_release", "publish_release")


def after(step: str) -> str:
    return (*STEPS, "done")[STEPS.index(step) + 1]


@contextmanager
def hanging_up() -> Iterator[int]:
    """Give the port of a server that takes every call and hangs up."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def hang_up() -> None:
            with suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def assert_told(ended: Ended) -> None:
    assert ended.exit_code == 1, ended.output[-3000:]
    assert ended.is_retried, ended.output[-3000:]
    assert "\n" not in ended.error


def check_and_run_again(world: World, step: str) -> None:
    assert_nothing_is_half_there(world, world.undisturbed[step], world.undisturbed[after(step)])
    world.finish(step)
    assert facts(world.var) == world.undisturbed[after(step)]
    if step in ("register_release", "publish_release"):
        assert world.children.call(REGISTRY) == world.registries[after(step)]


@pytest.mark.parametrize("step", USING_MLFLOW)
def test_a_step_without_mlflow_says_so_and_can_run_again(world: World, tally: Tally, step: str):
    with hanging_up() as port:
        for kind, at in (("refuses", free_port()), ("hangs up", port)):
            with tally.fault(f"MLflow {kind}"):
                world.restore(step)
                variables = AT_ONCE | {"TRIBUTARY_TRACKING_URI": f"http://127.0.0.1:{at}"}
                ended = world.run(step, environment=variables)
                assert_told(ended)
                assert f"127.0.0.1:{at}" in ended.error
                check_and_run_again(world, step)


def test_publishing_without_the_online_store_leaves_what_serves_and_can_run_again(world: World, tally: Tally):
    with hanging_up() as port:
        for kind, at in (("refuses", free_port()), ("hangs up", port)):
            with tally.fault(f"Redis {kind}"):
                world.restore("publish_release")
                before = served(world.var)
                variables = {"TRIBUTARY_ONLINE_STORE_URL": f"redis://127.0.0.1:{at}/0"}
                assert_told(world.run("publish_release", environment=variables))
                assert served(world.var) == before
                check_and_run_again(world, "publish_release")


@contextmanager
def mlflow_server(var: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Serve the world's MLflow over HTTP."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{var}/mlflow.db", "--no-serve-artifacts"]
    process = subprocess.Popen(
        command,
        cwd=var,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while True:
            with suppress(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=1, trust_env=False)
                break
            assert process.poll() is None and time.monotonic() < deadline, "MLflow does not start"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_mlflow_killed_while_a_release_is_registered_leaves_nothing_twice(world: World, tally: Tally):
    for seconds in (0.3, 0.6, 1.0, 1.5, 2.0, 3.0):
        with tally.fault("MLflow killed during registration"):
            world.restore("register_release")
            with mlflow_server(world.var) as (address, server):
                timer = threading.Timer(seconds, os.killpg, (server.pid, signal.SIGKILL))
                timer.start()
                variables = AT_ONCE | {"TRIBUTARY_TRACKING_URI": address}
                ended = world.run("register_release", environment=variables)
                timer.cancel()
            if ended.exit_code:
                assert_told(ended)
            world.finish("register_release")
            assert facts(world.var) == world.undisturbed["publish_release"]
            found = world.children.call(REGISTRY)
            assert found["versions"] == world.registries["publish_release"]["versions"]
            assert found["aliases"] == world.registries["publish_release"]["aliases"]
            assert found["day_runs"] == world.registries["publish_release"]["day_runs"]
