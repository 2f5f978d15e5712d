"""
What does one build of ours take? Run in a process of its own, so that its peak memory is its own.

    python -m benchmarks.swing_ours CLICKS.npz OPTIONS.json [ROWS.npz]

Prints one JSON object. Small builds of every path come first: loading the compiled kernels is not part of a
build, as loading a peer's library is not.
"""

import json
import resource
import sys
import time

import numpy as np
import pyarrow as pa

from models.swing import SwingConfig, build_i2i_table


def main(clicks_file: str, options: str, rows_file: str | None = None) -> None:
    """Build, print the figures, and keep the rows where a file is named."""
    config = SwingConfig(**json.loads(options))
    clicks = read_clicks(clicks_file)
    warm_ups = (clicks.slice(0, 2000), _square(one_in=1), _square(one_in=3))
    loaded = {build_i2i_table(warm_up, config)[1].path for warm_up in warm_ups}
    started, cpu = time.perf_counter(), time.process_time()
    table, report = build_i2i_table(clicks, config)
    if report.path not in loaded:
        raise SystemExit(
            f"no small build went the path {report.path}: its kernels were loaded in the timed one"
        )
    figures = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": _peak_bytes() / 2**20,
        "n_rows": table.num_rows,
        "path": report.path,
        "n_clicks": report.n_clicks,
        "n_users": report.n_users,
        "n_items": report.n_items,
        "share_clicks_dropped": report.share_clicks_dropped,
    }
    if rows_file:
        np.savez(rows_file, **{name: table[name].to_numpy() for name in table.column_names[:3]})
    print(json.dumps(figures))


def read_clicks(file: str) -> pa.Table:
    """Read the clicks that the benchmark wrote: arrays user and item."""
    with np.load(file) as arrays:
        user, item = arrays["user"].astype(np.int64), arrays["item"].astype(np.int64)
    return pa.table({"user_id": user, "item_id": item, "event_time": np.zeros(len(user), np.int64)})


def _square(one_in: int) -> pa.Table:
    """Give one in so many clicks of a small full matrix: all take ``complement``, every third ``pairs``."""
    user, item = np.divmod(np.arange(0, 64 * 64, one_in), 64)
    return pa.table({"user_id": user, "item_id": item, "event_time": np.zeros(len(user), np.int64)})


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
