"""`make nearline`, the replay and the line of `make status`: clear lines, proper exit codes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse.store import Lakehouse
from lakehouse.tables import CLICK, TIME
from nearline.click_metrics import ClickMetrics
from nearline.click_source import open_click_source
from services import click_worker, replay_clicks
from services.click_worker import is_healthy, metrics_folder
from services.clicks import tell_click_workers
from services.findings import Findings
from tasks.settings import Settings, load_settings
from tests.conftest import REPOSITORY
from tests.nearline.small_served import publish


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    for name in list(os.environ):
        if name.startswith("TRIBUTARY_") and name != "TRIBUTARY_TEST_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("TRIBUTARY_VAR", str(tmp_path / "var"))
    return load_settings()


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """Give the one line of a command that failed."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_clicks_come_from_the_online_store_s_redis_or_a_file_unless_told_otherwise(
    settings: Settings,
) -> None:
    def with_changes(**changes: object) -> Settings:
        return settings.model_copy(update=changes)

    assert settings.clicks_url == (settings.var / "nearline" / "clicks.jsonl").as_uri()
    redis_url = "redis://:x@host:1/0?prefix=a"
    assert with_changes(online_store_url=redis_url).clicks_url == redis_url
    nearline = settings.nearline.model_copy(update={"clicks_url": "file:///a.jsonl"})
    assert with_changes(online_store_url=redis_url, nearline=nearline).clicks_url == "file:///a.jsonl"


def test_worker_without_a_release_ends_with_one_line(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert click_worker.main([]) == 1
    assert "nothing is served below" in told(capsys)


def test_damaged_release_ends_with_one_line(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    publish(settings.release_root)
    (settings.release_root / "local" / "seed0" / "pi2i" / "scorer.safetensors").unlink()
    assert click_worker.main([]) == 1
    assert "cannot be read" in told(capsys)


@pytest.mark.parametrize("name", ["../up", "a b", "a/b"])
def test_odd_name_is_refused(settings: Settings, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert click_worker.main(["--name", name]) == 1
    assert "cannot name a worker" in told(capsys)


def test_source_that_is_none_is_one_line(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(settings.release_root)
    monkeypatch.setenv("TRIBUTARY_NEARLINE__CLICKS_URL", "kafka://host")
    assert click_worker.main([]) == 1
    assert "names no source of clicks" in capsys.readouterr().err.splitlines()[-1]


def test_replay_sends_a_day_s_clicks_in_order(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_clicks.main([]) == 1
    assert "no day below" in told(capsys)
    table = {"user_id": [1, 2, 1], "item_id": [5, 6, 7], "scenario": ["home"] * 3}
    day = date(2026, 1, 1)
    rows = pa.table({**table, "event_time": pa.array([30, 10, 20], TIME)})
    Lakehouse(settings.lakehouse_root).replace(CLICK, day, rows.sort_by("event_time"))
    assert replay_clicks.main(["--rate", "0", "--clicks", "2"]) == 0
    assert "sent 2 clicks of 2026-01-01" in capsys.readouterr().out
    with closing(open_click_source(settings.clicks_url, worker="test")) as source:
        lines = [delivery.fields for delivery in source.take(10, 0)]
    assert lines == [
        '{"user_id": 2, "item_id": 6, "event_time": 10}',
        '{"user_id": 1, "item_id": 7, "event_time": 20}',
    ]
    for arguments, message in (
        (["--rate", "-1"], "RATE=-1 is not a whole number of at least 0"),
        (["--clicks", "0"], "CLICKS=0 is not a whole number of at least 1"),
        (["--day", "today"], "DAY=today is not a day; write YYYY-MM-DD"),
        (["--day", "2025-01-01"], "2025-01-01"),
    ):
        assert replay_clicks.main(arguments) == 1
        assert message in told(capsys)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("click_worker", "nearline: interrupted before it began; no click was taken\n"),
        ("replay_clicks", "replay-clicks: interrupted; what was sent stays sent\n"),
    ],
)
def test_interrupted_at_its_start_it_ends_with_one_line(tmp_path: Path, command: str, line: str) -> None:
    held = tmp_path / "settings.toml"
    os.mkfifo(held)
    # What a command imports before it can be interrupted is told by what its module alone brings in.
    script = (
        f"import sys; from services import {command}; "
        "assert not {'numpy', 'pyarrow', 'pydantic', 'torch', 'redis'} & {*sys.modules}; "
        f"sys.exit({command}.main([]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=os.environ | {"TRIBUTARY_SETTINGS": str(held), "TRIBUTARY_VAR": str(tmp_path / "var")},
        stderr=subprocess.PIPE,
        text=True,
    )
    reading = None
    while reading is None and process.poll() is None:
        with suppress(OSError):  # Until the command reads its settings.
            reading = os.open(held, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    if reading is not None:
        os.close(reading)
    assert (process.returncode, told) == (130, line)


def test_status_tells_of_workers_and_what_to_mend(settings: Settings) -> None:
    def tell() -> Findings:
        found = Findings()
        tell_click_workers(settings, found)
        return found

    assert tell().lines == []
    folder = metrics_folder(settings)
    metrics = ClickMetrics(folder, "w1")
    metrics.count("clicks", 3)
    metrics.count("put_aside", 1)
    metrics.took(0.03)
    metrics.write()
    assert is_healthy(settings, "w1")
    assert not is_healthy(settings, "w2")
    (line,) = tell().lines
    assert "w1 running" in line
    assert "3 clicks, backlog 0, within 50 ms (p50), 50 ms (p99), 1 put aside" in line
    assert tell().to_mend == []
    metrics.write("waiting")
    assert tell().to_mend == ["no click worker is at work"]
    assert not is_healthy(settings, "w1")
    ClickMetrics(folder, "w2").write()
    assert tell().to_mend == []
    assert len(tell().lines) == 2
    for name in ("w1", "w2"):
        ClickMetrics(folder, name).write("stopped")
    assert tell().lines == []
    text = (folder / "w1.json").read_text().replace('"stopped"', '"running"')
    (folder / "w1.json").write_text(text.replace(str(int(time.time())), "1000"))
    (line,) = tell().lines
    assert "silent for" in line
    assert tell().to_mend == ["no click worker is at work"]
