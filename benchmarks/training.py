"""
How fast does training learn beside torch-rechub and RecBole? Same samples, same sizes, one run.

    python -m benchmarks.training [--models youtubednn,dssm] [--kuairand FOLDER] [--epochs 5] [--rounds 1]

Samples are those of `benchmarks.training_samples`: of the synthetic world, or of KuaiRand's real days. After
each epoch the vectors of all methods are searched and measured in the same way on the held-out day, outside
the time that counts. ``s to equal`` is when a method first reaches the Hit@100 that both it and ours reach.
The last line is one JSON object whose ratio is our samples per second over torch-rechub's for YoutubeDNN.
Peers run in environments of their own (`make bench-env`); docs/benchmarks.md says what differs.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.arguments import KUAIRAND_LOG, at_least_one
from benchmarks.running import (
    PEERS_PYTHON,
    RECBOLE_PYTHON,
    REPOSITORY,
    print_table,
    require_peers,
    run_apart,
)
from benchmarks.training_samples import KUAIRAND_PAST, kuairand_log, make_samples, synthetic_log
from models.increc import backbones
from models.metrics import hit_rate, target_ranks
from models.search import exact_top_k

K = 100
PEERS = {
    "youtubednn": ("torch-rechub",),
    "dssm": ("torch-rechub",),
    "sasrec": ("torch-rechub", "RecBole"),
    "comirec": ("torch-rechub",),
    "mind": ("torch-rechub",),
}
RATIO_MODEL = "youtubednn"
COLUMNS = (
    "model",
    "method",
    "samples/s",
    "CPU s/epoch",
    "peak MiB",
    "parameters",
    f"Hit@{K}",
    "of epoch",
    "s to equal",
    "x samples/s",
)


def main() -> None:
    """Measure, print the table, and the figures as the last line."""
    arguments = _arguments()
    log = kuairand_log(Path(arguments.kuairand)) if arguments.kuairand else synthetic_log(seed=arguments.seed)
    samples = make_samples(log)
    sizes = {
        "samples": len(samples["target"]),
        "items": int(samples["n_items"]),
        "candidates": len(samples["candidates"]),
        "held-out users": len(samples["test_targets_offsets"]) - 1,
    }
    print(", ".join(f"{size} {name}" for name, size in sizes.items()), file=sys.stderr, flush=True)
    figures, rows = {}, []
    with tempfile.TemporaryDirectory(prefix="tributary-bench-") as folder:
        file = Path(folder) / "samples.npz"
        np.savez(file, **samples)
        for model in arguments.models:
            figures[model] = _measure(model, file, samples, arguments)
            rows += _rows(model, figures[model])
    print_table(COLUMNS, rows)
    of_ratio = figures.get(RATIO_MODEL, {})
    ratio = None
    if "torch-rechub" in of_ratio:
        ratio = of_ratio["ours"]["samples_per_second"] / of_ratio["torch-rechub"]["samples_per_second"]
    print(
        json.dumps({"name": "training", "ratio": ratio, **sizes, **_options(arguments), "figures": figures})
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    known = [model for model in PEERS if model in backbones.names()]
    parser.add_argument("--models", default=",".join(known), help=f"of {', '.join(known)}")
    parser.add_argument("--kuairand", default=os.environ.get("TRIBUTARY_BENCH_KUAIRAND"), help="its folder")
    parser.add_argument("--epochs", type=at_least_one, default=5)
    parser.add_argument("--batch", type=at_least_one, default=512, help="samples per step")
    parser.add_argument("--dim", type=at_least_one, default=64)
    parser.add_argument("--hidden-dim", type=at_least_one, default=128, help="hidden layer of the MLPs")
    parser.add_argument("--negatives", type=at_least_one, default=500, help="N")
    parser.add_argument(
        "--drawn", choices=("in_batch", "uniform", "mixed"), default="in_batch", help="how ours draws them"
    )
    parser.add_argument("--threads", type=at_least_one, default=2, help="threads of each method")
    parser.add_argument(
        "--rounds", type=at_least_one, default=1, help="runs of each, in turns; the median counts"
    )
    parser.add_argument("--temperature", type=float, default=0.2, help="of ours and of torch-rechub's models")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    arguments = parser.parse_args()
    arguments.models = [model for model in arguments.models.split(",") if model]
    if unknown := sorted(set(arguments.models) - set(known)):
        parser.exit(2, f"unknown models: {', '.join(unknown)}; there are {', '.join(known)}\n")
    for name in (KUAIRAND_LOG, KUAIRAND_PAST) if arguments.kuairand else ():
        if not (Path(arguments.kuairand) / name).exists():
            parser.exit(2, f"there is no {Path(arguments.kuairand) / name}\n")
    if not arguments.no_peers:
        require_peers(parser, PEERS_PYTHON, *[RECBOLE_PYTHON] * ("sasrec" in arguments.models))
    return arguments


def _options(arguments: argparse.Namespace) -> dict:
    names = (
        "dim",
        "hidden_dim",
        "negatives",
        "drawn",
        "epochs",
        "batch",
        "threads",
        "seed",
        "temperature",
    )
    return {name: getattr(arguments, name) for name in names}


def _measure(model: str, file: Path, samples: dict[str, np.ndarray], arguments) -> dict[str, dict]:
    """Run ours and the peers, in turns, and give their figures."""
    commands = {"ours": [sys.executable, "-m", "benchmarks.training_ours"]}
    scripts = {
        "torch-rechub": [str(PEERS_PYTHON), str(REPOSITORY / "benchmarks" / "training_rechub.py")],
        "RecBole": [str(RECBOLE_PYTHON), str(REPOSITORY / "benchmarks" / "training_recbole.py")],
    }
    commands |= {peer: scripts[peer] for peer in ([] if arguments.no_peers else PEERS[model])}
    runs = {method: [] for method in commands}
    for _ in range(arguments.rounds):
        for method, command in commands.items():
            print(f"{model}: {method}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="tributary-bench-") as folder:
                given = [str(file), model, json.dumps(_options(arguments)), folder]
                figures = run_apart(command + given)
                figures["hits"] = [
                    measure_hit_rate(Path(folder) / f"{epoch}.npz", samples)
                    for epoch in range(1, arguments.epochs + 1)
                ]
            runs[method].append(figures)
    methods = {method: _median(of_method) for method, of_method in runs.items()}
    for figures in methods.values():
        equal = min(max(figures["hits"]), max(methods["ours"]["hits"]))
        figures["equal_hit"] = equal
        figures["seconds_to_equal"] = _seconds_to(equal, figures)
        figures["seconds_of_ours_to_equal"] = _seconds_to(equal, methods["ours"])
    return methods


def _median(runs: list[dict]) -> dict:
    """Give the run of median speed. An epoch's time is the median of its run, the first left out."""
    for figures in runs:
        lengths = np.diff(figures["ends"]) if len(figures["ends"]) > 1 else figures["ends"]
        figures["samples_per_second"] = figures["n_samples"] / float(np.median(lengths))
    middle = sorted(runs, key=lambda figures: figures["samples_per_second"])[len(runs) // 2]
    return {**middle, "all_samples_per_second": [figures["samples_per_second"] for figures in runs]}


def _seconds_to(hit: float, figures: dict) -> float:
    return next(end for end, reached in zip(figures["ends"], figures["hits"], strict=True) if reached >= hit)


def measure_hit_rate(vectors: Path, samples: dict[str, np.ndarray]) -> float:
    """Measure the macro Hit@100 of vectors on the held-out day, histories excluded."""
    with np.load(vectors) as arrays:
        users, items = arrays["users"], arrays["items"]
    history, targets = _lists(samples, "test_history"), _lists(samples, "test_targets")
    candidates = samples["candidates"]
    found = exact_top_k(users, items[candidates - 1], candidates, K, exclude=history)
    # a target that nobody has had yet is -1, as is the padding of a list: keep the two apart
    found[found < 0] = -2
    return hit_rate(target_ranks(found, targets), targets, K, n_resamples=1).value


def _lists(arrays: dict[str, np.ndarray], name: str) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(arrays[f"{name}_offsets"], pa.int32()), pa.array(arrays[name]))


def _rows(model: str, methods: dict[str, dict]) -> list[tuple]:
    ours = methods["ours"]
    return [
        (
            model,
            method,
            f"{figures['samples_per_second']:.0f}",
            f"{figures['cpu_seconds'] / len(figures['ends']):.2f}",
            f"{figures['peak_mib']:.0f}",
            figures["n_parameters"],
            f"{max(figures['hits']):.4f}",
            1 + int(np.argmax(figures["hits"])),
            f"{figures['seconds_to_equal']:.1f}"
            + ("" if method == "ours" else f" (ours {figures['seconds_of_ours_to_equal']:.1f})"),
            f"{ours['samples_per_second'] / figures['samples_per_second']:.2f}",
        )
        for method, figures in methods.items()
    ]


if __name__ == "__main__":
    main()
