"""The DAG of a comparison: its wiring, a real run on a tiny world, and one that asks for what is unknown."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SETTINGS = """
window_days = 4
n_threads = 1
channels = { swing = 20 }
[source.synthetic]
n_users = 200
n_items = 300
n_days = 3
n_clusters = 6
[samples]
retrieved_per_user = 20
[evaluation]
ks = [5, 20]
n_bootstrap = 100
[methods.base]
variant = "TB-Online"
epochs = 1
dim = 16
n_author_buckets = 64
"""
PREPARE = """
from datetime import date
from tasks.prepare import STEPS, run_step
from tasks.settings import load_settings
for day in (1, 2, 3):
    for name in STEPS:
        if name != "validate_data":
            run_step(name, date(2026, 1, day), load_settings())
"""
RUN = """
import json
import pendulum
from airflow.utils.cli import get_bagged_dag
dag = get_bagged_dag(None, "compare_methods")
wired = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}
print("WIRED", json.dumps(wired))
asked = {"last_days": 3, "methods": ["IncRec"], "backbones": ["dssm"], "seeds": [1, 2], "ks": [5]}
for second, conf in enumerate((asked, asked, asked | {"methods": ["Nope"]})):
    run = dag.test(logical_date=pendulum.now("UTC").add(seconds=second), run_conf=conf)
    done = {}
    for ti in run.get_task_instances():
        done.setdefault(ti.task_id, []).append(str(getattr(ti.state, "value", ti.state)))
    print("RAN", json.dumps([str(getattr(run.state, "value", run.state)), done]))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, str]:
    """The state folder and the output of two equal runs and one that cannot be."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "settings.toml").write_text(SETTINGS)
    var = folder / "var"
    environment = os.environ | {
        "TRIBUTARY_SETTINGS": str(folder / "settings.toml"),
        "TRIBUTARY_VAR": str(var),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
    }
    airflow = str(Path(sys.executable).with_name("airflow"))
    python = (sys.executable, "-c")
    for command in ([*python, PREPARE], [airflow, "db", "migrate"], [*python, RUN]):
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]
    return var, done.stdout


def told(output: str, what: str) -> list:
    lines = [line.removeprefix(f"{what} ") for line in output.splitlines() if line.startswith(f"{what} ")]
    return [json.loads(line) for line in lines]


def test_all_is_trained_before_it_is_measured_and_measured_before_it_is_concluded(ran):
    (wired,) = told(ran[1], "WIRED")
    assert set(wired["make_plan"]) == {"list_trainings", "list_groups", "train", "measure", "conclude"}
    assert wired["train"] == ["measure"]
    assert wired["measure"] == ["conclude"]


def test_a_run_maps_over_methods_and_seeds_and_ends_in_the_tables(ran):
    var, output = ran
    state, done = told(output, "RAN")[0]
    assert state == "success"
    assert {task: len(states) for task, states in done.items()} == {
        "make_plan": 1,
        "list_trainings": 1,
        "list_groups": 1,
        "train": 4,
        "measure": 2,
        "conclude": 1,
    }
    (folder,) = (var / "compare").glob("2026-01-03_2026-01-03-*")
    text = (folder / "comparison.md").read_text()
    assert "learned from 2026-01-01 .. 2026-01-02, measured on 2026-01-03 .. 2026-01-03" in text
    assert "| dssm | IncRec |" in text


def test_an_equal_run_trains_and_logs_nothing_again(ran):
    var, output = ran
    assert told(output, "RAN")[1][0] == "success"
    assert output.count("is_new=True") == 4
    assert output.count("is_new=False") == 4
    assert len(list((var / "compare" / "models").iterdir())) == 4


def test_a_run_that_asks_for_an_unknown_method_fails_before_it_trains_and_says_so(ran):
    state, done = told(ran[1], "RAN")[2]
    assert state == "failed"
    assert done["make_plan"] == ["failed"]
    assert "success" not in done["train"]
    assert "BadComparison: unknown method Nope; known: TB-Online, TB-ITG, TB-boost" in ran[1]
