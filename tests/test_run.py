"""Several days through the real DAGs, as `make run` does it, on a tiny world; then what can go wrong."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pyarrow.compute as pc
import pytest

from lakehouse.store import Lakehouse
from lakehouse.tables import TABLES
from tests.conftest import REPOSITORY

SETTINGS = """
window_days = 4
[source.synthetic]
n_users = 300
n_items = 400
n_days = 5
n_clusters = 6
[methods.base]
variant = "TB-Online"
epochs = 2
[methods.increc]
variant = "IncRec"
epochs = 2
[channels]
swing = 50
base = 100
increc = 50
"""
DAYS = [date(2026, 1, 4), date(2026, 1, 5)]
# What a rerun must give again bit by bit; metric and gate also tell of the champion, which has moved on.
REPEATABLE = [name for name in TABLES if name not in ("metric", "gate")]


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory) -> Path:
    """Settings of a world that runs in seconds."""
    folder = tmp_path_factory.mktemp("settings")
    gates = folder / "gates.toml"
    gates.write_text((REPOSITORY / "mlflow" / "gates.toml").read_text().replace("floor = 1.0", "floor = 0.5"))
    path = folder / "settings.toml"
    path.write_text(f'gates_file = "{gates}"\n{SETTINGS}')
    return path


def environment(settings_file: Path, var: Path, **more: str) -> dict[str, str]:
    """The environment of a run whose state is in ``var``."""
    return os.environ | {
        "TRIBUTARY_SETTINGS": str(settings_file),
        "TRIBUTARY_VAR": str(var),
        "TRIBUTARY_PROMOTION": "auto",
        **more,
    }


def run(settings_file: Path, var: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess:
    """Run `python -m tasks.run`, as `make run` does."""
    return subprocess.run(
        [sys.executable, "-m", "tasks.run", *arguments],
        cwd=REPOSITORY,
        env=environment(settings_file, var, **more),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(settings_file, tmp_path_factory) -> tuple[Path, str]:
    """The state folder and the output of a run over two days."""
    var = tmp_path_factory.mktemp("var")
    done = run(settings_file, var, "--from", str(DAYS[0]), "--to", str(DAYS[1]))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return var, done.stdout


def digests(var: Path, days: list[date]) -> dict[str, str]:
    """Digests of the repeatable partitions of the days."""
    lakehouse = Lakehouse(var / "lakehouse")
    found = {}
    for name in REPEATABLE:
        table = TABLES[name]
        for day in days:
            for part in lakehouse.parts(table, day) if table.part_by else [None]:
                if commit := lakehouse.commit(table, day, part=part):
                    found[f"{name}/{day}/{part}"] = commit.digest
    return found


def test_it_ends_with_a_row_per_day_and_method_the_verdicts_and_the_served_release(finished):
    _, output = finished
    for day in DAYS:
        for method in ("popularity", "swing", "base", "increc", "merged"):
            assert any(line.split()[:2] == [str(day), method] for line in output.splitlines())
    assert "served release: version" in output
    assert "daily_cycle  2026-01-05" in output
    base_row = next(line for line in output.splitlines() if line.split()[:2] == [str(DAYS[1]), "base"])
    assert base_row.split()[-1].isdigit()
    assert "register_release" in output


def test_summary_holds_the_same_facts(finished):
    var, _ = finished
    summary = json.loads((var / "summary.json").read_text())
    assert [day["day"] for day in summary["days"]] == [str(day) for day in DAYS]
    for day in summary["days"]:
        assert {"hit_rate@50", "hit_rate@100", "base@100", "sup@100", "exposure_hit@100"} <= set(
            day["methods"]["base"]
        )
        assert {"inc@100", "inc_minus_r_u@100", "marginal_hits@50"} <= set(day["methods"]["increc"])
        assert day["verdict"] in ("passed", "failed", "not decidable")
        assert {"gate", "status", "figure", "floor", "detail"} <= set(day["gates"][0])
        assert day["release"]["release_digest"]


def test_every_version_links_a_page_for_its_reviewer_that_compares_it_with_the_champion(finished):
    var, _ = finished
    pages = sorted(var.glob("mlartifacts/**/report.html"), key=lambda page: page.stat().st_mtime)
    assert len(pages) == len(DAYS)
    first, second = (page.read_text() for page in pages)
    assert f"<title>Release of {DAYS[0]}: " in first
    assert "There is no champion yet" in first
    for shown in ("scenario=", "What changed since the champion", "equal neighbours", "Turned to on the day"):
        assert shown in second
    assert "Nothing was compared" not in second
    assert str(var) not in first + second


def test_what_serves_is_the_champion_and_its_candidates_are_in_the_online_store(finished):
    from nearline.store import open_store, read_served

    var, _ = finished
    summary = json.loads((var / "summary.json").read_text())
    passed = [day["release"] for day in summary["days"] if day["verdict"] == "passed"]
    assert passed, [(d["day"], d["verdict"], d["gates"]) for d in summary["days"]]
    assert summary["served_release"]["version"] == passed[-1]["version"]
    store = open_store(f"sqlite:///{var / 'online.db'}")
    history = Lakehouse(var / "lakehouse").read(TABLES["user_history"], DAYS[-1])
    served = [read_served(store, user) for user in history["user_id"].to_pylist()[:50]]
    assert all(candidates is not None and len(candidates.item_ids) == 200 for candidates in served)


def test_the_second_day_was_held_against_the_champion_of_the_first(finished):
    var, _ = finished
    first, second = json.loads((var / "summary.json").read_text())["days"]
    assert first["verdict"] == "passed"
    assert "relative_to_champion@100" in second["methods"]["merged"]
    assert "hit_rate@100" in second["methods"]["champion_as_served"]
    assert "no champion yet" not in next(g["detail"] for g in second["gates"] if "champion" in g["gate"])


def test_every_step_of_every_run_is_recorded_as_a_success(finished):
    var, _ = finished
    database = sqlite3.connect(var / "airflow" / "airflow.db")
    states = database.execute("select distinct state from dag_run").fetchall()
    assert states == [("success",)]


AGAIN = """
from datetime import date
from tasks import train
from tasks.prepare import STEPS, run_step
from tasks.settings import load_settings
settings, day = load_settings(), date.fromisoformat("{day}")
for name in STEPS:
    if name not in {left_out}:
        run_step(name, day, settings)
for method in settings.methods:
    train.train(day, method, settings)
"""


def run_again(settings_file: Path, var: Path, day: date, *left_out: str) -> None:
    """Run the steps of a day up to training, in a process of their own."""
    code = AGAIN.format(day=day, left_out=("validate_data", *left_out))
    subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment(settings_file, var), check=True
    )


def test_a_day_again_gives_equal_digests_whether_or_not_the_day_after_it_is_there(
    finished, settings_file, tmp_path
):
    var, _ = finished
    shutil.copytree(var / "lakehouse", tmp_path / "lakehouse")
    for folder in (tmp_path / "lakehouse").rglob(f"ds={DAYS[1]}"):
        shutil.rmtree(folder)
    run_again(settings_file, tmp_path, DAYS[0])
    assert digests(tmp_path, [DAYS[0]]) == digests(var, [DAYS[0]])


def test_no_method_can_use_a_signal_that_only_the_day_itself_holds(finished, settings_file, tmp_path):
    """With other clicks on the day, what is listed for it stays the same bit by bit: weights and tables."""
    var, _ = finished
    shutil.copytree(var / "lakehouse", tmp_path / "lakehouse")
    lakehouse, exposure = Lakehouse(tmp_path / "lakehouse"), TABLES["exposure"]
    rows = lakehouse.read(exposure, DAYS[1])
    place = rows.schema.get_field_index("is_click")
    turned = rows.set_column(place, exposure.schema.field("is_click"), pc.invert(rows["is_click"]))
    lakehouse.replace(exposure, DAYS[1], turned, meta=lakehouse.require(exposure, DAYS[1]).meta)
    run_again(settings_file, tmp_path, DAYS[1], "ingest_logs")
    ours, theirs = digests(tmp_path, DAYS), digests(var, DAYS)
    changed = {name for name in theirs if ours[name] != theirs[name]}
    assert f"click/{DAYS[1]}/None" in changed
    assert f"increc_sample/{DAYS[1]}/None" in changed
    assert not {name for name in changed if name.startswith("checkpoint/") or str(DAYS[0]) in name}


FUTURE = """
import json, os, sys
from datetime import date
import pyarrow as pa
from lakehouse import tables
from lakehouse.store import Lakehouse
from tasks import evaluate, samples
from tasks.settings import load_settings
settings, day = load_settings(), date(2026, 1, 5)
lakehouse = Lakehouse(settings.lakehouse_root)
def figures():
    samples.construct_samples(day, settings)
    evaluate.evaluate(day, settings)
    rows = lakehouse.read(tables.METRIC, day, part="evaluate").to_pylist()
    return [row for row in rows if "champion" not in row["method"] + row["metric"]], [
        lakehouse.require(table, day).digest for table in (tables.TARGET_GROUP, tables.INCREC_SAMPLE)
    ]
before = figures()
# The i2i table, histories and index of the day itself, which only a leak would read: nothing but one lie.
item = lakehouse.read(tables.ITEM_SNAPSHOT, day)["item_id"][0].as_py()
lie = {"trigger_item_id": [item], "target_item_id": [item + 1], "score": [1.0]}
lie |= {"rank": [1], "n_common_users": [1]}
lakehouse.replace(tables.I2I_TABLE, day, pa.table(lie, tables.I2I_TABLE.schema))
lakehouse.replace(tables.USER_HISTORY, day, tables.USER_HISTORY.schema.empty_table())
lakehouse.replace(tables.ITEM_INDEX, day, tables.ITEM_INDEX.schema.empty_table())
assert figures() == before
"""


def test_samples_and_lists_of_a_day_do_not_read_its_own_i2i_table_and_histories(
    finished, settings_file, tmp_path
):
    var, _ = finished
    shutil.copytree(var / "lakehouse", tmp_path / "lakehouse")
    done = subprocess.run(
        [sys.executable, "-c", FUTURE],
        cwd=REPOSITORY,
        env=environment(settings_file, tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_a_killed_day_starts_again_and_gives_equal_digests(finished, settings_file, tmp_path):
    var, _ = finished
    copy = tmp_path / "var"
    shutil.copytree(var, copy)
    served = (copy / "releases" / "SERVING.json").read_text()
    expected = digests(var, [DAYS[1]])
    for folder in (copy / "lakehouse").rglob(f"ds={DAYS[1]}"):
        shutil.rmtree(folder)

    command = [
        str(Path(sys.executable).with_name("airflow")),
        *("dags", "test", "daily_cycle", "-c", json.dumps({"day": str(DAYS[1])})),
    ]
    options = {
        "cwd": REPOSITORY,
        "env": environment(
            settings_file,
            copy,
            AIRFLOW_HOME=str(copy / "airflow"),
            AIRFLOW__CORE__DAGS_FOLDER=str(REPOSITORY / "dags"),
            AIRFLOW__CORE__LOAD_EXAMPLES="false",
        ),
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    process = subprocess.Popen(command, start_new_session=True, **options)
    checkpoint = copy / "lakehouse" / "checkpoint" / f"ds={DAYS[1]}"
    deadline = time.monotonic() + 180
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    assert (copy / "releases" / "SERVING.json").read_text() == served
    done = digests(copy, [DAYS[1]])
    assert done.items() <= expected.items()
    assert 0 < len(done) < len(expected)
    assert subprocess.run(command, check=False, **options).returncode == 0
    assert digests(copy, [DAYS[1]]) == expected


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (["--from", "2026-01-05", "--to", "2026-01-04"], {}, "FROM=2026-01-05 is after TO=2026-01-04"),
        (["--from", "2026-01-09", "--to", "2026-01-09"], {}, "synthetic, which has 2026-01-01"),
        (["--from", "yesterday"], {}, "FROM=yesterday is not a day; write YYYY-MM-DD"),
        ([], {"TRIBUTARY_SOURCE__PRESET": "kuairand", "TRIBUTARY_SOURCE__DATA": "/nowhere"}, "/nowhere"),
        ([], {"TRIBUTARY_CHANNELS": '{"shiny": 5}'}, "channels.shiny is no method"),
        ([], {"TRIBUTARY_SOURCE__PRESET": "netflix"}, "source.preset"),
    ],
)
def test_a_mistake_is_one_line_and_a_failure(settings_file, tmp_path, arguments, more, message):
    done = run(settings_file, tmp_path / "var", *arguments, **more)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "var" / "lakehouse").exists()


def test_a_failing_step_names_itself_the_reason_and_the_log(settings_file, tmp_path):
    gates = tmp_path / "gates.toml"
    gates.write_text('[x]\nkind = "vibes"\n')
    done = run(
        settings_file,
        tmp_path / "var",
        *("--from", "2026-01-01", "--to", "2026-01-01"),
        TRIBUTARY_MAX_QUARANTINE_SHARE="0",
        TRIBUTARY_VALIDATION__VOLUME_LOW="0",
        TRIBUTARY_GATES_FILE=str(gates),
    )
    assert done.returncode == 1
    assert "BadGates" in done.stderr
    assert "daily_cycle_2026-01-01.log" in done.stderr
