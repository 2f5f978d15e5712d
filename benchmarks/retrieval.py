"""
How many of what users click next does PI2I hold at large K, beside RecBole's SASRec, LightGCN and CORE?

    python -m benchmarks.retrieval --var FOLDER --day DAY [--to DAY] [--models core] [--seeds 0,1]

HR@K (PI2I Eq. 5) on days of a state folder that were run, as the daily evaluation measures it: the same
users, targets, catalogue and intervals for all. All learn once, from the days of the window before the first
one. A peer's number of epochs is chosen on the last of these, with a training that stops the day before; then
it learns anew, that day included. The last line is one JSON object whose ratio is PI2I's HR@100 over that of
the best peer, means of the seeds. RecBole runs in its own environment (`make bench-env`).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.arguments import at_least_one, check_paths, iso_day
from benchmarks.retrieval_split import Vocabulary, asked_arrays, learned_arrays
from benchmarks.retrieval_tables import JUDGED_K, KS, OURS, lead_of_ours, print_tables
from benchmarks.running import RECBOLE_PYTHON, require_peers, run_shown
from lakehouse import tables
from lakehouse.store import Lakehouse, MissingPartition
from models.metrics import hit_rate, paired_difference, target_ranks
from models.pi2i.training import train
from tasks.channels import Catalogue, read_catalogue, score_candidates
from tasks.days import ONE_DAY, day_range
from tasks.evaluate import Behaviour, read_behaviour
from tasks.pi2i_samples import draw_day, read_new_clicks
from tasks.settings import BadSettings, Settings, load_settings
from tasks.train import is_warming_up, read_items, training_days

# What differs from RecBole's defaults.
PEERS = {
    "lightgcn": ("LightGCN", {"learning_rate": 0.01, "train_batch_size": 32_768}),
    "core": ("CORE", {"train_batch_size": 512}),
    "sasrec": ("SASRec", {"train_batch_size": 512}),
}


@dataclass(frozen=True)
class Asked:
    """A day whose lists are asked for."""

    catalogue: Catalogue
    behaviour: Behaviour


@dataclass(frozen=True)
class Method:
    """One method's lists with one seed, by day, and what its training took."""

    name: str
    seed: int
    lists: list[np.ndarray]
    figures: dict


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, and the figures as the last line."""
    parser, given = _arguments(arguments)
    try:
        settings = _settings(given)
        lakehouse = Lakehouse(settings.lakehouse_root)
        days = _days(parser, given, lakehouse, settings)
        asked = [_read(day, lakehouse, settings) for day in days]
    except (BadSettings, MissingPartition) as error:
        parser.exit(2, f"{error}\n")
    targets = pa.concat_arrays([day.behaviour.targets for day in asked])
    if not pc.sum(pc.list_value_length(targets)).as_py():
        parser.exit(2, f"no user has a target from {given.day} to {given.to}: choose other days\n")
    methods = [_ours(seed, given.day, asked, lakehouse, settings) for seed in given.seeds]
    measured = _measure(methods, methods, targets, settings)
    for model in given.models:
        of_model = _peer(model, given, asked, lakehouse, settings)
        measured += _measure(of_model, methods, targets, settings)
    print_tables(measured)
    print(
        json.dumps(
            {
                "name": "retrieval",
                "ratio": lead_of_ours(measured),
                "days": [str(day) for day in days],
                "models": given.models,
                "threads": given.threads,
                "figures": measured,
            }
        )
    )


def _arguments(arguments: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval", description=__doc__.strip().splitlines()[0]
    )
    parser.add_argument("--var", required=True, help="state folder that `make run` has filled")
    parser.add_argument("--day", type=iso_day, required=True, help="the first day to measure")
    parser.add_argument("--to", type=iso_day, help="the last one; default the first")
    parser.add_argument("--models", default=",".join(PEERS), help=f"of {', '.join(PEERS)}; none: empty")
    parser.add_argument("--seeds", type=_seeds, help="e.g. 0,1,2; default PI2I's of the settings")
    parser.add_argument("--epochs", type=at_least_one, default=60, help="the most that a peer learns")
    parser.add_argument(
        "--patience",
        type=at_least_one,
        default=3,
        help="epochs without a better one that end a peer's choice",
    )
    parser.add_argument("--fixed", type=at_least_one, help="epochs that a peer learns, without a choice")
    parser.add_argument(
        "--length", type=at_least_one, default=50, help="newest history items that peers read"
    )
    parser.add_argument("--threads", type=at_least_one, default=2, help="threads of each method's training")
    given = parser.parse_args(arguments)
    given.to = given.to or given.day
    given.models = [model for model in given.models.split(",") if model]
    if unknown := sorted(set(given.models) - set(PEERS)):
        parser.exit(2, f"unknown models: {', '.join(unknown)}; there are {', '.join(PEERS)}\n")
    if given.to < given.day:
        parser.exit(2, f"--to {given.to} is before --day {given.day}\n")
    check_paths(parser, given.var)
    if given.models:
        require_peers(parser, RECBOLE_PYTHON, without="--models ''")
    return parser, given


def _seeds(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) < 2**32 for part in parts):
        raise argparse.ArgumentTypeError(f"{text} is no list of whole numbers below 2**32, such as 0,1,2")
    return [int(part) for part in parts]


def _settings(given: argparse.Namespace) -> Settings:
    """Read the settings of the state folder; PI2I's threads and seed become the given ones."""
    os.environ["TRIBUTARY_VAR"] = given.var
    settings = load_settings()
    if settings.pi2i is None:
        raise BadSettings("PI2I is off: add the section [pi2i] to the settings")
    given.seeds = given.seeds or [settings.pi2i.seed]
    return settings.model_copy(update={"pi2i": settings.pi2i.model_copy(update={"n_threads": given.threads})})


def _days(
    parser: argparse.ArgumentParser, given: argparse.Namespace, lakehouse: Lakehouse, settings: Settings
) -> list[date]:
    """List the days to measure; end the program where there is too little to learn from before them."""
    n_learned = 2 if given.models else 1
    for table in (tables.PI2I_SAMPLE, tables.USER_HISTORY):
        lakehouse.require(table, given.day - ONE_DAY)
    too_early = len(training_days(lakehouse, given.day, settings)) < n_learned
    if too_early or is_warming_up(lakehouse, given.day, settings):
        parser.exit(2, f"before {given.day} there are too few days to learn from: begin later\n")
    return day_range(given.day, given.to)


def _read(day: date, lakehouse: Lakehouse, settings: Settings) -> Asked:
    """Read what a day's lists are made of and the users that have a target."""
    lakehouse.require(tables.TARGET_GROUP, day)
    catalogue = read_catalogue(lakehouse, day - ONE_DAY, settings)
    behaviour = read_behaviour(lakehouse, day, catalogue, settings)
    return Asked(catalogue, behaviour)


def _ours(seed: int, first: date, asked: list[Asked], lakehouse: Lakehouse, settings: Settings) -> Method:
    """Train PI2I's scorer as the daily training does, and ask it."""
    config = settings.pi2i.model_copy(update={"seed": seed})
    eve = first - ONE_DAY
    days = training_days(lakehouse, first, settings)
    if seed == settings.pi2i.seed:
        samples = lakehouse.read_days(tables.PI2I_SAMPLE, days)
    else:
        samples = pa.concat_tables([draw_day(lakehouse, day, config, settings)[0] for day in days])
    items, users = read_items(lakehouse, eve, settings), lakehouse.read(tables.USER_SNAPSHOT, eve)
    _tell(f"{OURS}, seed {seed}: {samples.num_rows} samples")
    cpu = time.process_time()
    scorer, report = train(samples, items, users, config, device="cpu")
    figures = {
        "seconds": report.seconds,
        "cpu_seconds": time.process_time() - cpu,
        "epochs": config.epochs,
        "n_rows": report.n_samples,
    }
    _tell(f"{OURS}: trained in {report.seconds:.0f} s")
    lists = [score_candidates(scorer, day.catalogue, day.behaviour.users, max(KS), settings) for day in asked]
    return Method(OURS, seed, lists, figures)


def _peer(
    model: str, given: argparse.Namespace, asked: list[Asked], lakehouse: Lakehouse, settings: Settings
) -> list[Method]:
    """Choose a peer's number of epochs unless it is given, train it with each seed, and ask it."""
    name, config = PEERS[model]
    options = {
        "config": config,
        "threads": given.threads,
        "length": given.length,
        "seed": given.seeds[0],
        "judged_k": JUDGED_K,
        "depth": max(KS),
    }
    if given.fixed:
        n_epochs, choice = given.fixed, None
    else:
        n_epochs, choice = _choose_epochs(model, given, options, lakehouse, settings)
    methods = []
    with tempfile.TemporaryDirectory(prefix="tributary-bench-") as folder:
        vocabulary = _write(Path(folder), asked, given.day, given.length, lakehouse, settings)
        for seed in given.seeds:
            fixed = {"n_asked": len(asked), "epochs": n_epochs, "patience": None, "seed": seed}
            figures = _run(folder, model, {**options, **fixed})
            files = [Path(folder) / f"lists_{place}.npy" for place in range(len(asked))]
            lists = [vocabulary.item_ids_of(np.load(file)) for file in files]
            methods.append(Method(name, seed, lists, figures | {"choice": choice}))
    return methods


def _choose_epochs(
    model: str, given: argparse.Namespace, options: dict, lakehouse: Lakehouse, settings: Settings
) -> tuple[int, dict]:
    """Give the number of epochs that was best on the last learned day, and what was seen."""
    eve = given.day - ONE_DAY
    with tempfile.TemporaryDirectory(prefix="tributary-bench-") as folder:
        _write(Path(folder), [_read(eve, lakehouse, settings)], eve, given.length, lakehouse, settings)
        limits = {"n_asked": 1, "epochs": given.epochs, "patience": given.patience}
        chosen = _run(folder, model, {**options, **limits})
    return 1 + int(np.argmax(chosen["shares"])), {name: chosen[name] for name in ("shares", "seconds")}


def _write(
    folder: Path, asked: list[Asked], first: date, length: int, lakehouse: Lakehouse, settings: Settings
) -> Vocabulary:
    """Write what a peer learns from the window before ``first``, and what it is asked."""
    eve = first - ONE_DAY
    histories = lakehouse.read(tables.USER_HISTORY, eve)
    vocabulary = Vocabulary(
        np.sort(lakehouse.read(tables.ITEM_INDEX, eve)["item_id"].to_numpy()),
        np.sort(histories["user_id"].to_numpy()),
    )
    days = training_days(lakehouse, first, settings)
    clicks = [read_new_clicks(lakehouse, day, settings) for day in days]
    np.savez(folder / "learned.npz", **learned_arrays(clicks, histories, vocabulary, length))
    for place, day in enumerate(asked):
        users, targets = day.behaviour.users, day.behaviour.targets
        histories = lakehouse.read(tables.USER_HISTORY, day.catalogue.day)
        arrays = asked_arrays(
            users.ids, users.histories, targets, day.catalogue.item_ids, histories, vocabulary
        )
        np.savez(folder / f"asked_{place}.npz", **arrays)
    return vocabulary


def _run(folder: str, model: str, options: dict) -> dict:
    script = [str(RECBOLE_PYTHON), "-m", "benchmarks.retrieval_recbole"]
    return run_shown([*script, folder, model, json.dumps(options)])


def _measure(
    methods: list[Method], ours: list[Method], targets: pa.ListArray, settings: Settings
) -> list[dict]:
    """Measure the methods, and PI2I of the same seed against each; tells what came out."""
    bootstrap = {"seed": settings.evaluation.seed, "n_resamples": settings.evaluation.n_bootstrap}
    rows = []
    for method, of_ours in zip(methods, ours, strict=True):
        ranks, our_ranks = (target_ranks(np.concatenate(each.lists), targets) for each in (method, of_ours))
        row = {"method": method.name, "seed": method.seed, **method.figures}
        row["hit_rate"] = {k: asdict(hit_rate(ranks, targets, k, **bootstrap)) for k in KS}
        if method is not of_ours:
            row["pi2i_leads"] = {
                k: asdict(paired_difference(our_ranks, ranks, targets, k, **bootstrap)) for k in KS
            }
        told = ", ".join(f"HR@{k} {row['hit_rate'][k]['value']:.4f}" for k in KS)
        _tell(f"{method.name}, seed {method.seed}: {told}")
        rows.append(row)
    return rows


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
