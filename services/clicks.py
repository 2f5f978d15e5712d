"""How do the click workers do? A line each of ``make status``; none where none ever ran."""

import time

from nearline.click_metrics import WorkerStatus, read_statuses
from services.click_worker import SILENT_SECONDS, metrics_folder
from services.findings import Findings
from tasks.settings import Settings


def tell_click_workers(settings: Settings, found: Findings) -> None:
    """Tell of workers that did not stop properly; something is to mend where none of them is at work."""
    statuses = found.attempt("clicks", lambda: read_statuses(metrics_folder(settings))) or []
    meant = [status for status in statuses if status.state != "stopped"]
    now = time.time()
    is_any_well = any(_is_well(status, now) for status in meant)
    for status in meant:
        found.tell("clicks", _line(status, now), "" if is_any_well else "no click worker is at work")


def _is_well(status: WorkerStatus, now: float) -> bool:
    return status.state == "running" and now - status.written_at < SILENT_SECONDS


def _line(status: WorkerStatus, now: float) -> str:
    counts, silent = status.counts, now - status.written_at
    state = status.state if silent < SILENT_SECONDS else f"silent for {silent:.0f} s"
    told = f"{status.worker} {state}, {status.day}: {counts['clicks']} clicks, backlog {status.backlog}"
    if (median := status.quantile(0.5)) is not None:
        told += f", within {1000 * median:.0f} ms (p50), {1000 * status.quantile(0.99):.0f} ms (p99)"
    notable = ("put_aside", "failed", "fallbacks", "retries", "release_failures")
    return told + "".join(f", {counts[name]} {name.replace('_', ' ')}" for name in notable if counts[name])
