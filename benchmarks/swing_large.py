"""
What does the whole way take at a size that no peer reaches: clicks in chunks -> a written partition?

    python -m benchmarks.swing_large [--shape taobao_large] [--folder DIR] [--memory-budget-gib 8]

The clicks are drawn as they are read; drawing them is timed apart. The table is written block by block into
a lakehouse of its own, which is deleted at the end. The last line is one JSON object; it has no ratio.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pyarrow as pa

from benchmarks.arguments import check_paths, swing_config
from benchmarks.swing_clicks import SHAPES, click_chunks
from lakehouse.store import Lakehouse
from lakehouse.tables import I2I_TABLE
from models.swing import BudgetTooSmall, I2IBlocks, iter_i2i_blocks

DAY = date(2026, 1, 1)
SECONDS_BETWEEN_LINES = 30.0


class Stopwatch:
    """Chunks on their way, and the time that making them took."""

    def __init__(self, chunks: Iterator[pa.RecordBatch]):
        """Start at zero."""
        self._chunks = chunks
        self.seconds = self.cpu_seconds = 0.0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Give the chunks."""
        while True:
            started, cpu = time.perf_counter(), time.process_time()
            chunk = next(self._chunks, None)
            self.seconds += time.perf_counter() - started
            self.cpu_seconds += time.process_time() - cpu
            if chunk is None:
                return
            yield chunk


def main() -> None:
    """Build, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--shape", default="taobao_large", choices=SHAPES)
    parser.add_argument("--folder", help="where the table is written for a while; default: the temporary one")
    parser.add_argument("--memory-budget-gib", type=float, default=8.0)
    parser.add_argument("--truncation", type=int, default=1250)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    check_paths(parser, arguments.folder)
    shape = SHAPES[arguments.shape]
    config = swing_config(
        parser,
        truncation=arguments.truncation,
        max_users_per_item=shape.max_users_per_item,
        n_threads=arguments.threads,
        memory_budget_gib=arguments.memory_budget_gib,
    )
    started, cpu = time.perf_counter(), time.process_time()
    chunks = Stopwatch(click_chunks(shape))
    try:
        blocks = iter_i2i_blocks(chunks, config)
    except BudgetTooSmall as error:
        parser.exit(2, f"{error}\n")
    index_seconds = time.perf_counter() - started - chunks.seconds
    print(f"indexed in {index_seconds:.0f} s, {_peak_gib():.2f} GiB at the peak", flush=True)
    with tempfile.TemporaryDirectory(prefix="tributary-bench-", dir=arguments.folder) as folder:
        commit = Lakehouse(folder).replace_by_batches(I2I_TABLE, DAY, _watched(blocks))
        n_bytes = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    report = blocks.report
    figures = {
        "shape": shape.name,
        "truncation": config.truncation,
        "max_users_per_item": config.max_users_per_item,
        "memory_budget_gib": config.memory_budget_gib,
        **{name: getattr(report, name) for name in ("n_clicks", "n_distinct_clicks", "n_users", "n_items")},
        **{name: getattr(report, name) for name in ("n_items_capped", "share_clicks_dropped", "n_triggers")},
        "n_triggers_truncated": report.n_triggers_truncated,
        "n_rows": commit.n_rows,
        "parquet_bytes": n_bytes,
        "seconds": time.perf_counter() - started - chunks.seconds,
        "cpu_seconds": time.process_time() - cpu - chunks.cpu_seconds,
        "index_seconds": index_seconds,
        "peak_gib": _peak_gib(),
        "path": report.path,
        "n_blocks": report.n_blocks,
    }
    figures["us_cpu_per_click"] = 1e6 * figures["cpu_seconds"] / report.n_clicks
    for name, value in figures.items():
        print(f"{name:>24}  {value}")
    print(json.dumps({"name": "swing_large", "ratio": None, "figures": figures}))


def _watched(blocks: I2IBlocks) -> Iterator[pa.RecordBatch]:
    """Give the blocks, with a line now and then."""
    n_rows, n_blocks, next_line = 0, 0, time.perf_counter() + SECONDS_BETWEEN_LINES
    for rows in blocks:
        n_rows, n_blocks = n_rows + rows.num_rows, n_blocks + 1
        if time.perf_counter() > next_line:
            print(f"{n_blocks} of {blocks.n_blocks} blocks, {n_rows} rows, {_peak_gib():.2f} GiB", flush=True)
            next_line += SECONDS_BETWEEN_LINES
        yield rows


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
