"""What cannot be backfilled is one line; the runs themselves are in test_nights.py."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.airflow_api import AirflowApi, AirflowRefused, AirflowUnavailable, day_of
from tests.conftest import REPOSITORY

RANGE = ["--from", "2026-01-08", "--to", "2026-01-09"]
USER = {"AIRFLOW_ADMIN_USERNAME": "admin", "AIRFLOW_ADMIN_PASSWORD": "hidden-from-all"}


def backfill(tmp_path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    """Run `python -m services.backfill`, as `make backfill` does."""
    return subprocess.run(
        [sys.executable, "-m", "services.backfill", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"TRIBUTARY_VAR": str(tmp_path / "var"), **more},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (["--from", "2026-01-09"], {}, "name the days: make backfill FROM="),
        (["--from", "2026-01-09", "--to", "2026-01-08"], {}, "FROM=2026-01-09 is after TO=2026-01-08"),
        (["--from", "yesterday", "--to", "2026-01-09"], {}, "FROM=yesterday is not a day; write YYYY-MM-DD"),
        (["--from", "2026-01-09", "--to", "2027-01-09"], {}, "TO=2027-01-09 is not in the source synthetic"),
        ([*RANGE, "--reprocess", "all"], {}, "REPROCESS=all is neither failed"),
        (RANGE, {}, "no Airflow server belongs to the state folder"),
        (RANGE, {"TRIBUTARY_SERVICES__AIRFLOW_URL": "http://127.0.0.1:1"}, "set AIRFLOW_ADMIN_USERNAME and"),
        (
            RANGE,
            {"TRIBUTARY_SERVICES__AIRFLOW_URL": "http://127.0.0.1:1", **USER},
            "Airflow does not answer at http://127.0.0.1:1",
        ),
    ],
)
def test_a_mistake_is_one_line_and_a_failure(tmp_path, arguments, more, message):
    done = backfill(tmp_path, *arguments, **more)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "hidden-from-all" not in done.stderr
    assert not (tmp_path / "var").exists()


class Handler(BaseHTTPRequestHandler):
    """A web server that is no Airflow, or one that is ill: what it answers is its path's first part."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def _answer(self) -> None:
        kind = self.path.split("/")[1]
        status, body = {
            "page": (200, b"<html>hello</html>"),
            "ill": (503, b"<html>no</html>"),
            "closed": (401, b"{}"),
            "lost": (200, b'{"metadatabase": {"status": "unhealthy"}}'),
        }.get(kind, (404, json.dumps({"detail": "no such\nthing"}).encode()))
        self.send_response(401 if self.path == "/lost/auth/token" else status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        ("page", AirflowRefused, "is no Airflow API: login gave no JSON; check the address"),
        ("ill", AirflowUnavailable, "answered 503"),
        ("lost", AirflowUnavailable, "answers, but its database is away"),
        ("closed", AirflowRefused, "does not know user 'me' with this password"),
        ("other", AirflowRefused, "Airflow refused login: no such thing"),
    ],
)
def test_an_answer_that_is_no_airflow_is_told_in_one_line(web, place, kind, message):
    with (
        AirflowApi(f"{web}/{place}", "me", "hidden") as airflow,
        pytest.raises(kind, match=message) as caught,
    ):
        airflow.dag_runs("daily_cycle")
    assert "\n" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_the_day_of_a_run_is_that_of_its_interval_in_the_zone_or_the_one_it_was_given():
    run = {"run_type": "backfill", "data_interval_start": "2022-05-02T16:00:00Z", "logical_date": None}
    assert str(day_of(run | {"conf": None}, "Asia/Shanghai")) == "2022-05-03"
    assert str(day_of(run | {"conf": {"day": "2022-05-01"}}, "Asia/Shanghai")) == "2022-05-01"
    assert day_of(run | {"conf": {}, "run_type": "manual"}, "UTC") is None
