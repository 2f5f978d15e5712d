"""
Is our base tower level with torch-rechub's where each is tuned a little, with equal effort?

    python -m benchmarks.training_tuned [--kuairand FOLDER] [--model mind] [--negatives 100] [--epochs 3]

Each method trains with four settings, two learning rates by two temperatures around its default, and one seed
on the days before the validation day, the last but one; the setting and epoch of the highest Hit@100 there is
then trained with other seeds on the days before the held-out day and measured on that. Same samples, epochs,
batch and dimensions. N is per batch and shared in ours, per sample in torch-rechub's; ``--our-negatives``
gives ours another N. The last line is one JSON object whose ratio is our mean Hit@100 over torch-rechub's.
"""

import argparse
import json
import os
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.arguments import KUAIRAND_LOG, at_least_one
from benchmarks.running import PEERS_PYTHON, REPOSITORY, print_table, require_peers, run_apart
from benchmarks.training import K, measure_hit_rate
from benchmarks.training_samples import KUAIRAND_PAST, Log, kuairand_log, make_samples, synthetic_log

COMMANDS = {
    "ours": [sys.executable, "-m", "benchmarks.training_ours"],
    "torch-rechub": [str(PEERS_PYTHON), str(REPOSITORY / "benchmarks" / "training_rechub.py")],
}
LEARNING_RATES = {"ours": (0.05, 0.15), "torch-rechub": (1e-3, 3e-3)}
TEMPERATURES = (0.1, 0.2)
MODELS = ("youtubednn", "comirec", "mind")
COLUMNS = ("method", "N", "learning rate", "temperature", "epoch", "validation", f"Hit@{K}", "of the seeds")


def main() -> None:
    """Tune, measure, print the table, and the figures as the last line."""
    arguments = _arguments()
    log = kuairand_log(Path(arguments.kuairand)) if arguments.kuairand else synthetic_log(seed=0)
    parts = {"tuning": make_samples(before_last_day(log)), "final": make_samples(log)}
    figures, rows = {}, []
    with tempfile.TemporaryDirectory(prefix="tributary-bench-") as folder:
        for name, samples in parts.items():
            np.savez(Path(folder) / f"{name}.npz", **samples)
        for method in COMMANDS:
            figures[method] = _measure(method, parts, Path(folder), arguments)
            rows.append(_row(method, figures[method]))
    print_table(COLUMNS, rows)
    means = {method: float(np.mean(of_method["hits"])) for method, of_method in figures.items()}
    ratio = means["ours"] / means["torch-rechub"]
    print(json.dumps({"name": "training_tuned", "ratio": ratio, **vars(arguments), "figures": figures}))


def before_last_day(log: Log) -> Log:
    """Leave the held-out day out, so that the day before is the last."""
    is_kept = log.day < log.day.max()
    return Log(log.user[is_kept], log.item[is_kept], log.day[is_kept], log.past)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="youtubednn")
    parser.add_argument("--kuairand", default=os.environ.get("TRIBUTARY_BENCH_KUAIRAND"), help="its folder")
    parser.add_argument("--negatives", type=at_least_one, default=100, help="N")
    parser.add_argument("--our-negatives", type=at_least_one, help="N of ours; default the same")
    parser.add_argument("--epochs", type=at_least_one, default=3, help="at most")
    parser.add_argument("--seeds", type=at_least_one, default=3, help="runs of the chosen setting")
    parser.add_argument("--threads", type=at_least_one, default=1)
    arguments = parser.parse_args()
    for name in (KUAIRAND_LOG, KUAIRAND_PAST) if arguments.kuairand else ():
        if not (Path(arguments.kuairand) / name).exists():
            parser.exit(2, f"there is no {Path(arguments.kuairand) / name}\n")
    require_peers(parser, PEERS_PYTHON)
    return arguments


def _measure(method: str, parts: dict, folder: Path, arguments: argparse.Namespace) -> dict:
    """Choose a setting and an epoch on the validation day; give other seeds' Hit@100 on the day after."""
    n_negatives = arguments.negatives
    if method == "ours":
        n_negatives = arguments.our_negatives or n_negatives
    tried = []
    for learning_rate, temperature in product(LEARNING_RATES[method], TEMPERATURES):
        given = {"learning_rate": learning_rate, "temperature": temperature, "negatives": n_negatives}
        hits = _hits(method, "tuning", given | {"seed": 0}, parts, folder, arguments)
        tried.append({**given, "epoch": 1 + int(np.argmax(hits)), "validation": max(hits)})
        print(f"{method}: {tried[-1]}", file=sys.stderr, flush=True)
    best = max(tried, key=lambda setting: setting["validation"])
    hits = [
        _hits(method, "final", best | {"seed": seed}, parts, folder, arguments)[best["epoch"] - 1]
        for seed in range(1, arguments.seeds + 1)
    ]
    print(f"{method}: {hits}", file=sys.stderr, flush=True)
    return {"tried": tried, "best": best, "hits": hits}


def _hits(
    method: str, name: str, given: dict, parts: dict, folder: Path, arguments: argparse.Namespace
) -> list[float]:
    """Train on a part's samples; give the Hit@100 on its held-out day after each epoch."""
    options = {"dim": 64, "hidden_dim": 128, "batch": 512, "drawn": "in_batch", **given}
    options |= {"epochs": arguments.epochs, "threads": arguments.threads}
    with tempfile.TemporaryDirectory(prefix="tributary-bench-") as vectors:
        file = str(folder / f"{name}.npz")
        run_apart([*COMMANDS[method], file, arguments.model, json.dumps(options), vectors])
        epochs = range(1, arguments.epochs + 1)
        return [measure_hit_rate(Path(vectors) / f"{epoch}.npz", parts[name]) for epoch in epochs]


def _row(method: str, figures: dict) -> tuple:
    best, hits = figures["best"], figures["hits"]
    shown = (best["negatives"], best["learning_rate"], best["temperature"], best["epoch"])
    of_seeds = ", ".join(f"{hit:.3f}" for hit in hits)
    return (method, *shown, f"{best['validation']:.3f}", f"{np.mean(hits):.3f}", of_seeds)


if __name__ == "__main__":
    main()
