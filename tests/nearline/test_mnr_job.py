"""The job on a real Flink cluster: lists in the store equal the pure functions, whatever happens to it."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.mnr_load import (
    WHOLE_QUEUE,
    Expected,
    StreamingJob,
    events,
    flink_environment,
    own_redis,
    start_redis,
)
from models.mnr import MNRConfig
from nearline.mnr_lists import list_name
from nearline.mnr_process import Flink, FlinkMissing
from nearline.store import OnlineStore, open_store
from services import mnr
from services.mnr_state import MNRState
from services.state import ServicesError
from services.supervisor import Supervisor
from tests.conftest import REPOSITORY, skip_or_fail

SECONDS = 120
MINUTE = 60
ENTRY_POINTS = ("TaskManagerRunner", "StandaloneApplicationClusterEntryPoint")


@pytest.fixture(scope="module")
def flink() -> Flink:
    try:
        return flink_environment()
    except FlinkMissing as missing:
        skip_or_fail(str(missing))


@pytest.fixture
def job(flink: Flink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamingJob]:
    var = tmp_path_factory.mktemp("v")
    job = StreamingJob(var, f"sqlite:///{var}/online.db", flink, WHOLE_QUEUE)
    yield job
    job.end()


def await_exact(job: StreamingJob, expected: Expected, store: OnlineStore) -> None:
    deadline = time.monotonic() + SECONDS
    while differing := expected.differing(store, job.config):
        assert time.monotonic() < deadline, f"{len(differing)} of {len(expected.queues)} queues differ"
        time.sleep(0.2)


def feed(job: StreamingJob, expected: Expected, first: int, n: int = 300, n_items: int = 20) -> None:
    lines = events(first, n, n_items, 30)
    for at in range(0, n, 50):
        job.send(lines[at : at + 50])
    expected.take(lines, job.config)


def bad_lines() -> list[str]:
    good = json.loads(events(0, 1, 3, 30)[0])
    changes = (
        {"event_time": (time.time_ns() // 1000) + 7_200_000_000},
        {"item_ids": [], "category_ids": [], "scores": []},
        {"user_id": "seven"},
        {"scenario": "half a pair \ud800"},
        {"scores": [float("nan")] * 3},
    )
    return ["garbage", "", *(json.dumps({**good, "request_id": 10**6, **changed}) for changed in changes)]


def test_bad_lines_are_set_aside_and_a_savepoint_goes_on_exactly_with_another_alpha(
    job: StreamingJob,
) -> None:
    expected, store = Expected(), open_store(job.settings.online_store_url)
    job.start()
    feed(job, expected, 0)
    job.send(bad_lines())
    job.send(events(0, 100, 20, 30))  # again: no queue changes
    await_exact(job, expected, store)
    job.wait_for("events", 300 + 7 + 100, SECONDS)
    counters = job.counters()
    assert counters["malformed"] == 4
    assert counters["ahead_of_clock"] == 1
    assert counters["empty"] == 2
    assert counters["bad_scores"] == 0
    job.stop()
    refused = [json.loads(line) for file in job.settings.var.rglob("refused/*/*part-*") if file.is_file()
               for line in file.read_text().splitlines()]  # fmt: skip
    assert sorted(each["reason"] for each in refused) == sorted(
        ["malformed"] * 4 + ["ahead_of_clock"] + ["empty"] * 2
    )
    assert "garbage" in {each["line"] for each in refused}
    job.config = WHOLE_QUEUE.model_copy(update={"alpha": 5.0, "beta": 2.0})
    job.start()
    feed(job, expected, 1000)
    await_exact(job, expected, store)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["thread", "process"])
def test_queues_are_exact_after_either_process_is_killed(flink: Flink, tmp_path: Path, mode: str) -> None:
    job = StreamingJob(tmp_path, f"sqlite:///{tmp_path}/online.db", flink, WHOLE_QUEUE, mode=mode)
    expected, store = Expected(), open_store(job.settings.online_store_url)
    try:
        job.start()
        feed(job, expected, 0)
        await_exact(job, expected, store)
        for place, entry_point in enumerate(ENTRY_POINTS, 1):
            feed(job, expected, 1000 * place)
            job.process(entry_point).kill()
            feed(job, expected, 1000 * place + 500)
            await_exact(job, expected, store)
            time.sleep(5)
    finally:
        job.end()


@pytest.mark.slow
@pytest.mark.parametrize("is_gone", [False, True])
def test_nothing_is_lost_while_the_store_is_away_for_a_minute(
    flink: Flink, tmp_path: Path, is_gone: bool
) -> None:
    expected = Expected()
    with own_redis(tmp_path) as (url, client):
        job = StreamingJob(tmp_path, url, flink, WHOLE_QUEUE)
        try:
            job.start()
            feed(job, expected, 0)
            store = open_store(url)
            await_exact(job, expected, store)
            if is_gone:
                client.shutdown(save=True)
            else:
                client.client_pause(MINUTE * 1000)  # answers no command, as one that hangs
            came_back = time.monotonic() + MINUTE
            for place in range(1, 13):
                feed(job, expected, 1000 * place, 100)
                time.sleep(max(0, came_back - time.monotonic()) / (13 - place))
            assert job.counters()["store_failures"] >= 5
            with revived(tmp_path, url) if is_gone else nullcontext():
                await_exact(job, expected, store)
                counters = job.counters()
                assert (counters["events"], counters["kept"]) == (1500, 1500)
        finally:
            job.end()


@contextmanager
def revived(folder: Path, url: str) -> Iterator[None]:
    server = start_redis(folder, int(urlsplit(url).port))
    try:
        yield
    finally:
        server.terminate()
        server.wait()


@pytest.mark.slow
def test_job_that_can_take_no_savepoint_goes_on_and_is_stopped_by_force(
    job: StreamingJob, capsys: pytest.CaptureFixture
) -> None:
    expected, store = Expected(), open_store(job.settings.online_store_url)
    job.start()
    feed(job, expected, 0)
    await_exact(job, expected, store)
    state = MNRState(job.settings.var)
    savepoints, checkpoint = state.cluster.savepoints, state.cluster.newest_state()
    savepoints.rmdir()
    savepoints.touch()  # no folder: nothing can be written into it
    with pytest.raises(ServicesError, match=f"no savepoint can be taken in {savepoints}: ") as caught:
        mnr.stop(job.settings)
    assert "\n" not in str(caught.value)
    feed(job, expected, 1000)
    await_exact(job, expected, store)
    while state.cluster.newest_state() == checkpoint:
        time.sleep(0.2)
    Supervisor(state).stop_processes(["taskmanager"])
    deadline = time.monotonic() + SECONDS
    while state.job() is None or state.job().is_running:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    with pytest.raises(ServicesError, match=r"no savepoint can be taken in .*: the job is R"):
        mnr.stop(job.settings)
    savepoints.unlink()
    assert mnr.stop(job.settings, force=True) == 0
    newest = state.cluster.newest_state()
    assert f"Stopped without a savepoint; `make mnr` goes on from {newest} of" in capsys.readouterr().out
    job.config = WHOLE_QUEUE.model_copy(update={"alpha": 5.0})
    job.start()
    assert f"The job goes on from {newest} of" in capsys.readouterr().out
    feed(job, expected, 2000)
    await_exact(job, expected, store)


@pytest.mark.slow
def test_idle_queue_is_forgotten_here_and_in_the_store(flink: Flink, tmp_path: Path) -> None:
    config = MNRConfig(idle_seconds=3600)
    job = StreamingJob(tmp_path, f"sqlite:///{tmp_path}/online.db", flink, config, lateness_seconds=0)
    store = open_store(job.settings.online_store_url)
    first, later = (json.loads(line) for line in events(0, 2, 5, 1))
    try:
        job.start()
        job.send([json.dumps(first)])
        job.wait_for("written", 1, SECONDS)
        assert len(store.read(list_name("search"), first["user_id"]).item_ids) == 5
        later.update(user_id=99, event_time=first["event_time"] + 3_700_000_000)
        job.send([json.dumps(later)])
        job.wait_for("forgotten", 1, SECONDS)
        assert len(store.read(list_name("search"), first["user_id"]).item_ids) == 0
        job.send([json.dumps({**first, "request_id": 5})])
        job.wait_for("expired", 1, SECONDS)
        assert len(store.read(list_name("search"), 99).item_ids) == 5
    finally:
        job.end()


def run_script(flink: Flink, script: str) -> subprocess.CompletedProcess:
    """Run Python in Flink's environment."""
    return subprocess.run(
        [flink.python, "-c", script],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_kafka_without_its_connector_is_one_clear_line(flink: Flink) -> None:
    script = """
from pyflink.common.serialization import SimpleStringSchema
from nearline.mnr_config import KafkaConfig
from nearline.mnr_kafka import ConnectorMissing, kafka_source
try:
    kafka_source(KafkaConfig(servers="host:9092", topic="rankings"), SimpleStringSchema())
except ConnectorMissing as missing:
    print(missing)
"""
    ran = run_script(flink, script)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == (
        "Flink has no Kafka connector: name the jar of flink-sql-connector-kafka in mnr_stream.jars"
    )


def test_functions_compile_where_print_is_not_the_builtin_one(flink: Flink) -> None:
    script = """
import builtins
class Logger:
    _print = builtins.print
    def log(self, *values): pass
builtins.print = Logger().log
from nearline.mnr_operators import _compiled_functions
Logger._print(_compiled_functions().clean_ranking.__name__)
from nearline import mnr_events
"""
    ran = run_script(flink, script)
    assert (ran.returncode, ran.stdout.strip()) == (0, "clean_ranking"), ran.stderr
