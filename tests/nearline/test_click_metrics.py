"""What a worker tells of itself: files that are whole at any time, and quantiles from buckets."""

import os
import time
from pathlib import Path

from nearline.click_metrics import BOUNDS, COUNTERS, ClickMetrics, read_statuses


def test_files_tell_counts_latencies_and_state(tmp_path: Path) -> None:
    metrics = ClickMetrics(tmp_path, "w1")
    assert metrics.is_due
    metrics.count("clicks", 3)
    for seconds in (0.004, 0.005, 0.03, 400.0):
        metrics.took(seconds)
    metrics.backlog = 7
    metrics.write()
    assert not metrics.is_due
    (status,) = read_statuses(tmp_path)
    assert (status.worker, status.state, status.backlog, status.counts["clicks"]) == ("w1", "running", 7, 3)
    assert status.counts.keys() == COUNTERS.keys()
    assert abs(status.written_at - time.time()) < 10
    assert [status.quantile(share) for share in (0.5, 0.75, 1.0)] == [0.005, 0.05, float("inf")]
    text = (tmp_path / "w1.prom").read_text()
    assert 'tributary_click_worker_clicks_total{worker="w1"} 3' in text
    assert 'tributary_click_worker_latency_seconds_bucket{worker="w1",le="0.05"} 3' in text
    assert 'tributary_click_worker_latency_seconds_bucket{worker="w1",le="+Inf"} 4' in text
    assert 'tributary_click_worker_latency_seconds_sum{worker="w1"} 400.039' in text
    assert 'tributary_click_worker_up{worker="w1"} 1' in text
    assert list(BOUNDS) == sorted(BOUNDS)
    metrics.write("stopped")
    assert 'tributary_click_worker_up{worker="w1"} 0' in (tmp_path / "w1.prom").read_text()


def test_worker_without_clicks_has_no_quantile(tmp_path: Path) -> None:
    ClickMetrics(tmp_path, "w1").write()
    assert read_statuses(tmp_path)[0].quantile(0.99) is None
    assert read_statuses(tmp_path / "nowhere") == []


def test_workers_silent_for_a_day_are_forgotten(tmp_path: Path) -> None:
    for name in ("old", "young"):
        ClickMetrics(tmp_path, name).write()
    for end in ("json", "prom"):
        os.utime(tmp_path / f"old.{end}", (0, time.time() - 90_000))
    ClickMetrics(tmp_path, "new").write()
    assert [status.worker for status in read_statuses(tmp_path)] == ["new", "young"]
    assert not (tmp_path / "old.prom").exists()
