"""
Is the streaming job well? It runs, keeps up, checkpoints, and the store is fresh: asked of Flink's REST API.

What is wrong is told in one line each; a job that is not well fails the check.
"""

import time
from dataclasses import dataclass
from datetime import UTC

from lakehouse import tables
from lakehouse.store import Lakehouse
from nearline.flink_api import RUNNING, FlinkApi, FlinkAway, JobState
from nearline.mnr_lists import list_name
from nearline.store import open_store
from tasks.settings import Settings

LOOKED_AT = 200


class JobUnwell(LookupError):
    """The streaming job is not there, does not run, lags or does not checkpoint; the message says which."""


@dataclass(frozen=True)
class JobReport:
    """How the job stands; None where Flink does not tell, as before a first event or checkpoint."""

    job_id: str
    state: str
    uptime_seconds: float
    n_restarts: int | None
    watermark_lag_seconds: float | None
    """The clock less the slowest watermark: how far behind the stream the results are."""
    checkpoint_age_seconds: float | None
    n_failed_checkpoints: int
    counters: dict[str, int]
    """The job's own counters, added up over its subtasks: events, late ones, refused ones, ..."""
    store_age_seconds: float | None
    """The clock less the newest ranking in the store, of the users who were last active."""


def check_streaming_job(settings: Settings) -> JobReport | None:
    """
    Tell how the streaming job stands; None where ``mnr_daily.flink_url`` is not set.

    Raises:
        FlinkAway: the cluster does not answer.
        JobUnwell: no job of the name runs, it lags more than ``mnr_daily.max_lag_seconds``, or it has not
            completed a checkpoint for so long.
    """
    if settings.mnr_daily.flink_url is None:
        return None
    flink = FlinkApi(settings.mnr_daily.flink_url, settings.mnr_daily.timeout_seconds)
    try:
        report = _report(flink, _running_job(flink, settings), settings)
    except FlinkAway as error:
        raise FlinkAway(f"{error}: start it, or mend or unset mnr_daily.flink_url") from error
    most = settings.mnr_daily.max_lag_seconds
    where = f"streaming job {settings.mnr_daily.job_name} on {flink.url}"
    limit = f"mnr_daily.max_lag_seconds = {most:g}"
    lag, age = report.watermark_lag_seconds, report.checkpoint_age_seconds
    if lag is not None and lag > most:
        raise JobUnwell(
            f"{where}: its results are {lag:.0f} s behind ({limit}): its source is idle, or it needs more "
            "task slots"
        )
    without = report.uptime_seconds if age is None else age
    if without > most:
        raise JobUnwell(
            f"{where}: no checkpoint completed for {without:.0f} s ({limit}), {report.n_failed_checkpoints} "
            "failed: look at its checkpoints' page"
        )
    return report


def _running_job(flink: FlinkApi, settings: Settings) -> JobState:
    """Find the running job of the name, the newest of several."""
    name = settings.mnr_daily.job_name
    jobs = flink.jobs(name)
    for job in jobs:
        if job.state == RUNNING:
            return job
    states = ", ".join(sorted({job.state for job in jobs})) or "never submitted"
    raise JobUnwell(f"no job {name} runs on {flink.url} ({states}): submit it, see docs/mnr.md")


def _report(flink: FlinkApi, job: JobState, settings: Settings) -> JobReport:
    job_id = job.job_id
    watermark, checkpoint, now = flink.watermark(job_id), flink.last_checkpoint(job_id), time.time()
    return JobReport(
        job_id,
        job.state,
        flink.uptime_seconds(job_id),
        flink.n_restarts(job_id),
        None if watermark is None else now - watermark / 1000,
        None if checkpoint is None else now - checkpoint / 1000,
        flink.n_failed_checkpoints(job_id),
        flink.counters(job_id),
        _store_age(settings),
    )


def _store_age(settings: Settings) -> float | None:
    """Look at the lists of those whose rankings are the newest in ``mnr_candidates``; None without any."""
    lakehouse = Lakehouse(settings.lakehouse_root)
    days = lakehouse.days(tables.MNR_CANDIDATES)
    if not days:
        return None
    rows = lakehouse.read(
        tables.MNR_CANDIDATES, days[-1], columns=["user_id", "scenario", "event_time"]
    ).sort_by([("event_time", "descending"), ("user_id", "ascending")])
    store = open_store(settings.online_store_url)
    try:
        found = [
            store.read(list_name(row["scenario"]), row["user_id"])
            for row in rows.slice(0, LOOKED_AT).to_pylist()
        ]
    finally:
        store.close()
    times = [candidates.event_time for candidates in found if candidates]
    return time.time() - max(times).replace(tzinfo=UTC).timestamp() if times else None
