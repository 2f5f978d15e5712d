"""
How long is it from a click to fresh candidates in the cache, and how long does a read take meanwhile?

    python -m benchmarks.nearline [--candidates 20000] [--rate 20] [--seconds 60] [--workers 1]

The worker is the process of `make nearline`. Clicks of users in turn are sent at a rate, stamped with the
time at which they are sent; a reader looks at the lists of the users who wait, every few milliseconds, until
each reflects the click. Those are the reads that are timed, and as many of users drawn at random. Redis
takes clicks by a stream, and any number of workers; SQLite by a file, and one. The last line is one JSON
object; there is no peer, so its ratio is null.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import redis

from benchmarks.arguments import at_least_one
from benchmarks.nearline_world import N_TRIGGER_ITEMS, publish_world
from benchmarks.running import REPOSITORY, print_table
from nearline.click_source import open_click_source
from nearline.click_worker import LIST_NAME
from nearline.clicks import Click
from nearline.store import Candidates, open_store

N_USERS = 400
K = 500
WARM_UP_CLICKS = 20
POLL_SECONDS = 0.002
START_SECONDS, LATE_SECONDS = 120, 30
LIMITS = {"click_to_cache_ms_p99": 200, "read_ms_p99": 5}
COLUMNS = ("store", "candidates", "clicks/s", "clicks", "p50 ms", "p99 ms", "reads", "p50 ms", "p99 ms")


def main() -> None:
    """Measure each store, print the table, and the figures as the last line."""
    arguments = _arguments()
    figures = {}
    with tempfile.TemporaryDirectory(prefix="tributary-bench-") as folder:
        var = Path(folder)
        publish_world(var / "releases", arguments.candidates, N_USERS, arguments.seed)
        for store in arguments.stores:
            print(f"{store}: {arguments.candidates} candidates", file=sys.stderr, flush=True)
            figures[store] = _measure(store, var, arguments)
    print_table(COLUMNS, [_row(store, told, arguments) for store, told in figures.items()])
    given = {
        name: getattr(arguments, name)
        for name in ("candidates", "rate", "seconds", "workers", "threads", "seed")
    }
    print(json.dumps({"name": "nearline", "ratio": None, **given, "limits": LIMITS, "figures": figures}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--candidates", type=at_least_one, default=20_000, help="candidates of a user")
    parser.add_argument("--rate", type=at_least_one, default=20, help="clicks a second")
    parser.add_argument("--seconds", type=at_least_one, default=60, help="how long clicks are sent to each")
    parser.add_argument("--workers", type=at_least_one, default=1, help="workers, where clicks are a stream")
    parser.add_argument("--threads", type=at_least_one, default=2, help="threads of scoring")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379/0", help="a Redis to use")
    parser.add_argument("--stores", type=lambda text: text.split(","), default=["redis", "sqlite"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if unknown := set(arguments.stores) - {"redis", "sqlite"}:
        parser.exit(2, f"unknown stores: {', '.join(sorted(unknown))}; there are redis and sqlite\n")
    if arguments.candidates < 1000:
        parser.exit(2, "fewer than 1000 candidates cannot be arranged\n")
    if "redis" in arguments.stores:
        try:
            with closing(redis.Redis.from_url(arguments.redis)) as client:
                client.ping()
        except (redis.RedisError, ValueError) as error:
            parser.exit(2, f"no Redis at {arguments.redis} ({error}): give --redis, or --stores sqlite\n")
    return arguments


def _measure(store: str, var: Path, arguments: argparse.Namespace) -> dict[str, float]:
    prefix = f"bench-{os.getpid()}"
    if store == "redis":
        store_url = clicks_url = f"{arguments.redis}?prefix={prefix}"
    else:
        store_url, clicks_url = f"sqlite:///{var}/online.db", (var / "clicks.jsonl").as_uri()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TRIBUTARY_")},
        "TRIBUTARY_VAR": str(var),
        "TRIBUTARY_ONLINE_STORE_URL": store_url,
        "TRIBUTARY_NEARLINE__CLICKS_URL": clicks_url,
        "TRIBUTARY_NEARLINE__K": str(K),
        "TRIBUTARY_NEARLINE__N_THREADS": str(arguments.threads),
    }
    command = [sys.executable, "-m", "services.click_worker"]
    log, n_workers = var / f"{store}.log", arguments.workers if store == "redis" else 1
    workers: list[subprocess.Popen] = []
    try:
        with log.open("wb") as output:
            for _ in range(n_workers):
                workers.append(
                    subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output)
                )
        return _drive(store_url, clicks_url, workers, log, arguments)
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(START_SECONDS)
        if store == "redis":
            _empty(arguments.redis, prefix)


def _drive(
    store_url: str, clicks_url: str, workers: list[subprocess.Popen], log: Path, arguments: argparse.Namespace
) -> dict[str, float]:
    generator = np.random.default_rng(arguments.seed)
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_store(store_url)))
        source = stack.enter_context(closing(open_click_source(clicks_url, worker="bench")))
        waiting: dict[int, Click] = {}
        clicks: list[float] = []
        reads: list[float] = []

        def send(user: int) -> None:
            click = Click(user, int(generator.integers(N_TRIGGER_ITEMS)), time.time_ns() // 1000)
            waiting[user] = click
            source.send([click])

        def read(user: int) -> Candidates | None:
            started = time.perf_counter()
            found = store.read(LIST_NAME, user)
            reads.append(time.perf_counter() - started)
            return found

        def look() -> None:
            """Read the users who wait, and as many others; note who has got a list."""
            for user, click in list(waiting.items()):
                found = read(user)
                if found and _microseconds(found) >= click.event_time:
                    clicks.append(time.time() - click.event_time / 1e6)
                    del waiting[user]
                read(int(generator.integers(N_USERS)))
            if any(worker.poll() is not None for worker in workers):
                raise SystemExit(f"a worker has ended:\n{log.read_text()[-2000:]}")
            time.sleep(POLL_SECONDS)

        _wait_until_ready(log, len(workers))
        for user in range(WARM_UP_CLICKS):
            send(user)
            until = time.monotonic() + START_SECONDS
            while waiting and time.monotonic() < until:
                look()
        if waiting:
            raise SystemExit(f"the worker does not answer:\n{log.read_text()[-2000:]}")
        clicks.clear()
        reads.clear()
        n_clicks = arguments.rate * arguments.seconds
        started = time.monotonic()
        for at in range(n_clicks):
            while time.monotonic() < started + at / arguments.rate:
                look()
            send(at % N_USERS)
        until = time.monotonic() + LATE_SECONDS
        while waiting and time.monotonic() < until:
            look()
        if waiting:
            raise SystemExit(f"{len(waiting)} clicks were not answered in {LATE_SECONDS} s")
    return {
        "n_clicks": len(clicks),
        **_quantiles("click_to_cache_ms", clicks),
        "n_reads": len(reads),
        **_quantiles("read_ms", reads),
    }


def _wait_until_ready(log: Path, n_workers: int) -> None:
    until = time.monotonic() + START_SECONDS
    while log.read_text().count("scores") < n_workers:
        if time.monotonic() > until:
            raise SystemExit(f"the workers do not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def _microseconds(found: Candidates) -> int:
    return int(np.datetime64(found.event_time, "us").astype(np.int64))


def _quantiles(name: str, seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1000
    return {f"{name}_p50": round(float(p50), 3), f"{name}_p99": round(float(p99), 3)}


def _row(store: str, told: dict[str, float], arguments: argparse.Namespace) -> tuple:
    clicks, reads = (
        [told[f"n_{what}"], *(f"{told[f'{name}_ms_{share}']:.1f}" for share in ("p50", "p99"))]
        for what, name in (("clicks", "click_to_cache"), ("reads", "read"))
    )
    return (store, arguments.candidates, arguments.rate, *clicks, *reads)


def _empty(url: str, prefix: str) -> None:
    with closing(redis.Redis.from_url(url)) as client:
        for key in client.scan_iter(f"{prefix}:*", count=1000):
            client.unlink(key)


if __name__ == "__main__":
    main()
