"""Which failures and delays are told to a person, and in what words?"""

import logging
from types import SimpleNamespace

import pendulum
import pytest

ZONE = pendulum.timezone("UTC")


@pytest.fixture(scope="module")
def alerts(tmp_path_factory):
    """dags.alerts, imported with a home of its own for Airflow and no webhook."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.setenv("TRIBUTARY_ALERTS__DEADLINE_HOURS", "6")
        from dags import alerts

        yield alerts


def failed(task_id="build_histories", *, run_type="scheduled", left="BadSource: no click", before=None):
    """What Airflow hands to a callback; ``left`` is the failed task's XCom, ``before`` the run before."""
    ti = SimpleNamespace(
        task_id=task_id,
        run_id="a run",
        map_index=-1,
        log_url="http://airflow/log",
        xcom_pull=lambda **_: left,
        get_previous_dagrun=lambda: before,
    )
    start = pendulum.datetime(2022, 5, 3, tz=ZONE)
    run = SimpleNamespace(run_type=run_type, data_interval_start=start, logical_date=start)
    dag = SimpleNamespace(dag_id="daily_cycle", timezone=ZONE)
    return {"dag": dag, "run_id": "a run", "dag_run": run, "ti": ti, "reason": "task_failure", "params": {}}


def told(caplog) -> list[str]:
    return [message for message in caplog.messages if message.startswith("ALERT")]


def test_a_failed_run_is_told_with_its_day_task_and_reason(alerts, caplog):
    alerts.run_failed(failed())
    assert told(caplog) == [
        "ALERT daily_cycle of 2022-05-03 failed at build_histories\nBadSource: no click\n"
        "mend the cause, then clear build_histories of this run with what follows it; what serves stays as it"
        " is\nlog: http://airflow/log"
    ]


def test_a_task_that_could_leave_no_reason_was_killed(alerts, caplog):
    alerts.run_failed(failed(left=None))
    assert "the task ended without a word: killed, for memory perhaps" in told(caplog)[0]


def test_a_run_out_of_time_and_one_without_a_task_are_told(alerts, caplog):
    alerts.run_failed(failed() | {"reason": "timed_out"})
    alerts.run_failed(
        {"dag": SimpleNamespace(dag_id="daily_cycle"), "run_id": "a run", "reason": "task_failure"}
    )
    first, second = told(caplog)
    assert "the run took longer than its time limit" in first
    assert second.startswith("ALERT daily_cycle, run a run, failed\nits log tells why\n")


def test_days_of_a_backfill_behind_a_failed_one_are_in_the_log_only(alerts, caplog):
    alerts.run_failed(failed("wait_for_turn", run_type="backfill"))
    assert told(caplog) == []
    assert "daily_cycle of 2022-05-03 failed at wait_for_turn" in caplog.text
    alerts.run_failed(failed("wait_for_turn"))
    assert len(told(caplog)) == 1


def test_publishing_is_told_of_once_while_it_keeps_failing(alerts, caplog):
    alerts.publishing_failed(failed("publish", before=SimpleNamespace(state="success")))
    alerts.publishing_failed(failed("publish", before=SimpleNamespace(state="failed")))
    assert len(told(caplog)) == 1
    assert "failed at publish" in caplog.messages[-1]


def late(run_type: str, state: str, queued_at: str) -> dict:
    """What Airflow hands to the callback of a deadline, here 06:00 on the day after 2022-05-03."""
    run = {
        "dag_id": "daily_cycle",
        "dag_run_id": "a run",
        "run_type": run_type,
        "state": state,
        "conf": None,
        "queued_at": queued_at,
        "data_interval_start": "2022-05-03T00:00:00Z",
        "logical_date": "2022-05-03T00:00:00Z",
    }
    return {"dag_run": run}


@pytest.mark.parametrize(
    ("run_type", "state", "is_told"),
    [
        ("scheduled", "running", True),
        ("manual", "queued", True),
        ("backfill", "queued", False),
        ("scheduled", "failed", False),
    ],
)
def test_a_late_run_is_told_unless_it_queues_in_a_backfill_or_was_told_of(
    alerts, caplog, run_type, state, is_told
):
    with caplog.at_level(logging.INFO):
        alerts.run_is_late(late(run_type, state, "2022-05-04T00:00:03Z"))
    assert bool(told(caplog)) == is_told
    if is_told:
        assert f"{state}, not done 6 h after the end of its day" in told(caplog)[0]
        assert ("of 2022-05-03 is late" in told(caplog)[0]) == (run_type == "scheduled")


def test_a_run_that_was_created_after_its_deadline_is_in_the_log_only(alerts, caplog):
    with caplog.at_level(logging.INFO):
        alerts.run_is_late(late("scheduled", "running", "2022-05-04T14:00:00Z"))
    assert told(caplog) == []
    assert "a run is past its deadline: scheduled run, running" in caplog.text
