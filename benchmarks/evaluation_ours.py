"""
What does one evaluation of ours take? Run in a process of its own, so that its peak memory is its own.

    python -m benchmarks.evaluation_ours VECTORS.npz K,K,.. N_THREADS

Prints one JSON object. A small search comes first: loading the compiled kernels is not part of it.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.metrics import hit_rate, target_ranks
from models.search import exact_top_k


def main(vectors_file: str, ks: str, n_threads: str) -> None:
    """Evaluate and print the figures."""
    with np.load(vectors_file) as arrays:
        users, items = arrays["users"], arrays["items"]
        history, targets = _lists(arrays["history"] + 1), _lists(arrays["targets"] + 1)
    ks, n_threads = [int(k) for k in ks.split(",")], int(n_threads)
    _evaluate(users[:8], items[:2000], history[:8], targets[:8], [1], n_threads)
    before = _peak_mib()
    started, cpu = time.perf_counter(), time.process_time()
    hits = _evaluate(users, items, history, targets, ks, n_threads)
    figures = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps({**figures, "before_mib": before, "peak_mib": _peak_mib(), "hits": hits}))


def _evaluate(users, items, history, targets, ks: list[int], n_threads: int) -> list[float]:
    ids = np.arange(1, len(items) + 1)
    found = exact_top_k(users, items, ids, max(ks), exclude=history, n_threads=n_threads)
    ranks = target_ranks(found, targets)
    return [hit_rate(ranks, targets, k, n_resamples=1).value for k in ks]


def _lists(ids: np.ndarray) -> pa.ListArray:
    offsets = pa.array(np.arange(0, ids.size + 1, ids.shape[1]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(ids.reshape(-1)))


def _peak_mib() -> float:
    """Read the most that this program has held; getrusage would tell of the one that started it too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
