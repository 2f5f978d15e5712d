"""
What does a day's training take at Taobao-Small's shape, and does a step's cost grow with the catalogue?

    python -m benchmarks.training_large [--methods TB-Online IncRec] [--samples N] [--epochs N] [--threads 1]

Users click by power law, as in ``benchmarks.swing_clicks``; every few clicks of a user are one request, with
the user's clicks before it as history and some exposed items. Each method runs in a process of its own, to
the end of the way: tables -> training -> bytes -> a checkpoint partition -> representations of all items. CPU
seconds stand beside wall-clock seconds. The last line is one JSON object; it has no ratio.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import date
from itertools import pairwise

import numpy as np
import pyarrow as pa

from benchmarks.swing_clicks import Shape, _draw
from lakehouse.store import Lakehouse
from lakehouse.tables import CHECKPOINT
from models.increc.config import IncRecConfig
from models.increc.ragged import Ragged
from models.increc.training import train

DAY = date(2026, 1, 1)
TAOBAO_SMALL = Shape("taobao_small", 36_535, 2_900_000, 6_430_000, user_exponent=0.4)
CLICKS_PER_REQUEST = 5
EXPOSED_PER_REQUEST = 4
RETRIEVED_SHARE = 0.25
HISTORY_LENGTH = 200
CATALOGUES = (100_000, 1_000_000, 2_900_000)
STEPS_TIMED = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["TB-Online", "IncRec"])
    parser.add_argument("--epochs", type=int, default=IncRecConfig.model_fields["epochs"].default)
    parser.add_argument("--samples", type=int, help="at most so many requests; default: all")
    parser.add_argument("--optimizer-state", default="element_wise")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    given = {"n_threads": arguments.threads, "optimizer_state": arguments.optimizer_state}
    figures = {"shape": TAOBAO_SMALL.name, **given, "step_cpu_ms": {}, "methods": {}}
    for n_items in CATALOGUES:
        config = IncRecConfig(variant="TB-Online", epochs=2, **given)
        figures["step_cpu_ms"][n_items] = _apart(time_steps, config, n_items)
        print(f"{n_items} items: {figures['step_cpu_ms'][n_items]:.1f} ms CPU a step", flush=True)
    steps = list(figures["step_cpu_ms"].values())
    figures["step_growth"] = steps[-1] / steps[0]
    for method in arguments.methods:
        config = IncRecConfig(variant=method, epochs=arguments.epochs, **given)
        figures["methods"][method] = _apart(time_day, config, arguments.samples)
        for name, value in figures["methods"][method].items():
            print(f"{method:>10} {name:>24}  {value}", flush=True)
    print(json.dumps({"name": "training_large", "ratio": None, "figures": figures}))


def time_steps(config: IncRecConfig, n_items: int) -> float:
    """
    Give the CPU milliseconds of a step where the same requests lie in a larger catalogue.

    The same items are used, spread over the whole catalogue; the second epoch is timed.
    """
    n_samples = STEPS_TIMED * config.batch_size
    shape = Shape("steps", 5_000, CATALOGUES[0], n_samples * CLICKS_PER_REQUEST)
    samples, items, users = build_tables(shape, n_items)
    ends = []
    config = config.model_copy(update={"negatives": "uniform"})
    train(samples, items, users, config, device="cpu", on_epoch=lambda *_: ends.append(time.process_time()))
    return 1e3 * (ends[1] - ends[0]) / -(-len(samples) // config.batch_size)


def time_day(config: IncRecConfig, n_samples: int | None) -> dict[str, float]:
    """Go the whole way of a day; give seconds, and the peak of memory after each part of it."""
    figures: dict[str, float] = {}
    with _part("tables", figures):
        samples, items, users = build_tables(TAOBAO_SMALL, TAOBAO_SMALL.n_catalogue)
        samples = samples.slice(0, n_samples)
    ends = [time.perf_counter()]
    with _part("training", figures):
        model, report = train(
            samples, items, users, config, device="cpu", on_epoch=lambda *_: ends.append(time.perf_counter())
        )
    seconds = [end - start for start, end in pairwise(ends)]
    figures |= {
        "n_samples": report.n_samples,
        "n_targets": report.n_rtg + report.n_itg,
        "n_etg": report.n_etg,
    }
    figures |= {"n_steps": report.n_steps, "epoch_seconds": seconds, "losses": report.epoch_losses["total"]}
    figures["samples_per_second"] = report.n_samples * (config.epochs - 1) / sum(seconds[1:])
    with _part("to_bytes", figures):
        content = model.to_bytes()
    figures["model_bytes"] = len(content)
    with tempfile.TemporaryDirectory(prefix="tributary-bench-") as folder:
        lakehouse = Lakehouse(folder)
        with _part("checkpoint_write", figures):
            rows = pa.table({"name": ["model"], "content": pa.array([content], pa.large_binary())})
            lakehouse.replace(CHECKPOINT, DAY, rows, part="base")
        del content, rows
        with _part("checkpoint_read", figures):
            content = lakehouse.read(CHECKPOINT, DAY, part="base")["content"][0].as_py()
            model = type(model).from_bytes(content)
        del content
    with _part("embed_items", figures):
        vectors = model.embed_items(items)
    figures["vectors_bytes"] = vectors.nbytes
    return figures


def build_tables(shape: Shape, n_items: int) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Give samples, items and users; the shape's items are spread over a catalogue of ``n_items``."""
    generator = np.random.default_rng(0)
    item_of = generator.permutation(shape.n_catalogue) * (n_items // shape.n_catalogue) + 1
    user = np.sort(_draw(generator, shape.n_clicks, shape.n_users, shape.user_exponent, shape.offset))
    clicked = item_of[_draw(generator, len(user), shape.n_catalogue, shape.item_exponent, shape.offset)]
    first_click = np.searchsorted(user, user)
    starts = np.flatnonzero((np.arange(len(user)) - first_click) % CLICKS_PER_REQUEST == 0)
    n_clicks = np.diff(np.append(starts, len(user)))
    n_history = np.minimum(starts - first_click[starts], HISTORY_LENGTH)
    is_retrieved = generator.random(len(user)) < RETRIEVED_SHARE
    n_exposed = generator.poisson(EXPOSED_PER_REQUEST, len(starts))
    exposed = _draw(generator, n_exposed.sum(), shape.n_catalogue, shape.item_exponent, shape.offset)
    targets = Ragged.from_lengths(clicked, n_clicks)
    # The positions start - n .. start - 1 of each request, behind each other.
    history = np.arange(n_history.sum()) + np.repeat(starts - np.cumsum(n_history), n_history)
    samples = pa.table(
        {
            "request_id": np.arange(len(starts)),
            "user_id": user[starts],
            "event_time": np.full(len(starts), np.datetime64(DAY, "us")),
            "history_item_ids": _lists(Ragged.from_lengths(clicked[history], n_history)),
            "rtg_item_ids": _lists(targets.where(is_retrieved)),
            "itg_item_ids": _lists(targets.where(~is_retrieved)),
            "etg_item_ids": _lists(Ragged.from_lengths(item_of[exposed], n_exposed)),
        }
    )
    ids = np.arange(1, n_items + 1)
    features = {"category_id": ids % 9_439, "author_id": ids % 700_000, "brand_id": ids % 90_000}
    items = pa.table({"item_id": ids, "item_index": ids.astype(np.int32), **features})
    tokens = pa.array([f"age={n % 8}" for n in range(shape.n_users)])
    profile = pa.ListArray.from_arrays(np.arange(shape.n_users + 1, dtype=np.int32), tokens)
    users = pa.table({"user_id": np.arange(shape.n_users), "profile": profile})
    return samples, items, users


def _lists(rows: Ragged) -> pa.ListArray:
    return pa.ListArray.from_arrays(rows.offsets.astype(np.int32), rows.values)


def _apart(function, *arguments):
    """Run in a process of its own, so that one case's memory is not another's."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


@contextmanager
def _part(name: str, figures: dict[str, float]):
    started, cpu = time.perf_counter(), time.process_time()
    yield
    figures[f"{name}_cpu_seconds"] = time.process_time() - cpu
    figures[f"{name}_seconds"] = time.perf_counter() - started
    figures[f"{name}_peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
