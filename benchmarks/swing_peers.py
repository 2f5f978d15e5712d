"""
What does a peer take on the same clicks? Runs in the peers' own environment (`make bench-env`).

    python swing_peers.py recfarm|implicit CLICKS.npz ALPHA T N_THREADS [ROWS.npz]

Prints one JSON object. Only the peer's own computation is timed, not the making of its inputs.
"""

import gzip
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import scipy.sparse

HEADER_BYTES = 36  # of recfarm's saved index: top_k, alpha, cache size, users, items


def main(
    peer: str, clicks_file: str, alpha: str, truncation: str, n_threads: str, rows_file: str = ""
) -> None:
    """Run the peer, print the figures, and keep its scores where a file is named."""
    with np.load(clicks_file) as arrays:
        user, item = arrays["user"], arrays["item"]
    shape = (int(user.max()) + 1, int(item.max()) + 1)
    clicks = scipy.sparse.csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=shape)
    clicks.data[:] = 1
    clicks.sort_indices()
    run = {"recfarm": _recfarm, "implicit": _implicit}[peer]
    run(clicks, float(alpha), int(truncation), int(n_threads), rows_file)


def _recfarm(clicks, alpha: float, truncation: int, n_threads: int, rows_file: str) -> None:
    """
    Run recfarm's Swing.

    It adds each unordered pair of users once and leaves the trigger out of |Iu ∩ Iv|: with its alpha one
    higher, its scores are half of ours. It keeps every target and truncates when it answers.
    """
    import recfarm

    consumed = {
        u: clicks.indices[clicks.indptr[u] : clicks.indptr[u + 1]].tolist() for u in range(clicks.shape[0])
    }
    by_item = clicks.T.tocsr()
    by_item.sort_indices()
    swing = recfarm.Swing(
        truncation, alpha + 1, 100_000_000, *clicks.shape, _Lists(clicks), _Lists(by_item), consumed, 0.0
    )
    figures = _measure(lambda: swing.compute_swing(n_threads))
    if rows_file:
        _save_scores(recfarm, swing, rows_file)
    print(json.dumps({**figures, "n_rows": swing.num_swing_elements()}))


def _implicit(clicks, alpha: float, truncation: int, n_threads: int, rows_file: str) -> None:
    """Run implicit's item-item cosine, a simpler measure: one product of sparse matrices, top T kept."""
    from implicit.nearest_neighbours import CosineRecommender

    model = CosineRecommender(K=truncation, num_threads=n_threads)
    figures = _measure(lambda: model.fit(clicks, show_progress=False))
    print(json.dumps({**figures, "n_rows": int(model.similarity.nnz)}))


class _Lists:
    """A sparse matrix under the names that recfarm reads."""

    def __init__(self, matrix):
        self.sparse_indices = matrix.indices.tolist()
        self.sparse_indptr = matrix.indptr.tolist()
        self.sparse_data = matrix.data.tolist()


def _measure(run) -> dict[str, float]:
    started, cpu = time.perf_counter(), time.process_time()
    run()
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _save_scores(recfarm, swing, rows_file: str) -> None:
    """Read the scores from the file that recfarm saves: item, count, then (item, float32) for each item."""
    with tempfile.TemporaryDirectory() as folder:
        recfarm.save_swing(swing, folder, "swing")
        content = gzip.decompress((Path(folder) / "swing.gz").read_bytes())
    pair = np.dtype([("target", "<i4"), ("score", "<f4")])
    n_triggers = int(np.frombuffer(content, "<u8", 1, HEADER_BYTES)[0])
    place = HEADER_BYTES + 8
    triggers, pairs = [], []
    for _ in range(n_triggers):
        trigger = int(np.frombuffer(content, "<i4", 1, place)[0])
        n = int(np.frombuffer(content, "<u8", 1, place + 4)[0])
        triggers.append(np.full(n, trigger))
        pairs.append(np.frombuffer(content, pair, n, place + 12))
        place += 12 + n * pair.itemsize
    rows = np.concatenate(pairs)
    np.savez(rows_file, trigger=np.concatenate(triggers), target=rows["target"], score=rows["score"])


if __name__ == "__main__":
    main(*sys.argv[1:])
