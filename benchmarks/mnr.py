"""
How fast is the streaming MNR job, how soon is a list in the store, and how soon is a killed job exact again?

    python -m benchmarks.mnr [--parts pure,throughput,latency,recovery] [--modes thread,process] [--items 100]
                             [--rate 500]

Throughput is ranking events per second of CPU that the task manager and its Python workers use: read,
queued, scored and written to Redis, checkpoints on. The pure functions alone are the limit. Latency is from
the moment a file of lines is in the folder to that of the write. A recovery ends when every queue's whole
content, as its list shows it, is what the pure functions make of all lines. The last line is one JSON
object; its ratio is thread mode's events per CPU second at 100 items over process mode's. Needs `make
flink-env` and redis-server.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.mnr_load import (
    WHOLE_QUEUE,
    Expected,
    RedisMissing,
    StreamingJob,
    events,
    flink_environment,
    own_redis,
)
from benchmarks.running import print_table
from models.mnr import MNRConfig, insert, score
from nearline.mnr_events import read_event
from nearline.mnr_process import FlinkMissing
from nearline.store import open_store
from services.state import stop_on_terminate

PARTS = ("pure", "throughput", "latency", "recovery")
LATENCY_SECONDS, WARM_SECONDS, FILE_SECONDS = 25, 5, 0.1
RECOVERY_USERS, RECOVERY_LIMIT_SECONDS = 100, 120


def main() -> None:
    """Measure the parts, print a table each, and the figures as the last line."""
    arguments = _arguments()
    stop_on_terminate()
    try:
        figures = _measure(arguments)
    except (FlinkMissing, RedisMissing) as missing:
        sys.exit(f"bench-mnr: {missing}")
    for part, rows in figures.items():
        print(part)
        print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    rates = {
        row["mode"]: row["events per CPU s"] for row in figures.get("throughput", []) if row["items"] == 100
    }
    ratio = rates["thread"] / rates["process"] if len(rates) == 2 else None
    print(json.dumps({"name": "mnr", "ratio": ratio, "figures": figures}))


def _measure(arguments: argparse.Namespace) -> dict:
    """Give the rows of each part."""
    flink, figures = flink_environment(), {}
    with tempfile.TemporaryDirectory(prefix="tributary-mnr-") as name, own_redis(Path(name)) as (url, client):
        folder = Path(name)
        if "pure" in arguments.parts:
            figures["pure"] = [_pure(n_items) for n_items in arguments.items]
        if "throughput" in arguments.parts:
            figures["throughput"] = [
                _throughput(folder / f"{mode}{n_items}", url, flink, mode, n_items, arguments.events)
                for mode in arguments.modes
                for n_items in arguments.items
            ]
        if "latency" in arguments.parts:
            figures["latency"] = [
                _latency(folder / f"l{mode}", url, client, flink, mode, arguments.rate)
                for mode in arguments.modes
            ]
        if "recovery" in arguments.parts:
            figures["recovery"] = _recovery(folder / "recovery", url, flink, arguments.modes[0])
    return figures


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--parts", type=_some_of(PARTS), default=PARTS, help="what to measure")
    parser.add_argument("--modes", type=_some_of(("thread", "process")), default=("thread", "process"))
    parser.add_argument(
        "--items", type=lambda text: [int(each) for each in text.split(",")], default=[100, 500]
    )
    parser.add_argument("--events", type=int, default=60_000, help="events of a throughput run at 100 items")
    parser.add_argument("--rate", type=_tens, default=500, help="events a second of a latency run")
    return parser.parse_args()


def _tens(text: str) -> int:
    if not text.isdecimal() or int(text) < 10 or int(text) % 10:
        raise argparse.ArgumentTypeError(f"{text}: a multiple of 10, as a file of lines comes every 0.1 s")
    return int(text)


def _some_of(known: tuple[str, ...]):
    def read(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: there are {', '.join(known)}")
        return chosen

    return read


def _pure(n_items: int, n_events: int = 4000) -> dict:
    """Measure one core of the functions alone, without Flink and a store."""
    config, lines = MNRConfig(), events(0, n_events, n_items, 200)
    for _ in range(2):  # the first time round compiles and fills the queues
        started = time.process_time()
        read = [read_event(line, config, 2**62) for line in lines]
        reading = time.process_time() - started
        queues: dict[int, bytes] = {}
        started = time.process_time()
        for event in read:
            queues[event.user_id], _ = insert(queues.get(event.user_id), event.visit, config)
            score(queues[event.user_id], config)
        scoring = time.process_time() - started
    return {
        "items": n_items,
        "events/s, queue and score": round(n_events / scoring),
        "with reading lines": round(n_events / (reading + scoring)),
    }


def _throughput(var: Path, url: str, flink, mode: str, n_items: int, n_events: int) -> dict:
    """Let a job catch up with a backlog."""
    print(f"throughput, {mode} mode, {n_items} items", file=sys.stderr, flush=True)
    n_events = n_events * 100 // n_items
    job = StreamingJob(var, f"{url}?prefix={var.name}", flink, MNRConfig(), mode=mode)
    job.start()
    try:
        warm = 20_000 * 100 // n_items
        for at in range(0, warm, 2000):
            job.send(events(at, 2000, n_items, 2000))
        _wait_for_visits(job, warm, 120)
        blocks = [events(at, 2000, n_items, 2000) for at in range(warm, warm + n_events, 2000)]
        cpu, started = job.task_cpu_seconds(), time.monotonic()
        for block in blocks:
            job.send(block)
        job.wait_for("written", 1, 60)
        _wait_for_visits(job, warm + 2000 * len(blocks), 280)
        cpu, wall = job.task_cpu_seconds() - cpu, time.monotonic() - started
        counters = job.counters()
    finally:
        job.end()
    n = 2000 * len(blocks)
    return _told(
        {
            "mode": mode,
            "items": n_items,
            "events": n,
            "CPU s": round(cpu, 1),
            "events per CPU s": round(n / cpu),
            "wall s": round(wall, 1),
            "events per wall s": round(n / wall),
            "lists written": counters["written"],
        }
    )


def _wait_for_visits(job: StreamingJob, n: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        counters = job.counters()
        if sum(counters.get(name, 0) for name in ("kept", "duplicate", "too_old")) >= n:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{counters} after {seconds} s")
        time.sleep(0.2)


def _latency(var: Path, url: str, client, flink, mode: str, rate: int) -> dict:
    """Send events at a rate; each has a user of its own, whose key Redis tells of."""
    print(f"latency, {mode} mode", file=sys.stderr, flush=True)
    prefix = var.name
    job = StreamingJob(var, f"{url}?prefix={prefix}", flink, MNRConfig(), mode=mode)
    job.start()
    written: dict[int, float] = {}
    told = client.pubsub(ignore_subscribe_messages=True)
    told.psubscribe(f"__keyspace@0__:{prefix}:list:*")
    done = threading.Event()

    def listen() -> None:
        while not done.is_set():
            message = told.get_message(timeout=0.2)
            if message:
                written.setdefault(int(message["channel"].rsplit(b":", 1)[1]), time.time())

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        per_file = round(rate * FILE_SECONDS)
        n = rate * LATENCY_SECONDS
        drawn = [json.loads(line) for line in events(0, n + 2000, 100, 2)]
        sent: dict[int, float] = {}
        for user in range(n, n + 2000):  # the first events compile
            drawn[user]["user_id"] = user
        job.send([json.dumps(values) for values in drawn[n:]])
        job.wait_for("kept", 2000, 120)
        time.sleep(2)
        started = time.time()
        for file in range(n // per_file):
            time.sleep(max(0.0, started + file * FILE_SECONDS - time.time()))
            values = drawn[file * per_file : (file + 1) * per_file]
            now = time.time()
            for place, each in enumerate(values):
                each["user_id"] = file * per_file + place
                each["event_time"] = round(now * 1e6)
                if file * FILE_SECONDS >= WARM_SECONDS:
                    sent[each["user_id"]] = now
            job.send([json.dumps(each) for each in values])
        deadline = time.time() + 20
        while not set(sent) <= set(written) and time.time() < deadline:
            time.sleep(0.1)
    finally:
        done.set()
        listener.join()
        job.end()
    missing = set(sent) - set(written)
    if missing:
        raise TimeoutError(f"{len(missing)} lists did not reach the store")
    delays = np.array([written[user] - sent[user] for user in sent])
    return _told(
        {
            "mode": mode,
            "events/s": rate,
            "events": len(sent),
            "p50 ms": round(1000 * float(np.percentile(delays, 50))),
            "p99 ms": round(1000 * float(np.percentile(delays, 99))),
            "max ms": round(1000 * float(delays.max())),
        }
    )


def _recovery(var: Path, url: str, flink, mode: str) -> list[dict]:
    """Kill each process in the middle of a stream; then stop, change alpha and go on."""
    rows, expected = [], Expected()
    job = StreamingJob(var, f"{url}?prefix={var.name}", flink, WHOLE_QUEUE, mode=mode)
    store = open_store(f"{url}?prefix={var.name}")
    job.start()
    try:
        _feed(job, expected, 0)
        _wait_until_exact(job, expected, store)
        for place, entry_point in enumerate(
            ("TaskManagerRunner", "StandaloneApplicationClusterEntryPoint"), 1
        ):
            print(f"recovery, kill -9 of {entry_point}", file=sys.stderr, flush=True)
            _feed(job, expected, 2000 * place, slowly=True)
            job.process(entry_point).kill()
            killed = time.monotonic()
            _feed(job, expected, 2000 * place + 1000, slowly=True)
            _wait_until_exact(job, expected, store)
            rows.append(_exact(f"kill -9 {entry_point}", killed, expected))
            time.sleep(10)
        print("recovery, savepoint and another alpha", file=sys.stderr, flush=True)
        started = time.monotonic()
        job.stop()
        job.config = WHOLE_QUEUE.model_copy(update={"alpha": 10.0})
        job.start()
        _feed(job, expected, 9000)
        _wait_until_exact(job, expected, store)
        rows.append(_exact("savepoint, alpha 50 to 10", started, expected))
    finally:
        job.end()
    return rows


def _exact(fault: str, since: float, expected: Expected) -> dict:
    seconds = round(time.monotonic() - since, 1)
    return _told({"fault": fault, "s until exact": seconds, "queues": len(expected.queues)})


def _told(row: dict) -> dict:
    """Show a row at once: a later part may fail."""
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def _feed(job: StreamingJob, expected: Expected, first: int, slowly: bool = False) -> None:
    """Send 1000 events at 100 items, slowly at 500 a second, and let the expectation take them."""
    lines = events(first, 1000, 100, RECOVERY_USERS)
    for at in range(0, 1000, 50):
        job.send(lines[at : at + 50])
        if slowly:
            time.sleep(0.1)
    expected.take(lines, job.config)


def _wait_until_exact(job: StreamingJob, expected: Expected, store) -> None:
    deadline = time.monotonic() + RECOVERY_LIMIT_SECONDS
    while differing := expected.differing(store, job.config):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(differing)} of {len(expected.queues)} queues differ: {differing[:5]}")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
