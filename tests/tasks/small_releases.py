"""Small settings, records and releases that the tests of tracking, publishing and the model file share."""

from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from lakehouse import tables
from lakehouse.releases import CandidateLists, Manifest, ReleaseContents, write_release
from tasks.records import DayRecord, MethodRecord
from tasks.settings import Settings

DAY = date(2022, 5, 3)
ITEMS = np.arange(1, 41)
USERS = np.arange(101, 106)


def small_settings(var: Path, **changes: object) -> Settings:
    """Settings with everything below ``var``."""
    return Settings(
        **{"var": var, "methods": {"base": {"variant": "TB-Online"}}, "channels": {"swing": 5}} | changes
    )


def small_contents(seed: int = 0, **changes: object) -> ReleaseContents:
    """A release of 40 items and 5 users that serves Swing alone; each seed has its own candidates."""
    generator = np.random.default_rng(seed)
    triggers = np.repeat(ITEMS, 3)
    i2i_table = {
        "trigger_item_id": triggers,
        "target_item_id": np.concatenate([(ITEMS + shift - 1) % 40 + 1 for shift in (1, 2, 3)])
        .reshape(3, -1)
        .T.ravel(),
        "score": np.tile([3.0, 2.0, 1.0], len(ITEMS)),
        "rank": np.tile([1, 2, 3], len(ITEMS)),
        "n_common_users": np.full(len(triggers), 2),
    }
    histories = [generator.choice(ITEMS, 3, replace=False).tolist() for _ in USERS]
    merged = np.stack([generator.permutation(ITEMS)[:5] for _ in USERS])
    given = {
        "i2i_table": pa.table(i2i_table, schema=tables.I2I_TABLE.schema),
        "item_index": pa.table([ITEMS, ITEMS, [DAY] * 40], schema=tables.ITEM_INDEX.schema),
        "items": pa.table({"item_id": ITEMS, "item_index": ITEMS.astype(np.int32), "category_id": ITEMS % 4}),
        "user_history": pa.table(
            [USERS, histories, [[datetime(2022, 5, 3)] * 3] * 5, [["home"] * 3] * 5],
            schema=tables.USER_HISTORY.schema,
        ),
        "user_profile": pa.table(
            [USERS, [["age=20"], [], ["age=30"], [], []]], schema=tables.USER_SNAPSHOT.schema
        ),
        "popular_item_ids": ITEMS[::-1],
        "quotas": {"swing": 5},
        "candidates": {"merged": CandidateLists(USERS, merged, np.ones((5, 5), np.float32))},
    }
    return ReleaseContents(**given | changes)


def write_small(folder: Path, contents: ReleaseContents, day: date = DAY) -> Manifest:
    """Write a release with fixed provenance."""
    return write_release(folder, contents, day=day, code_version="abc123", config_digest="c0ffee")


def metric_rows(method: str, value: float) -> pa.Table:
    """Rows of ``metric``: Hit@50 and Hit@100 of one method, one of them by cohort as well."""
    cells = [("all", 50, value / 2), ("all", 100, value), ("users=new", 100, value / 3)]
    rows = [
        {
            "method": method,
            "metric": "hit_rate",
            "k": k,
            "cohort": cohort,
            "value": figure,
            "low": figure - 0.01,
            "high": figure + 0.01,
            "n_users": 500,
            "n_targets": 900,
        }
        for cohort, k, figure in cells
    ]
    return pa.Table.from_pylist(rows, tables.METRIC.schema)


def relative_to_champion(value: float) -> pa.Table:
    """The row of ``metric`` that compares the method merged with the champion."""
    row = metric_rows("merged", value).slice(1, 1).to_pylist()[0] | {"metric": "relative_to_champion"}
    return pa.Table.from_pylist([row], tables.METRIC.schema)


def small_record(day: date = DAY, **changes: object) -> DayRecord:
    """A day with two methods, of which one was trained."""
    gates = [
        {
            "gate": "beats_popularity",
            "status": "passed",
            "figure": 1.31,
            "floor": 1.0,
            "detail": "Hit@100 1.31",
        },
        {"gate": "volume", "status": "failed", "figure": 0.4, "floor": 0.5, "detail": "rows | over median"},
    ]
    given = {
        "day": day,
        "verdict": "failed",
        "gates": pa.Table.from_pylist(gates, tables.GATE.schema),
        "methods": (
            MethodRecord("popularity", {}, metric_rows("popularity", 0.24)),
            MethodRecord(
                "merged",
                {"dim": 32, "nested": {"alpha": 0.5}},
                pa.concat_tables([metric_rows("merged", 0.36), relative_to_champion(0.02)]),
                {"total": [1.0, 0.5, 0.25], "itg": [0.5, 0.4, 0.3]},
            ),
        ),
        "code_version": "abc123",
        "config_digest": "c0ffee",
        "data_digests": {"click": "d1", "i2i_table": "d2"},
        "dag_run_id": "manual__1",
        "is_backfill": False,
        "data_docs": "/state/data_docs/index.html",
        "params": {"window_days": 14},
        "figures": {"index_recall": 1.0},
    }
    return DayRecord(**given | changes)
