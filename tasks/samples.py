"""
Sample tasks: the day's requests -> target groups (RTG, ITG, ETG) -> IncRec samples.

R_u, what the existing channels returned for a request, is simulated by the Swing channel as a daily
release would serve it: the i2i table of the day before, the user's history before the request, and
popular items for users without a history (IncRec 2.1, METHODS section 2).
"""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from models.item_to_item import retrieve_by_items
from models.popularity import rank_popular, retrieve_popular
from tasks.days import ONE_DAY, ingested, source_first_day, window
from tasks.settings import Settings
from tasks.spark import spark_session


@dataclass(frozen=True)
class SampleReport:
    """What ``construct_samples`` wrote; ``is_warming_up``: no channel existed yet to be incremental to."""

    n_requests: int
    n_samples: int
    n_rtg: int
    n_itg: int
    n_etg: int
    is_warming_up: bool


def construct_samples(day: date, settings: Settings) -> SampleReport:
    """
    Replace ``target_group`` and ``increc_sample`` of ``day``, from the i2i table of the day before only.

    With an empty i2i table of the day before (a source's first day without a warm start) every target
    would count as incremental, so the day gets target groups but no samples.

    Raises:
        MissingPartition: the day before has no i2i table or histories, or the day no clicks.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    exposure = ingested(lakehouse, day)
    i2i_table = lakehouse.read(tables.I2I_TABLE, day - ONE_DAY)
    requests = _read_requests(lakehouse, day, exposure.meta["primary_scenario"], settings)
    popular = read_popular(lakehouse, day - ONE_DAY, settings)
    retrieved = retrieve_existing(
        i2i_table, popular, pc.cast(requests["history_item_ids"], tables.IDS).combine_chunks(), settings
    )
    target_groups = run_sql(
        "marts/target_group",
        {
            "request_history": requests.append_column("retrieved_item_ids", as_lists(retrieved)),
            "click": lakehouse.relation(tables.CLICK, [day]),
        },
        {"day": day},
        spark=spark_session(settings),
    )
    n_requests = lakehouse.replace(tables.TARGET_GROUP, day, target_groups).n_rows
    samples = run_sql(
        "marts/increc_sample",
        {"target_group": lakehouse.relation(tables.TARGET_GROUP, [day])},
        {"day": day},
        spark=spark_session(settings),
    )
    is_warming_up = i2i_table.num_rows == 0
    if is_warming_up:
        samples = samples.slice(0, 0)
    n_samples = lakehouse.replace(tables.INCREC_SAMPLE, day, samples).n_rows
    n_targets = {
        group: pc.sum(pc.list_value_length(samples[f"{group}_item_ids"])).as_py() or 0
        for group in ("rtg", "itg", "etg")
    }
    return SampleReport(n_requests, n_samples, *n_targets.values(), is_warming_up)


def retrieve_existing(
    i2i_table: pa.Table, popular: np.ndarray, histories: pa.ListArray, settings: Settings
) -> np.ndarray:
    """
    Simulate R_u: the Swing channel, and popular items for users without a history.

    Returns:
        int64 [n_requests, retrieved_per_user], best first, padded with -1.
    """
    k = settings.samples.retrieved_per_user
    retrieved = retrieve_by_items(i2i_table, histories, k, n_triggers=settings.samples.n_triggers)
    is_unknown = pc.list_value_length(histories).to_numpy(zero_copy_only=False) == 0
    if is_unknown.any():
        unknown = histories.filter(pa.array(is_unknown))
        retrieved[is_unknown] = retrieve_popular(popular, unknown, k)
    return retrieved


def read_popular(lakehouse: Lakehouse, day: date, settings: Settings) -> np.ndarray:
    """Rank the items by the clicks of the window that ends on ``day``, the warm start left out."""
    days = window(day, settings.window_days, source_first_day(ingested(lakehouse, day)))
    return rank_popular(lakehouse.read_days(tables.CLICK, days, columns=["item_id"]))


def as_lists(retrieved: np.ndarray) -> pa.ListArray:
    """Turn a matrix of item ids padded with -1 into one list per row."""
    is_item = retrieved >= 0
    offsets = np.concatenate([[0], np.cumsum(is_item.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(retrieved[is_item]))


def _read_requests(lakehouse: Lakehouse, day: date, primary_scenario: str, settings: Settings) -> pa.Table:
    requests = run_sql(
        "marts/request",
        {"exposure": lakehouse.relation(tables.EXPOSURE, [day])},
        {
            "day": day,
            "primary_scenario": primary_scenario,
            "visit_gap_seconds": settings.samples.visit_gap_seconds,
        },
        spark=spark_session(settings),
    )
    return run_sql(
        "marts/request_history",
        {
            "request": requests,
            "user_history": lakehouse.relation(tables.USER_HISTORY, [day - ONE_DAY]),
            "click": lakehouse.relation(tables.CLICK, [day]),
        },
        {"day": day, "yesterday": day - ONE_DAY, "history_length": settings.history_length},
        spark=spark_session(settings),
    )
