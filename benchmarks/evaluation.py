"""
How fast is exact Hit@K over the whole catalogue beside RecBole's full-sort evaluation? Same vectors, one run.

    python -m benchmarks.evaluation [--items 7500,1000000] [--users 4500] [--ks 50,100,200,1000,4000]

Both get the same float32 vectors of width 64, leave out the same 50 history items of each user and measure
the mean share of a user's 3 targets among the first K. The last line is one JSON object whose ratio is
RecBole's seconds over ours at 1,000,000 items. RecBole runs in its own environment (`make bench-env`).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.arguments import at_least_one
from benchmarks.running import (
    RECBOLE_PYTHON,
    REPOSITORY,
    median_run,
    print_table,
    require_peers,
    run_apart,
)

RATIO_ITEMS = 1_000_000
DIM = 64
HISTORY_LENGTH = 50
N_TARGETS = 3
ITEMS_PER_CLUSTER = 250
LARGEST_DIFFERENCE = 1e-3  # of a Hit@K: the two sum float32 in another order, so that near ties may swap
COLUMNS = ("items", "users", "K", "method", "seconds", "CPU s", "MiB before", "peak MiB", "Hit@K", "x")


def main() -> None:
    """Measure, print the table, and the figures as the last line."""
    arguments = _arguments()
    figures, rows = {}, []
    with tempfile.TemporaryDirectory(prefix="tributary-bench-") as folder:
        for n_items in arguments.items:
            print(f"{n_items} items", file=sys.stderr, flush=True)
            file = Path(folder) / "vectors.npz"
            np.savez(file, **_world(arguments.users, n_items, arguments.seed))
            figures[n_items] = _measure(n_items, file, arguments)
            rows += _rows(n_items, figures[n_items], arguments)
    print_table(COLUMNS, rows)
    at_ratio = figures.get(RATIO_ITEMS, {})
    ratio = at_ratio["recbole"]["seconds"] / at_ratio["ours"]["seconds"] if "recbole" in at_ratio else None
    given = {name: getattr(arguments, name) for name in ("users", "ks", "threads", "rounds")}
    print(json.dumps({"name": "evaluation", "ratio": ratio, **given, "figures": figures}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--items", type=_several, default="7500,1000000", help="sizes of the catalogue")
    parser.add_argument("--users", type=at_least_one, default=4500)
    parser.add_argument("--ks", type=_several, default="50,100,200,1000,4000", help="list lengths K")
    parser.add_argument("--threads", type=at_least_one, default=2, help="threads of each method")
    parser.add_argument(
        "--peer-users", type=at_least_one, help="users in a batch of RecBole's; default: 64 million scores"
    )
    parser.add_argument(
        "--rounds", type=at_least_one, default=3, help="runs of each, in turns; the median counts"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    arguments = parser.parse_args()
    if not arguments.no_peers:
        require_peers(parser, RECBOLE_PYTHON)
    fewest = max(arguments.ks) + HISTORY_LENGTH
    if (given := min(arguments.items)) < fewest:
        parser.exit(2, f"{given} items are too few for K = {max(arguments.ks)}: give {fewest} or more\n")
    return arguments


def _several(text: str) -> list[int]:
    return [at_least_one(part) for part in text.split(",")]


def _world(n_users: int, n_items: int, seed: int) -> dict[str, np.ndarray]:
    """
    Draw clustered items, users near one cluster, and what each has used and will use, most of it from there.

    ``users`` [n, d] and ``items`` [I, d] float32; ``history`` [n, 50] and ``targets`` [n, 3] are item rows, a
    user's all distinct. Item row r has id r + 1: RecBole's id 0 is kept for padding.
    """
    generator = np.random.default_rng(seed)
    n_clusters = max(2, n_items // ITEMS_PER_CLUSTER)
    centres = generator.normal(size=(n_clusters, DIM)).astype(np.float32)
    cluster = np.sort(generator.integers(0, n_clusters, n_items))
    items = centres[cluster] + generator.normal(size=(n_items, DIM), scale=1.5).astype(np.float32)
    liked = cluster[generator.integers(0, n_items, n_users)]
    users = centres[liked] + generator.normal(size=(n_users, DIM), scale=1.5).astype(np.float32)
    used = np.empty((n_users, HISTORY_LENGTH + N_TARGETS), np.int64)
    for user, own in enumerate(liked):
        near = np.arange(*np.searchsorted(cluster, [own, own + 1]))
        near = generator.permutation(near)[: used.shape[1] // 2]
        anywhere = np.setdiff1d(generator.choice(n_items, 4 * used.shape[1]), near)
        anywhere = generator.permutation(anywhere)[: used.shape[1] - len(near)]
        used[user] = generator.permutation(np.concatenate([near, anywhere]))
    return {"users": users, "items": items, "history": used[:, N_TARGETS:], "targets": used[:, :N_TARGETS]}


def _measure(n_items: int, vectors: Path, arguments: argparse.Namespace) -> dict[str, dict]:
    """Run both, in turns, and give the medians of their figures and how far their hits differ."""
    ks = ",".join(map(str, arguments.ks))
    given = [str(vectors), ks, str(arguments.threads)]
    methods = {"ours": [sys.executable, "-m", "benchmarks.evaluation_ours", *given]}
    if not arguments.no_peers:
        batch = arguments.peer_users or max(1, min(arguments.users, 64_000_000 // n_items))
        script = str(REPOSITORY / "benchmarks" / "evaluation_recbole.py")
        methods["recbole"] = [str(RECBOLE_PYTHON), script, *given, str(batch)]
    runs = {method: [] for method in methods}
    for _ in range(arguments.rounds):
        for method, command in methods.items():
            runs[method].append(run_apart(command))
    medians = {method: median_run(figures) for method, figures in runs.items()}
    if "recbole" in medians:
        ours, theirs = (np.array(medians[method]["hits"]) for method in ("ours", "recbole"))
        medians["recbole"]["largest_difference_of_hits"] = difference = float(np.abs(ours - theirs).max())
        if difference > LARGEST_DIFFERENCE:
            raise SystemExit(f"the hits differ by {difference}: ours {ours}, RecBole's {theirs}")
    return medians


def _rows(n_items: int, methods: dict[str, dict], arguments: argparse.Namespace) -> list[tuple]:
    return [
        (
            n_items,
            arguments.users,
            max(arguments.ks),
            method,
            f"{figures['seconds']:.2f}",
            f"{figures['cpu_seconds']:.2f}",
            f"{figures['before_mib']:.0f}",
            f"{figures['peak_mib']:.0f}",
            f"{figures['hits'][-1]:.5f}",
            f"{figures['seconds'] / methods['ours']['seconds']:.1f}",
        )
        for method, figures in methods.items()
    ]


if __name__ == "__main__":
    main()
