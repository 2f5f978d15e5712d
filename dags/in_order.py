"""
Run several DAG runs in order in one process, without services: `airflow dags test`, started once.

    python -m dags.in_order '[["prepare_window", "2022-05-03"], ["daily_cycle", "2022-05-03"]]'

Each run is announced by a line ``[RUN] <number>``; the first that fails ends the process with 1.
"""

import json
import sys

import pendulum
from airflow.utils.cli import get_bagged_dag


def main(runs: list[tuple[str, str | None]]) -> int:
    """Run each (DAG, day) in order; give the exit code."""
    for number, (dag_id, day) in enumerate(runs):
        print(f"[RUN] {number}", flush=True)
        dag = get_bagged_dag(None, dag_id)
        dag.deadline = []  # see dags/daily_cycle.py: test runs cannot have one
        dag_run = dag.test(logical_date=pendulum.now("UTC"), run_conf={"day": day} if day else None)
        if dag_run.state != "success":
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
