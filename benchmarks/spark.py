"""
What does Spark cost on one machine, beside the engine that it stands in for?

Runs the same queries and the same Swing builds on both engines, checks that the results are equal, and
prints wall-clock and CPU seconds (of this process and all below it). Spark on the threads of one machine can
only lose: the figures say how large a day must be before its fixed costs stop to matter.

Run ``python -m benchmarks.spark [--var STATE --day DAY] [--shapes 134k,1M,taobao_small]``; by default on two
days of the demo world and two synthetic click logs.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from benchmarks.arguments import check_paths, check_shapes, iso_day
from benchmarks.swing_clicks import SHAPES, click_table
from lakehouse import tables
from lakehouse.digest import digest_rows
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse, MissingPartition
from models.swing import I2I_SCHEMA, SwingConfig, iter_i2i_blocks
from models.swing.on_spark import iter_i2i_blocks_on_spark
from tasks.days import ONE_DAY, ingested
from tasks.histories import build_histories, read_window_clicks
from tasks.ingest import ingest_logs
from tasks.settings import Settings
from tasks.spark import spark_session
from tasks.spark_config import SparkConfig

WHOLE, CUT = 1 << 40, 0


def cpu_seconds() -> float:
    """Give the CPU time of this process and of all below it, live or ended."""
    ticks: dict[int, tuple[int, int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        ticks[int(path.parent.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    family, total = {os.getpid()}, 0
    for _ in range(8):
        family |= {pid for pid, (parent, _) in ticks.items() if parent in family}
    total = sum(ticks[pid][1] for pid in family if pid in ticks)
    return total / os.sysconf("SC_CLK_TCK")


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Give the result, the wall-clock seconds and the CPU seconds of some work."""
    started, cpu = time.perf_counter(), cpu_seconds()
    result = work()
    return result, time.perf_counter() - started, cpu_seconds() - cpu


def main(arguments: list[str] | None = None) -> int:
    """Print the table; its last line is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spark", description=__doc__.split("\n\n")[0])
    parser.add_argument("--var", help="state folder that `make run` has filled")
    parser.add_argument("--day", type=iso_day, help="a day in it, not its first")
    parser.add_argument("--shapes", default="134k,1M", help=f"of {', '.join(SHAPES)}; none: empty")
    options = parser.parse_args(arguments)
    check_shapes(parser, options.shapes)
    if bool(options.var) != bool(options.day):
        parser.exit(2, "--var and --day go together: a state folder and a day in it\n")
    check_paths(parser, options.var)
    with tempfile.TemporaryDirectory(prefix="tributary-bench-") as folder:
        settings, day = _world(options.var, options.day, Path(folder))
        try:
            _require_inputs(settings, day)
        except MissingPartition as error:
            parser.exit(2, f"{error}\n")
        engine = SimpleNamespace(engine="spark", spark=SparkConfig())
        spark, start_seconds, start_cpu = measured(lambda: spark_session(engine))
        print(f"Spark starts in {start_seconds:.1f} s, {start_cpu:.1f} CPU seconds; {os.cpu_count()} CPUs")
        print(f"{'work':<44}{'rows':>10}  {'one machine':>20}  {'Spark, first':>20}  {'Spark, again':>20}")
        figures = {"start_seconds": round(start_seconds, 2)}
        figures |= _compare_queries(settings, day, spark)
        clicks = read_window_clicks(Lakehouse(settings.lakehouse_root), day, settings)
        figures |= _compare_swing(f"swing {day}", clicks, settings.swing, spark)
        for name in filter(None, options.shapes.split(",")):
            shape = SHAPES[name]
            config = SwingConfig(max_users_per_item=shape.max_users_per_item, n_threads=2)
            figures |= _compare_swing(f"swing {name}", click_table(shape), config, spark)
        spark.stop()
    of_swing = [
        ratio for work, ratio in figures.items() if work.startswith("swing") and work.endswith("whole")
    ]
    print(json.dumps({"name": "spark", "ratio": of_swing[-1], **figures}))
    return 0


def _world(var: str | None, day: date | None, folder: Path) -> tuple[Settings, date]:
    common = {"methods": {"base": {"variant": "TB-Online"}}, "channels": {"swing": 5}}
    if var:
        return Settings(var=Path(var), **common), day
    settings = Settings(var=folder, **common)
    first = settings.source.synthetic.first_day
    for each in (first, first + ONE_DAY):
        ingest_logs(each, settings)
        build_histories(each, settings)
    return settings, first + ONE_DAY


def _require_inputs(settings: Settings, day: date) -> None:
    lakehouse = Lakehouse(settings.lakehouse_root)
    lakehouse.require(tables.EXPOSURE, day)
    lakehouse.require(tables.USER_HISTORY, day - ONE_DAY)
    read_window_clicks(lakehouse, day, settings)


def _compare_queries(settings: Settings, day: date, spark) -> dict[str, float]:
    lakehouse = Lakehouse(settings.lakehouse_root)
    exposure = lakehouse.relation(tables.EXPOSURE, [day])
    click = lakehouse.relation(tables.CLICK, [day])
    history = lakehouse.relation(tables.USER_HISTORY, [day - ONE_DAY])
    window = read_window_clicks(lakehouse, day, settings)
    primary = ingested(lakehouse, day).meta["primary_scenario"]
    asked = {"day": day, "primary_scenario": primary, "visit_gap_seconds": 1800}
    request = run_sql("marts/request", {"exposure": exposure}, asked)
    runs = {
        "marts/click": ({"exposure": exposure}, {"day": day}),
        "marts/request": ({"exposure": exposure}, asked),
        "marts/request_history": (
            {"request": request, "user_history": history, "click": click},
            {"day": day, "yesterday": day - ONE_DAY, "history_length": settings.history_length},
        ),
        "marts/user_history": ({"window_click": window}, {"history_length": settings.history_length}),
    }
    return {
        f"{name} {day}": _compare(
            f"{name} {day}",
            lambda name=name, run=run: run_sql(name, *run, threads=2),
            lambda name=name, run=run: run_sql(name, *run, spark=spark),
        )
        for name, run in runs.items()
    }


def _compare_swing(name: str, clicks: pa.Table, config: SwingConfig, spark) -> dict[str, float]:
    def on_spark(broadcast_bytes: int) -> pa.Table:
        blocks = iter_i2i_blocks_on_spark(clicks, config, spark, broadcast_bytes=broadcast_bytes)
        return pa.Table.from_batches(list(blocks), I2I_SCHEMA)

    def here() -> pa.Table:
        return pa.Table.from_batches(list(iter_i2i_blocks(clicks, config)), I2I_SCHEMA)

    return {
        f"{name}, {way}": _compare(f"{name}, {way}", here, lambda most=most: on_spark(most))
        for way, most in (("whole", WHOLE), ("cut", CUT))
    }


def _compare(name: str, here: Callable[[], pa.Table], on_spark: Callable[[], pa.Table]) -> float:
    """Print one line; give the wall-clock ratio of one machine to a warm Spark."""
    here()  # compiled kernels are read from their cache at the first call
    expected, seconds, cpu = measured(here)
    cells = [f"{seconds:.2f} s {cpu:.1f} CPU s"]
    for _ in range(2):
        found, spark_seconds, spark_cpu = measured(on_spark)
        if digest_rows(found) != digest_rows(expected):
            raise AssertionError(f"{name}: Spark gives other rows than one machine")
        cells.append(f"{spark_seconds:.2f} s {spark_cpu:.1f} CPU s")
        del found
    print(f"{name:<44}{expected.num_rows:>10}  " + "  ".join(f"{cell:>20}" for cell in cells), flush=True)
    return round(seconds / spark_seconds, 3)


if __name__ == "__main__":
    sys.exit(main())
