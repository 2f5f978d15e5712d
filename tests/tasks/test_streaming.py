"""The look at the streaming job, against a server that answers as Flink's REST API does."""

import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.mnr_config import MNRDailyConfig
from tasks.settings import Settings
from tasks.streaming import FlinkAway, JobUnwell, check_streaming_job
from tests.nearline.flink_server import flink
from tests.tasks.small_worlds import world_settings

TASKS = {"running": 3, "total": 3}


def milliseconds_ago(seconds: float) -> int:
    return int(1000 * (time.time() - seconds))


def answers(**changes: object) -> dict[str, object]:
    """What a healthy job's cluster says, as Flink 2.3 writes it."""
    now = milliseconds_ago(0)
    job = {"jid": "j1", "name": "mnr", "state": "RUNNING", "start-time": now - 9000, "tasks": TASKS}
    older = {"jid": "j0", "name": "mnr", "state": "CANCELED", "start-time": now, "tasks": TASKS}
    counters = [{"id": "job.mnr.events"}, {"id": "job.numRecordsIn"}, {"id": "job.mnr.late"}]
    return {
        "/jobs/overview": {"jobs": [older, job, {**job, "jid": "x", "name": "another"}]},
        "/jobs/j1": {"state": "RUNNING", "duration": 9_000_000, "vertices": [{"id": "v1"}]},
        "/jobs/j1/checkpoints": {
            "counts": {"failed": 1},
            "latest": {"completed": {"latest_ack_timestamp": milliseconds_ago(4)}},
        },
        "/jobs/j1/vertices/v1/watermarks": [
            {"id": "0.currentInputWatermark", "value": str(milliseconds_ago(70))}
        ],
        "/jobs/j1/vertices/v1/subtasks/metrics": counters,
        "/jobs/j1/vertices/v1/subtasks/metrics?get=job.mnr.events,job.mnr.late&agg=sum": [
            {"id": "job.mnr.events", "sum": 120.0},
            {"id": "job.mnr.late", "sum": 3.0},
        ],
        "/jobs/j1/metrics?get=numRestarts": [{"id": "numRestarts", "value": "2"}],
    } | changes


def watching(var: Path, url: str | None, **changes: object) -> Settings:
    return world_settings(var, mnr_daily={"flink_url": url, **changes})


def test_no_address_means_no_job_to_look_after(tmp_path):
    assert check_streaming_job(watching(tmp_path, None)) is None


def test_a_job_that_is_well_is_told_of(tmp_path):
    with flink(answers()) as url:
        report = check_streaming_job(watching(tmp_path, url))
    assert (report.job_id, report.state, report.n_restarts) == ("j1", "RUNNING", 2)
    assert report.counters == {"events": 120, "late": 3}
    assert report.watermark_lag_seconds == pytest.approx(70, abs=20)
    assert report.checkpoint_age_seconds == pytest.approx(4, abs=20)
    assert report.n_failed_checkpoints == 1
    assert report.store_age_seconds is None


def test_a_job_of_another_name_is_told_of_with_its_counters(tmp_path):
    job = {"jid": "j1", "name": "rankings", "state": "RUNNING", "start-time": 1, "tasks": TASKS}
    with flink(answers(**{"/jobs/overview": {"jobs": [job]}})) as url:
        report = check_streaming_job(watching(tmp_path, url, job_name="rankings"))
    assert report.counters == {"events": 120, "late": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"/jobs/overview": {"jobs": []}}, r"no job mnr runs on .* \(never submitted\): submit it"),
        (
            {
                "/jobs/overview": {
                    "jobs": [{"jid": "j", "name": "mnr", "state": "FAILED", "start-time": 1, "tasks": TASKS}]
                }
            },
            r"no job mnr runs on .* \(FAILED\)",
        ),
        (
            {"/jobs/j1/vertices/v1/watermarks": [{"id": "0", "value": str(milliseconds_ago(900))}]},
            r"results are \d+ s behind \(mnr_daily.max_lag_seconds = 300\)",
        ),
        (
            {"/jobs/j1/checkpoints": {"counts": {"failed": 7}, "latest": {}}},
            "no checkpoint completed for 9000 s",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, changes, message):
    with flink(answers(**changes)) as url, pytest.raises(JobUnwell, match=message) as caught:
        check_streaming_job(watching(tmp_path, url))
    assert "\n" not in str(caught.value)


def test_a_job_before_its_first_event_has_no_lag(tmp_path):
    before = {"/jobs/j1/vertices/v1/watermarks": [{"id": "0", "value": str(-(2**63))}]}
    with flink(answers(**before)) as url:
        assert check_streaming_job(watching(tmp_path, url)).watermark_lag_seconds is None


def test_a_cluster_that_is_away_is_named(tmp_path):
    with flink({}) as url:
        pass
    with pytest.raises(FlinkAway, match=f"the Flink cluster {url} does not answer"):
        check_streaming_job(watching(tmp_path, url))


@pytest.mark.parametrize(
    "answer", [[], {}, {"jobs": None}, {"jobs": [7]}, {"jobs": [{"name": "mnr"}]}, "well", None]
)
def test_an_address_of_another_server_is_one_line(tmp_path, answer):
    with (
        flink({"/jobs/overview": answer}) as url,
        pytest.raises(FlinkAway, match=f"^{url} does not answer /jobs/overview as a Flink cluster does: "),
    ):
        check_streaming_job(watching(tmp_path, url))


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ValidationError, match="flink_url must start with http"):
        MNRDailyConfig(flink_url="localhost:8081")
