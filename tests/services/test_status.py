"""One screen tells how a deployment stands, whatever of it is down."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse.serving import Serving, write_serving
from lakehouse.store import Lakehouse
from lakehouse.tables import CLICK, EXPOSURE, GATE, I2I_TABLE, TIME, quarantine
from nearline.store import open_store
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
    with closing(open_store(f"sqlite:///{var / 'online.db'}")) as store:
        store.serve({"version": "7", "release": "f" * 64, "day": str(day), "lists": {}})
    return var


@pytest.fixture
def copy(state, tmp_path) -> Path:
    """The same without what is stale, to break something in."""
    var = tmp_path / "var"
    shutil.copytree(state, var)
    shutil.rmtree(var / "lakehouse" / "i2i_table")
    return var


def to_mend(done: subprocess.CompletedProcess) -> str:
    """Give the last line, whole: what needs a person."""
    text = " ".join(done.stdout.split())
    return text.rpartition(" to mend ")[2]


def test_where_nothing_is_it_says_so_and_makes_nothing(tmp_path):
    done = status(tmp_path / "var")
    assert done.returncode == 1
    assert "no day has been run yet below" in done.stdout
    assert not (tmp_path / "var").exists()


def test_a_state_without_services_fits_on_one_screen(state):
    done = status(state)
    assert done.returncode == 1, done.stderr
    assert to_mend(done) == "1 stale days"
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
    assert done.returncode == 1, done.stderr
    assert "Airflow does not answer at http://127.0.0.1:1" in done.stdout
    assert (
        "MLflow does not answer at http://127.0.0.1:1: connection refused; start it (make up)" in done.stdout
    )
    assert "SERVING.json cannot be read" in " ".join(done.stdout.split())
    assert "served     unreadable:" in done.stdout
    assert to_mend(done).startswith("Airflow cannot be read; ")
    assert "2026-01-09 is unreadable" in to_mend(done)
    assert "2026-01-09  -        unreadable" in done.stdout
    assert "2026-01-10  -        passed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "hidden-from-all" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) <= 40


def test_all_is_well_where_nothing_needs_a_person(copy):
    done = status(copy)
    assert (done.returncode, to_mend(done)) == (0, "nothing"), done.stdout
    assert "store      serves the same release" in done.stdout


@pytest.mark.parametrize(
    ("record", "line", "mend"),
    [
        (None, "empty: `make publish` loads it again", "the online store is empty"),
        (
            {"version": "6", "release": "e" * 64, "day": "2026-01-09", "lists": {}},
            "serves version 6 of 2026-01-09, the pointer names version 7: `make publish` makes them agree",
            "the online store serves another release",
        ),
    ],
)
def test_an_online_store_that_differs_from_the_pointer_is_told(copy, record, line, mend):
    for path in copy.glob("online.db*"):
        path.unlink()
    if record:
        with closing(open_store(f"sqlite:///{copy / 'online.db'}")) as store:
            store.serve(record)
    done = status(copy)
    assert (done.returncode, to_mend(done)) == (1, mend)
    assert f"store      {line}" in done.stdout
    assert (copy / "online.db").exists() == bool(record)


def test_an_online_store_that_is_away_is_told_without_its_password(copy):
    done = status(copy, TRIBUTARY_ONLINE_STORE_URL="redis://:hidden-from-all@127.0.0.1:1/0")
    assert (done.returncode, to_mend(done)) == (1, "the online store is away")
    assert "store      away:" in done.stdout
    assert "hidden-from-all" not in done.stdout


def test_a_damaged_promotion_log_leaves_the_pointer_on_the_screen(copy):
    (copy / "releases" / "promotions").mkdir()
    (copy / "releases" / "promotions" / "20260111T030000.000000Z-1.json").write_text("{")
    done = status(copy)
    assert (done.returncode, to_mend(done)) == (1, "the promotion log is damaged")
    assert "served     version 7 of 2026-01-10" in done.stdout
    assert "published  unreadable:" in done.stdout


def test_a_pointer_that_may_not_be_read_is_not_nothing(copy):
    (copy / "releases" / "SERVING.json").unlink()
    (copy / "releases" / "SERVING.json").mkdir()
    done = status(copy)
    assert (done.returncode, to_mend(done)) == (1, "the served pointer is damaged")
    assert "served     unreadable:" in done.stdout
    assert "store      serves version 7 of 2026-01-10" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_traceback(copy):
    command = f"{sys.executable} -m services.status | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=REPOSITORY,
        env=os.environ | {"TRIBUTARY_VAR": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_setting_is_one_line(tmp_path):
    done = status(tmp_path / "var", TRIBUTARY_N_THREADS="0")
    assert done.returncode == 1
    assert done.stderr.startswith("make status: n_threads")
    assert len(done.stderr.strip().splitlines()) == 1
