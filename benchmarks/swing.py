"""
How fast is the Swing index beside its peers? Same clicks, same T, one run.

    python -m benchmarks.swing [--shapes 134k,1M] [--kuairand FOLDER] [--flink-jars FOLDER] [--rounds 3]

Shapes are those of `benchmarks.swing_clicks`; ``taobao_small`` takes a minute, ``taobao_large`` has a
program of its own (`benchmarks.swing_large`). The last line is one JSON object whose ratio is recfarm's
seconds over ours on the 134k set. Peers are run in their own environment (`make bench-env`).
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from benchmarks.arguments import (
    KUAIRAND_LOG,
    at_least_one,
    check_kuairand,
    check_paths,
    check_shapes,
    swing_config,
)
from benchmarks.running import PEERS_PYTHON, REPOSITORY, median_run, print_table, require_peers, run_apart
from benchmarks.swing_clicks import SHAPES, click_table

RATIO_SHAPE = "134k"
MOST_CLICKS_OF_RECFARM = 500_000  # it clears an array of all items for each item
MOST_CLICKS_OF_FLINK = 500_000
MOST_CLICKS_OF_IMPLICIT = 2_000_000  # it holds room for T rows of each item
COLUMNS = ("clicks", "users", "items", "method", "seconds", "CPU s", "peak MiB", "rows", "us CPU/click", "x")


def main() -> None:
    """Measure, print the table, and the figures as the last line."""
    arguments = _arguments()
    figures, rows = {}, []
    with tempfile.TemporaryDirectory(prefix="tributary-bench-") as folder:
        for name, clicks in _inputs(arguments):
            print(f"{name}: {clicks.num_rows} clicks", file=sys.stderr, flush=True)
            file = Path(folder) / "clicks.npz"
            _write(clicks, file)
            figures[name] = _measure(name, file, Path(folder), arguments)
            rows += _rows(name, figures[name])
    print_table(COLUMNS, rows)
    peers = figures.get(RATIO_SHAPE, {})
    ratio = peers["recfarm"]["seconds"] / peers["ours"]["seconds"] if "recfarm" in peers else None
    print(
        json.dumps({"name": "swing", "ratio": ratio, "truncation": arguments.truncation, "figures": figures})
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--shapes", default="134k,1M", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--kuairand", default=os.environ.get("TRIBUTARY_BENCH_KUAIRAND"), help="its folder")
    parser.add_argument(
        "--flink-jars", default=os.environ.get("TRIBUTARY_BENCH_FLINK_JARS"), help="folder of flink-ml's jars"
    )
    parser.add_argument(
        "--rounds",
        type=at_least_one,
        default=3,
        help="runs of each method, in turns; the median counts",
    )
    parser.add_argument("--truncation", type=at_least_one, default=1250, help="T, targets kept per trigger")
    parser.add_argument("--threads", type=at_least_one, default=2, help="threads of each method")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    arguments = parser.parse_args()
    if not arguments.no_peers:
        require_peers(parser, PEERS_PYTHON)
    check_kuairand(parser, arguments.kuairand)
    check_paths(parser, arguments.flink_jars)
    check_shapes(parser, arguments.shapes)
    swing_config(parser, truncation=arguments.truncation, n_threads=arguments.threads)
    return arguments


def _inputs(arguments: argparse.Namespace):
    if arguments.kuairand:
        yield "kuairand", read_kuairand(Path(arguments.kuairand))[0]
    for name in filter(None, arguments.shapes.split(",")):
        yield name, click_table(SHAPES[name])


def read_kuairand(folder: Path) -> tuple[pa.Table, pa.ChunkedArray]:
    """Read the clicks of the real days, and the log date of each."""
    log = pyarrow.csv.read_csv(folder / KUAIRAND_LOG)
    log = log.filter(pc.equal(log["is_click"], 1))
    columns = {"user_id": log["user_id"], "item_id": log["video_id"], "event_time": log["time_ms"]}
    return pa.table(columns), log["date"]


def _write(clicks: pa.Table, file: Path) -> None:
    """Write dense codes in the order of the ids, once per pair: what every method starts from."""
    codes = [np.unique(clicks[name].to_numpy(), return_inverse=True)[1] for name in ("user_id", "item_id")]
    pair = np.unique(codes[0].astype(np.int64) << 32 | codes[1])
    order = np.random.default_rng(0).permutation(len(pair))
    user, item = (pair >> 32)[order], (pair & 0xFFFFFFFF)[order]
    np.savez(file, user=user.astype(np.int32), item=item.astype(np.int32))


def _measure(name: str, clicks: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, dict]:
    """Run every method, in turns, and give the medians of its figures."""
    options = {"truncation": arguments.truncation, "n_threads": arguments.threads}
    if name in SHAPES and SHAPES[name].max_users_per_item:
        options["max_users_per_item"] = SHAPES[name].max_users_per_item
    ours = [sys.executable, "-m", "benchmarks.swing_ours", str(clicks), json.dumps(options)]
    methods = {"ours": ours} | _peers(clicks, arguments)
    rows_files = {method: folder / f"{method}.npz" for method in methods if method != "implicit"}
    runs = {method: [] for method in methods}
    for turn in range(arguments.rounds):
        for method, command in methods.items():
            kept = [str(rows_files[method])] if turn == 0 and method in rows_files else []
            runs[method].append(run_apart(command + kept))
    medians = {method: median_run(figures) for method, figures in runs.items()}
    for peer in medians.keys() & {"recfarm", "flink-ml"}:
        medians[peer]["agreement"] = _agreement(rows_files["ours"], rows_files[peer])
    return medians


def _peers(clicks: Path, arguments: argparse.Namespace) -> dict[str, list[str]]:
    """Give the commands of the peers that finish on so many clicks."""
    with np.load(clicks) as arrays:
        n_clicks = len(arrays["user"])
    sizes = [str(arguments.truncation), str(arguments.threads)]
    peers = {}
    if not arguments.no_peers:
        script = [str(PEERS_PYTHON), str(REPOSITORY / "benchmarks" / "swing_peers.py")]
        if n_clicks <= MOST_CLICKS_OF_RECFARM:
            peers["recfarm"] = [*script, "recfarm", str(clicks), "1.0", *sizes]
        if n_clicks <= MOST_CLICKS_OF_IMPLICIT:
            peers["implicit"] = [*script, "implicit", str(clicks), "1.0", *sizes]
    if arguments.flink_jars and n_clicks <= MOST_CLICKS_OF_FLINK:
        flink = [sys.executable, "-m", "benchmarks.swing_flink", arguments.flink_jars, str(clicks)]
        peers["flink-ml"] = [*flink, *sizes]
    return peers


def _agreement(ours: Path, theirs: Path) -> dict[str, float]:
    """Compare the scores of our pairs with twice the peer's, which counts each pair of users once."""
    with np.load(ours) as a, np.load(theirs) as b:
        our_pair = a["trigger_item_id"] << 32 | a["target_item_id"]
        their_pair = b["trigger"].astype(np.int64) << 32 | b["target"]
        order = np.argsort(their_pair)
        place = np.minimum(np.searchsorted(their_pair[order], our_pair), len(order) - 1)
        found = order[place]
        is_there = their_pair[found] == our_pair
        difference = np.abs(2.0 * b["score"][found] / a["score"] - 1)[is_there]
    return {
        "share_of_our_pairs_found": float(np.mean(is_there)),
        "largest_relative_difference": float(np.max(difference)),
    }


def _rows(name: str, methods: dict[str, dict]) -> list[tuple]:
    ours = methods["ours"]
    size = (f"{name} {ours['n_clicks']}", ours["n_users"], ours["n_items"])
    return [
        (
            *size,
            f"{method} ({figures['path']})" if method == "ours" else method,
            f"{figures['seconds']:.3f}",
            f"{figures['cpu_seconds']:.3f}",
            f"{figures['peak_mib']:.0f}",
            figures["n_rows"],
            f"{1e6 * figures['cpu_seconds'] / ours['n_clicks']:.2f}",
            f"{figures['seconds'] / ours['seconds']:.1f}",
        )
        for method, figures in methods.items()
    ]


if __name__ == "__main__":
    main()
