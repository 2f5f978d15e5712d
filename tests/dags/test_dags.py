"""The DAGs parse light and clean, and say what they are."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags")
print(json.dumps({
    "errors": bag.import_errors,
    "dags": {
        id: {"tasks": dag.task_ids, "doc": bool(dag.doc_md), "max_active_runs": dag.max_active_runs}
        for id, dag in bag.dags.items()
    },
    "outlets": sorted(asset.name for task in bag.dags["daily_cycle"].tasks for asset in task.outlets),
    "retries": sorted({task.retries for dag in bag.dags.values() for task in dag.tasks}),
    "undocumented": [
        t.task_id for d in bag.dags.values() for t in d.tasks if not getattr(t, "python_callable", t).__doc__
    ],
    "silent": [id for id, dag in bag.dags.items() if not dag.has_on_failure_callback and id != "retention"],
    "heavy": [name for name in ("torch", "mlflow", "great_expectations", "numba") if name in sys.modules],
}))
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory) -> dict:
    """What a fresh process finds in dags/."""
    home = tmp_path_factory.mktemp("airflow")
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", PARSE],
        cwd=REPOSITORY,
        env=os.environ | {"AIRFLOW_HOME": str(home), "TRIBUTARY_VAR": str(home / "var")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_dag_parses_without_errors_or_deprecated_names(parsed):
    assert parsed["errors"] == {}
    assert {"daily_cycle", "prepare_window", "publish_release"} <= parsed["dags"].keys()


def test_parsing_loads_no_heavy_package(parsed):
    assert parsed["heavy"] == []


def test_the_day_runs_in_the_order_of_the_design(parsed):
    assert parsed["dags"]["daily_cycle"]["tasks"] == [
        "resolve",
        "list_methods",
        "train",
        "wait_for_turn",
        "ingest_logs",
        "validate_data",
        "build_histories",
        "rebuild_swing_index",
        "construct_samples",
        "evaluate",
        "build_release",
        "check_gates",
        "register_release",
    ]


def test_every_dag_is_documented_and_runs_one_day_at_a_time(parsed):
    for dag in parsed["dags"].values():
        assert dag["doc"]
        assert dag["max_active_runs"] == 1
    assert parsed["undocumented"] == []


def test_a_failed_run_of_any_dag_is_told_of(parsed):
    assert parsed["silent"] == []


def test_tables_and_the_release_are_outlets(parsed):
    assert {"exposure", "click", "i2i_table", "increc_sample", "metric", "gate", "release"} <= set(
        parsed["outlets"]
    )


def test_what_a_retry_can_mend_is_retried(parsed):
    assert parsed["retries"] == [3]
