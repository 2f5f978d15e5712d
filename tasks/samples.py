"""
Sample tasks: the day's requests -> target groups (RTG, ITG, ETG) -> IncRec samples; its clicks -> PI2I's.

R_u, what the existing channels returned for a request, comes from ``tasks/retrieved.py``.
"""

from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from tasks.days import ONE_DAY, ingested
from tasks.pi2i_samples import PI2ISampleReport, construct_pi2i_samples
from tasks.retrieved import retrieved_for_requests
from tasks.settings import Settings
from tasks.spark import spark_session


@dataclass(frozen=True)
class SampleReport:
    """
    What ``construct_samples`` wrote.

    ``n_requests`` have a target group; ``n_without_retrieval`` more have none, since no logged retrieval
    answers them. ``is_warming_up``: no channel existed yet to be incremental to. ``pi2i`` is
    None where it is off.
    """

    n_requests: int
    n_without_retrieval: int
    retrieved_by: str
    n_samples: int
    n_rtg: int
    n_itg: int
    n_etg: int
    is_warming_up: bool
    pi2i: PI2ISampleReport | None


def construct_samples(day: date, settings: Settings) -> SampleReport:
    """
    Replace ``target_group``, ``increc_sample`` and ``pi2i_sample`` of ``day``, from the i2i table of the day
    before only; the last where PI2I is on.

    With an empty i2i table of the day before (a source's first day without a warm start) every target
    would count as incremental, so the day gets target groups but no samples.

    Raises:
        MissingPartition: the day before has no i2i table or histories, or the day no clicks.
        NoRetrievalLog, NoRelease: there is no such source of R_u, see ``retrieved_for_requests``.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    exposure = ingested(lakehouse, day)
    i2i_rows = lakehouse.require(tables.I2I_TABLE, day - ONE_DAY).n_rows
    requests = _read_requests(lakehouse, day, exposure.meta["primary_scenario"], settings)
    retrieved = retrieved_for_requests(lakehouse, day, requests, settings)
    is_answered = pc.is_valid(retrieved.item_ids)
    answered = requests.append_column("retrieved_item_ids", retrieved.item_ids).filter(is_answered)
    target_groups = run_sql(
        "marts/target_group",
        {
            "request_history": answered,
            "click": lakehouse.relation(tables.CLICK, [day]),
        },
        {"day": day},
        spark=spark_session(settings),
    )
    n_without = requests.num_rows - answered.num_rows
    meta = {"retrieved_by": retrieved.by, "n_without_retrieval": str(n_without)}
    n_requests = lakehouse.replace(tables.TARGET_GROUP, day, target_groups, meta=meta).n_rows
    samples = run_sql(
        "marts/increc_sample",
        {"target_group": lakehouse.relation(tables.TARGET_GROUP, [day])},
        {"day": day},
        spark=spark_session(settings),
    )
    is_warming_up = i2i_rows == 0 and settings.samples.retrieved_by == "simulated"
    if is_warming_up:
        samples = samples.slice(0, 0)
    n_samples = lakehouse.replace(tables.INCREC_SAMPLE, day, samples).n_rows
    n_targets = {
        group: pc.sum(pc.list_value_length(samples[f"{group}_item_ids"])).as_py() or 0
        for group in ("rtg", "itg", "etg")
    }
    pi2i = construct_pi2i_samples(day, settings.pi2i, settings) if settings.pi2i else None
    return SampleReport(
        n_requests, n_without, retrieved.by, n_samples, *n_targets.values(), is_warming_up, pi2i
    )


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
