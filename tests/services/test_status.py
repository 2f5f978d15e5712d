"""One screen tells how a deployment stands, whatever of it is down."""

import os
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse.serving import Serving, write_serving
from lakehouse.store import Lakehouse
from lakehouse.tables import CLICK, EXPOSURE, GATE, I2I_TABLE, TIME, quarantine
from tests.conftest import REPOSITORY

FIRST = date(2026, 1, 1)
META = {
    "source": "synthetic",
    "source_first_day": "2026-01-01",
    "timezone": "UTC",
    "primary_scenario": "home",
}


def status(var: Path, **more: str) -> subprocess.CompletedProcess:
    """Run `python -m services.status`, as `make status` does."""
    return subprocess.run(
        [sys.executable, "-m", "services.status"],
        cwd=REPOSITORY,
        env=os.environ | {"TRIBUTARY_VAR": str(var), **more},
        capture_output=True,
        text=True,
        check=False,
    )


def clicks(item_id: int) -> pa.Table:
    columns = {"user_id": [1], "item_id": [item_id], "scenario": ["home"], "event_time": pa.array([0], TIME)}
    return pa.table(columns)


@pytest.fixture(scope="module")
def state(tmp_path_factory) -> Path:
    """Ten days of tables: one refused row a day, the last day stale, a release served."""
    var = tmp_path_factory.mktemp("state") / "var"
    refused = pa.table({"row_number": [0], "reason": ["no user"], "row": ["{}"]})
    for n in range(10):
        day, lakehouse = FIRST + timedelta(days=n), Lakehouse(var / "lakehouse")
        lakehouse.replace(quarantine(EXPOSURE), day, refused)
        lakehouse.replace(EXPOSURE, day, EXPOSURE.schema.empty_table(), meta=META)
        lakehouse.replace(CLICK, day, clicks(n))
        lakehouse.replace(GATE, day, GATE.schema.empty_table(), meta={"verdict": "passed"})
    lakehouse.read(CLICK, day)
    lakehouse.replace(I2I_TABLE, day, I2I_TABLE.schema.empty_table())
    Lakehouse(var / "lakehouse").replace(CLICK, day, clicks(99))
    (var / "releases").mkdir()
    write_serving(
        var / "releases",
        Serving("7", day, "f" * 64, "models:/retrieval/7", "local/x", "2026-01-11T03:00:00"),
    )
    return var


def test_where_nothing_is_it_says_so_and_makes_nothing(tmp_path):
    done = status(tmp_path / "var")
    assert done.returncode == 1
    assert "no day has been run yet below" in done.stdout
    assert not (tmp_path / "var").exists()


def test_a_state_without_services_fits_on_one_screen(state):
    done = status(state)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    days = [line.split() for line in lines if line.startswith("2026-01")]
    assert [row[0] for row in days] == [str(FIRST + timedelta(days=n)) for n in range(3, 10)]
    assert days[-1] == ["2026-01-10", "-", "passed", "-", "-", "exposure", "1", "1"]
    assert "Airflow    not running" in lines
    assert "champion   none" in lines
    assert any(
        line.startswith("served     version 7 of 2026-01-10, ffffffffffff, published") for line in lines
    )
    assert "  2026-01-10 i2i_table" in lines
    assert "  run make backfill FROM=2026-01-10 TO=2026-01-10 REPROCESS=completed" in lines
    assert any(line.startswith("disk  ") and "free" in line for line in lines)
    assert not (state / "mlflow.db").exists()


def test_what_is_down_or_damaged_gives_a_line_and_the_rest_is_shown(state, tmp_path):
    var = tmp_path / "var"
    shutil.copytree(state, var)
    (var / "releases" / "SERVING.json").write_text("{")
    (var / "lakehouse" / "gate" / "ds=2026-01-09" / "_COMMIT.json").write_text("{")
    services = {
        "TRIBUTARY_SERVICES__AIRFLOW_URL": "http://127.0.0.1:1",
        "TRIBUTARY_TRACKING_URI": "http://127.0.0.1:1",
        "AIRFLOW_ADMIN_USERNAME": "admin",
        "AIRFLOW_ADMIN_PASSWORD": "hidden-from-all",
    }
    done = status(var, **services)
    assert done.returncode == 0, done.stderr
    assert "Airflow does not answer at http://127.0.0.1:1" in done.stdout
    assert (
        "MLflow does not answer at http://127.0.0.1:1: connection refused; start it (make up)" in done.stdout
    )
    assert "SERVING.json cannot be read" in " ".join(done.stdout.split())
    assert "2026-01-09  -        unreadable" in done.stdout
    assert "2026-01-10  -        passed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "hidden-from-all" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) <= 40


def test_a_wrong_setting_is_one_line(tmp_path):
    done = status(tmp_path / "var", TRIBUTARY_N_THREADS="0")
    assert done.returncode == 1
    assert done.stderr.startswith("make status: n_threads")
    assert len(done.stderr.strip().splitlines()) == 1
