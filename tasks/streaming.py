"""
Is the streaming job well? It runs, keeps up, checkpoints, and the store is fresh: asked of Flink's REST API.

What is wrong is told in one line each; a job that is not well fails the check.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from http.client import HTTPException
from urllib.parse import quote
from urllib.request import Request, urlopen

from lakehouse import tables
from lakehouse.store import Lakehouse
from nearline.mnr_lists import list_name
from nearline.store import open_store
from tasks.settings import Settings

MIN_WATERMARK = -(2**63)
LOOKED_AT = 200
COUNTER_GROUP = ".mnr."
"""What the ids of the job's own counters hold, whatever the job is called."""


class FlinkAway(ConnectionError):
    """The cluster does not answer; the message names it and what to do."""


class JobUnwell(LookupError):
    """The streaming job is not there, does not run, lags or does not checkpoint; the message says which."""


@dataclass(frozen=True)
class JobReport:
    """How the job stands; None where Flink does not tell, as before a first event or checkpoint."""

    job_id: str
    state: str
    uptime_seconds: float
    n_restarts: int
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
    flink = _Flink(settings.mnr_daily.flink_url.rstrip("/"), settings.mnr_daily.timeout_seconds)
    report = _report(flink, _job_id(flink, settings), settings)
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


class _Flink:
    """Flink's REST API."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self.url = url
        self._timeout = timeout_seconds

    def get(self, path: str) -> dict | list:
        request = Request(f"{self.url}{path}", headers={"Accept": "application/json"})
        try:
            with urlopen(request, timeout=self._timeout) as answer:
                return json.load(answer)
        except (OSError, HTTPException, ValueError) as error:
            raise FlinkAway(
                f"the Flink cluster {self.url} does not answer ({error}): start it, or mend or unset "
                "mnr_daily.flink_url"
            ) from error


def _job_id(flink: _Flink, settings: Settings) -> str:
    """Find the running job of the name, the newest of several."""
    name = settings.mnr_daily.job_name
    jobs = [job for job in flink.get("/jobs/overview")["jobs"] if job["name"] == name]
    running = [job for job in jobs if job["state"] == "RUNNING"]
    if not running:
        states = ", ".join(sorted({job["state"] for job in jobs})) or "never submitted"
        raise JobUnwell(f"no job {name} runs on {flink.url} ({states}): submit it, see docs/mnr.md")
    return max(running, key=lambda job: job["start-time"])["jid"]


def _report(flink: _Flink, job_id: str, settings: Settings) -> JobReport:
    path = f"/jobs/{job_id}"
    job, checkpoints, now = flink.get(path), flink.get(f"{path}/checkpoints"), time.time()
    latest = (checkpoints.get("latest") or {}).get("completed")
    watermarks, counters = [], {}
    for vertex in job["vertices"]:
        of_vertex = f"{path}/vertices/{vertex['id']}"
        watermarks += [float(row["value"]) for row in flink.get(f"{of_vertex}/watermarks")]
        names = [row["id"] for row in flink.get(f"{of_vertex}/subtasks/metrics")]
        own = [name for name in names if COUNTER_GROUP in name]
        for name, value in _sums(flink, of_vertex, own):
            label = name.rpartition(".")[2]
            counters[label] = counters.get(label, 0) + value
    known = [mark for mark in watermarks if mark > MIN_WATERMARK]
    restarts = flink.get(f"{path}/metrics?get=numRestarts")
    return JobReport(
        job_id,
        job["state"],
        job["duration"] / 1000,
        int(float(restarts[0]["value"])) if restarts else 0,
        now - min(known) / 1000 if known else None,
        now - latest["latest_ack_timestamp"] / 1000 if latest else None,
        int(checkpoints.get("counts", {}).get("failed", 0)),
        counters,
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


def _sums(flink: _Flink, of_vertex: str, names: Iterable[str]) -> list[tuple[str, int]]:
    names = list(names)
    if not names:
        return []
    wanted = quote(",".join(names))
    rows = flink.get(f"{of_vertex}/subtasks/metrics?get={wanted}&agg=sum")
    return [(row["id"], int(row["sum"])) for row in rows]
