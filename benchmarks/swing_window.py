"""
Would it pay to change yesterday's table rather than build today's, when the window moves by one day?

    python -m benchmarks.swing_window [--kuairand FOLDER] [--shape taobao_small] [--window-days N]

A user who clicked on the day that enters or on the day that leaves changes w_u and |Iu ∩ Iv| of every pair
that he is in. Two bounds are measured, both in favour of changing the table: nothing is counted for telling
what changed, for reading the old table and for merging.

- *triggers*: score again the triggers that a changed user clicked, on either day, copy the rest;
- *terms*: subtract the old terms of pairs with a changed user and add the new ones, in full builds' terms.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.arguments import at_least_one, check_kuairand
from benchmarks.swing import read_kuairand
from benchmarks.swing_clicks import SHAPES, click_table
from models.swing import SwingConfig, TriggerBlock, index_clicks, plan_blocks
from models.swing.rows import BlockScorer
from models.threads import map_in_threads

COLUMNS = (
    "log",
    "clicks",
    "changed users",
    "of clicks",
    "changed triggers",
    "terms",
    "full s",
    "triggers s",
    "x",
)


def main() -> None:
    """Measure each log and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--kuairand", default=os.environ.get("TRIBUTARY_BENCH_KUAIRAND"), help="its folder")
    parser.add_argument("--shape", default="taobao_small", choices=SHAPES)
    parser.add_argument("--window-days", type=at_least_one, default=7)
    arguments = parser.parse_args()
    check_kuairand(parser, arguments.kuairand)
    logs = []
    if arguments.kuairand:
        logs.append(("kuairand", *read_kuairand_days(Path(arguments.kuairand))))
    logs.append((arguments.shape, *_drawn_days(arguments.shape, arguments.window_days + 1)))
    config = SwingConfig(n_threads=2)
    index_clicks(logs[0][1].slice(0, 1000), config)
    results = [_compare(name, clicks, day, arguments.window_days, config) for name, clicks, day in logs]
    cells = [COLUMNS, *[tuple(map(str, result.values())) for result in results]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    ratio = max(result["x"] for result in results)
    print(json.dumps({"name": "swing_window", "ratio": ratio, "figures": results}))


def read_kuairand_days(folder: Path) -> tuple[pa.Table, np.ndarray]:
    """Read the clicks of the real days and the number of each one's day."""
    clicks, dates = read_kuairand(folder)
    return clicks, np.unique(dates.to_numpy(), return_inverse=True)[1]


def _drawn_days(shape: str, n_days: int) -> tuple[pa.Table, np.ndarray]:
    """Draw the clicks of a window of ``n_days - 1`` and one day more."""
    clicks = click_table(SHAPES[shape])
    return clicks, np.arange(clicks.num_rows) * n_days // clicks.num_rows


def _compare(name: str, clicks: pa.Table, day: np.ndarray, n_days: int, config: SwingConfig) -> dict:
    last = int(day.max())
    user = clicks["user_id"].to_numpy()
    yesterday = (day >= last - n_days) & (day < last)
    today = day > last - n_days
    is_changed = np.isin(user, np.unique(user[(day == last) | (day == last - n_days)]))
    changed_items = np.unique(clicks["item_id"].to_numpy()[is_changed & (yesterday | today)])

    started = time.process_time()
    index = index_clicks(clicks.filter(pa.array(today)), config)
    blocks = plan_blocks(index, config)
    indexed = time.process_time() - started
    scorer = BlockScorer(index, config)
    is_changed_trigger = np.isin(index.item_ids, changed_items)
    full = _score(scorer, blocks)
    part = _score(scorer, [run for block in blocks for run in _runs(block, is_changed_trigger)])
    all_terms, kept_terms = (
        _n_terms(clicks.filter(pa.array(rows)), config) for rows in (today, today & ~is_changed)
    )
    old_terms = _n_terms(clicks.filter(pa.array(yesterday)), config)
    return {
        "log": name,
        "clicks": index.n_clicks,
        "changed users": round(len(np.unique(user[is_changed & today])) / index.n_users, 3),
        "of clicks": round(float(np.sum(is_changed & today) / np.sum(today)), 3),
        "changed triggers": round(float(np.mean(is_changed_trigger)), 3),
        "terms": round((all_terms + old_terms - 2 * kept_terms) / max(1, all_terms), 2),
        "full s": round(indexed + full, 3),
        "triggers s": round(indexed + part, 3),
        "x": round((indexed + full) / (indexed + part), 2),
    }


def _runs(block: TriggerBlock, is_wanted: np.ndarray) -> list[TriggerBlock]:
    """Cut the wanted triggers out of a block, as runs."""
    wanted = np.concatenate(([False], is_wanted[block.first : block.last], [False]))
    edges = np.flatnonzero(wanted[1:] != wanted[:-1]) + block.first
    return [TriggerBlock(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def _score(scorer: BlockScorer, blocks: list[TriggerBlock]) -> float:
    """Score blocks and give the CPU seconds."""
    started = time.process_time()
    map_in_threads(lambda block: scorer.rows(block).num_rows, blocks, n_threads=2)
    return time.process_time() - started


def _n_terms(clicks: pa.Table, config: SwingConfig) -> int:
    """Count the terms of the sum over pairs of users, of all triggers and targets."""
    index = index_clicks(clicks, config.model_copy(update={"truncation": 2**31 - 1}))
    scorer = BlockScorer(index, config.model_copy(update={"truncation": 2**31 - 1}))

    def count(block: TriggerBlock) -> int:
        n_common = scorer.rows(block)["n_common_users"].to_numpy().astype(np.int64)
        return int(np.sum(n_common * (n_common - 1)) // 2)

    return sum(map_in_threads(count, plan_blocks(index, config), n_threads=2))


if __name__ == "__main__":
    main()
