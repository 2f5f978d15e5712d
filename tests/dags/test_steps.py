"""Which day is a run about, what fails at once, and what does a task's log end with?"""

import logging
import re
import traceback
from datetime import date, timedelta
from types import SimpleNamespace

import pendulum
import pyarrow as pa
import pytest

from lakehouse.store import Lakehouse, MissingPartition
from lakehouse.tables import CLICK, quarantine

REPORT_DAY = date(2022, 5, 3)


def context(run_type: str, *, day=None, interval_start=None, logical_date=None):
    """The parts of an Airflow context that the resolver reads."""
    return {
        "dag": SimpleNamespace(timezone=pendulum.timezone("Asia/Shanghai")),
        "dag_run": SimpleNamespace(
            run_type=run_type, data_interval_start=interval_start, logical_date=logical_date
        ),
        "params": {"day": day},
    }


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """dags.steps, imported with a home of its own for Airflow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        from dags import steps

        yield steps


def test_the_parameter_wins(steps):
    start = pendulum.datetime(2022, 5, 1, tz="Asia/Shanghai")
    assert steps.resolve_day(context("scheduled", day="2022-05-03", interval_start=start)) == REPORT_DAY


@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
def test_scheduled_and_backfilled_runs_are_about_their_interval_in_the_zone_of_the_source(steps, run_type):
    start = pendulum.datetime(2022, 5, 3, tz="Asia/Shanghai").in_timezone("UTC")
    assert start.date() == date(2022, 5, 2)
    assert steps.resolve_day(context(run_type, interval_start=start)) == REPORT_DAY


def test_interval_of_a_manual_run_is_not_believed(steps):
    start = pendulum.datetime(2026, 1, 1, tz="Asia/Shanghai")
    logical = pendulum.datetime(2022, 5, 3, tz="Asia/Shanghai").in_timezone("UTC")
    found = steps.resolve_day(context("manual", interval_start=start, logical_date=logical))
    assert found == REPORT_DAY


@pytest.mark.parametrize("run_type", ["manual", "asset_triggered"])
def test_a_run_without_a_day_says_what_to_do(steps, run_type):
    with pytest.raises(steps.NoDay, match="trigger it with the parameter day"):
        steps.resolve_day(context(run_type))


def test_a_mistake_fails_at_once_in_one_line(steps):
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"^ValueError: the click table is empty$"), steps.step():
        raise ValueError("the click\n table is empty")


@pytest.mark.parametrize("error", [ConnectionError("server away"), OSError("disk full")])
def test_what_a_retry_can_mend_is_left_to_the_retry(steps, error):
    with pytest.raises(type(error)), steps.step():
        raise error


def test_what_is_skipped_is_skipped(steps):
    from airflow.sdk.exceptions import AirflowSkipException

    with pytest.raises(AirflowSkipException), steps.step():
        raise AirflowSkipException("the source has ended")


def test_a_task_ends_its_log_with_what_it_took_read_and_wrote(steps, tmp_path, caplog):
    rows = pa.table({"row_number": [0, 1], "reason": ["a", "b"], "row": ["{}", "{}"]})
    refused = quarantine(CLICK)
    Lakehouse(tmp_path).replace(refused, REPORT_DAY, rows)
    with caplog.at_level(logging.INFO), steps.step():
        lakehouse = Lakehouse(tmp_path)
        lakehouse.read(refused, REPORT_DAY)
        for n in range(1, 11):
            lakehouse.replace(refused, REPORT_DAY + timedelta(days=n), rows)
    last = caplog.messages[-1]
    assert re.match(r"step: \d+\.\d s, peak memory \d+\.\d\d GiB", last)
    assert "; read 1 partitions, 2 rows; wrote quarantine/click/ds=2022-05-04 2 rows, " in last
    assert last.endswith("quarantine/click/ds=2022-05-11 2 rows, 2 more with 4 rows")


def test_a_task_that_fails_tells_its_figures_too(steps, caplog):
    with caplog.at_level(logging.INFO), pytest.raises(OSError, match="disk full"), steps.step():
        raise OSError("disk full")
    assert "read 0 partitions, 0 rows; wrote nothing" in caplog.messages[-2]
    assert caplog.messages[-1] == "OSError: disk full"


def test_the_last_line_of_a_failed_task_is_the_reason_and_no_chain_of_errors_follows(steps, caplog):
    from airflow.sdk.exceptions import AirflowFailException

    with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException) as caught, steps.step():
        try:
            {}["day"]
        except KeyError as error:
            raise MissingPartition("click has no\n2022-05-02: run build_histories") from error
    reason = "MissingPartition: click has no 2022-05-02: run build_histories"
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [
        ("INFO", None),
        ("ERROR", None),
    ]
    assert caplog.messages[-1] == reason
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback") == 1
    assert shown.endswith(f"AirflowFailException: {reason}\n")


def test_an_error_that_is_not_our_own_keeps_its_traceback_before_the_reason(steps, caplog):
    from airflow.sdk.exceptions import AirflowFailException

    with caplog.at_level(logging.INFO), pytest.raises(AirflowFailException), steps.step():
        {}["day"]
    unexpected, figures, reason = caplog.records
    assert unexpected.exc_info[1].args == ("day",)
    assert figures.levelname == "INFO"
    assert reason.getMessage() == "KeyError: 'day'"
