"""
What does a streaming job get to do, and what should it have done? Ranking events, and the lists they lead to.

Shared by ``benchmarks.mnr`` and the tests of the job on Flink.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import redis

from models.mnr import MNRConfig, insert, score
from nearline.flink_api import FlinkApi
from nearline.mnr_config import MNRStreamConfig
from nearline.mnr_events import read_event
from nearline.mnr_lists import list_name
from nearline.mnr_process import Flink
from nearline.store import OnlineStore
from services import mnr
from services.mnr_state import JOB_NAME, MNRState
from tasks.settings import REPOSITORY, Settings, load_settings

WHOLE_QUEUE = MNRConfig(k=10_000, max_per_category=None)
"""Lists hold every item of the queue, and scores tell its place in it: lists are equal when queues are."""

NOON = 1_767_268_800_000_000  # 2026-01-01 12:00 UTC, in microseconds


def events(first: int, n: int, n_items: int, n_users: int) -> list[str]:
    """Draw the lines of requests ``first`` to ``first + n``, each the same every time."""
    lines = []
    for request in range(first, first + n):
        generator = np.random.default_rng(request)
        items = generator.choice(1_000_000, n_items, replace=False) + 1
        values = {
            "request_id": request,
            "user_id": int(generator.integers(n_users)),
            "scenario": "search",
            "event_time": NOON + 1000 * request + int(generator.integers(-20_000, 20_000)),
            "item_ids": items.tolist(),
            "category_ids": (items % 50).tolist(),
            "scores": np.round(np.linspace(1, 0.1, n_items), 4).tolist(),
        }
        lines.append(json.dumps(values))
    return lines


class RedisMissing(RuntimeError):
    """There is no redis-server; one line that says what to do."""


class Expected:
    """The queues that a job should have after all the lines it was given."""

    def __init__(self) -> None:
        """Start with none."""
        self.queues: dict[tuple[int, str], bytes] = {}

    def take(self, lines: list[str], config: MNRConfig) -> None:
        """Put lines into the queues, one by one."""
        for line in lines:
            event = read_event(line, config, 2**62)
            key = (event.user_id, event.scenario)
            self.queues[key], _ = insert(self.queues.get(key), event.visit, config)

    def differing(self, store: OnlineStore, config: MNRConfig) -> list[tuple[int, str]]:
        """Name the queues whose list in the store is another one, in an item or a score."""
        differing = []
        for (user, scenario), queue in self.queues.items():
            found, wanted = store.read(list_name(scenario), user), score(queue, config)
            is_same = found is not None and all(map(np.array_equal, (found.item_ids, found.scores), wanted))
            if not is_same:
                differing.append((user, scenario))
        return differing


class StreamingJob:
    """A job on a local cluster of its own."""

    def __init__(self, var: Path, store_url: str, flink: Flink, config: MNRConfig, **stream: object):
        """Start nothing yet."""
        self.flink, self.config = flink, config
        self._base = load_settings().model_copy(
            update={
                "var": var,
                "online_store_url": store_url,
                "mnr_stream": MNRStreamConfig(rest_port=0, **stream),
            }
        )
        self.lines = var / "mnr" / "lines"
        self._n_files = 0

    @property
    def settings(self) -> Settings:
        """What the commands of the job are given."""
        return self._base.model_copy(update={"mnr": self.config})

    @property
    def api(self) -> FlinkApi:
        """The cluster's REST interface."""
        return MNRState(self.settings.var).api()

    def start(self) -> None:
        """Start it, or let it go on; wait until it runs."""
        assert mnr.start(self.settings, self.flink) == 0

    def stop(self) -> None:
        """Stop it with a savepoint."""
        assert mnr.stop(self.settings) == 0

    def end(self) -> None:
        """Stop it at once, however it stands."""
        mnr.stop(self.settings, force=True)

    def send(self, lines: list[str]) -> None:
        """Move a file of lines into the folder, whole."""
        new = self.lines / f".{self._n_files}"
        new.write_text("\n".join(lines) + "\n")
        new.rename(self.lines / f"{self._n_files:08d}.jsonl")
        self._n_files += 1

    def counters(self) -> dict[str, int]:
        """Give the job's counters since its last start."""
        return self.api.counters(self.api.jobs(JOB_NAME)[0].job_id)

    def wait_for(self, name: str, n: int, seconds: float) -> None:
        """Wait until a counter has reached ``n``."""
        deadline = time.monotonic() + seconds
        while self.counters().get(name, 0) < n:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} is {self.counters().get(name)}, not {n}, after {seconds} s")
            time.sleep(0.1)

    def process(self, entry_point: str) -> psutil.Process:
        """Give one of the cluster's Java processes by a part of its command line."""
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if entry_point in line and str(self.settings.var) in line and "java" in line.split()[0]:
                return process
        raise LookupError(f"no {entry_point} runs for {self.settings.var}")

    def task_cpu_seconds(self) -> float:
        """Give the CPU seconds that the task manager and its Python workers have used."""
        java = self.process("TaskManagerRunner")
        times = [each.cpu_times() for each in [java, *java.children(recursive=True)]]
        return sum(each.user + each.system for each in times)


@contextmanager
def own_redis(folder: Path) -> Iterator[tuple[str, redis.Redis]]:
    """
    Run a Redis that tells of every key it sets; give its URL and a client.

    Raises:
        RedisMissing: there is no redis-server.
    """
    if shutil.which("redis-server") is None:
        raise RedisMissing("no redis-server: install Redis (apt install redis-server)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server, client = start_redis(folder, port), redis.Redis(port=port)
    try:
        yield f"redis://127.0.0.1:{port}/0", client
    finally:
        client.close()
        server.terminate()
        server.wait()


def start_redis(folder: Path, port: int) -> subprocess.Popen:
    """Start a Redis with what it last saved in ``folder``; wait until it answers."""
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--notify-keyspace-events", "K$"]
    server = subprocess.Popen(["redis-server", *options], cwd=folder, stdout=subprocess.DEVNULL)
    for _ in range(100):
        try:
            redis.Redis(port=port).ping()
            break
        except redis.RedisError:
            time.sleep(0.1)
    return server


def flink_environment() -> Flink:
    """Give the project's Flink environment; FlinkMissing where it is not there."""
    flink = Flink(REPOSITORY / ".venv-flink")
    flink.refuse_missing()
    return flink
