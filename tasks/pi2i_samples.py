"""
PI2I's sample task: the day's clicks on new items -> trigger-target samples (Algorithm 1).

A click's history is the day before's with the user's clicks of the day strictly before it. The i2i table and
the item statistics are the day before's: those that saw the click would leak it.
"""

import json
from dataclasses import asdict, dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from models.pi2i.config import PI2IConfig
from models.pi2i.prices import log_prices
from models.pi2i.sampling import draw_samples
from models.pi2i.trigger_index import trigger_index
from tasks.days import ONE_DAY
from tasks.popular import read_item_statistics
from tasks.settings import PI2I, Settings
from tasks.spark import spark_session

STEP = "construct_samples"


@dataclass(frozen=True)
class PI2ISampleReport:
    """
    What became of the day's clicks.

    ``n_clicks`` are first clicks on items that the user's history does not hold; of them
    ``n_without_history`` have no trigger at all, and ``dropped_share`` is of those that no trigger reaches,
    these included; NaN without clicks.
    """

    n_clicks: int
    n_without_history: int
    n_samples: int
    dropped_share: float
    n_hard: int
    n_easy: int


def construct_pi2i_samples(day: date, config: PI2IConfig, settings: Settings) -> PI2ISampleReport:
    """
    Replace ``pi2i_sample`` of ``day`` and ``metric/ds=<day>/step=construct_samples``.

    Raises:
        MissingPartition: the day before has no i2i table or histories, or the day or one of the window before
            it has no clicks.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    rows, report = draw_day(lakehouse, day, config, settings)
    meta = {"report": json.dumps(asdict(report))}
    lakehouse.replace(tables.PI2I_SAMPLE, day, rows, meta=meta)
    lakehouse.replace(tables.METRIC, day, _figures(report), part=STEP)
    return report


def draw_day(
    lakehouse: Lakehouse, day: date, config: PI2IConfig, settings: Settings
) -> tuple[pa.Table, PI2ISampleReport]:
    """Draw the rows of ``pi2i_sample`` of ``day``; writes nothing. Raises as ``construct_pi2i_samples``."""
    clicks = read_new_clicks(lakehouse, day, settings)
    index = trigger_index(
        lakehouse.read(tables.I2I_TABLE, day - ONE_DAY),
        item_statistics=read_item_statistics(lakehouse, day - ONE_DAY, settings),
    )
    prices = _read_log_prices(lakehouse, day - ONE_DAY)
    rows, report = draw_samples(clicks, index, config, seed=seed_of(config.seed, day), log_prices=prices)
    n_without_history = pc.sum(pc.equal(pc.list_value_length(clicks["history_item_ids"]), 0)).as_py() or 0
    return rows.append_column("item_id", pc.list_element(rows["item_ids"], 0)), PI2ISampleReport(
        report.n_clicks,
        n_without_history,
        report.n_samples,
        report.dropped_share,
        report.n_hard,
        report.n_easy,
    )


def read_new_clicks(lakehouse: Lakehouse, day: date, settings: Settings) -> pa.Table:
    """
    Read each user's first click of ``day`` on an item that the history does not hold, oldest first.

    Returns:
        Columns user_id, item_id, event_time and, among others, history_item_ids: what the user had strictly
        before, oldest first.

    Raises:
        MissingPartition: the day has no clicks, or the day before no histories.
    """
    given = {
        "click": lakehouse.relation(tables.CLICK, [day]),
        "user_history": lakehouse.relation(tables.USER_HISTORY, [day - ONE_DAY]),
    }
    parameters = {"day": day, "yesterday": day - ONE_DAY}
    spark = spark_session(settings)
    clicks = run_sql("marts/new_item_click", given, parameters, spark=spark)
    return run_sql(
        "marts/request_history",
        {"request": clicks, **given},
        {**parameters, "history_length": settings.history_length},
        spark=spark,
    )


def seed_of(seed: int, day: date) -> int:
    """Give the seed of a day's draws, below 2**32."""
    return int(np.random.SeedSequence([seed, day.toordinal()]).generate_state(1)[0])


def _read_log_prices(lakehouse: Lakehouse, day: date) -> dict[int, float]:
    """Read the log prices as of ``day``; on the eve of the source's first day there are none."""
    if lakehouse.commit(tables.ITEM_SNAPSHOT, day) is None:
        return {}
    return log_prices(lakehouse.read(tables.ITEM_SNAPSHOT, day, columns=["item_id", "price"]))


def _figures(report: PI2ISampleReport) -> pa.Table:
    """Give the report as rows of ``metric``."""
    rows = [
        {
            "method": PI2I,
            "metric": f"sample_{name}",
            "k": 0,
            "cohort": "all",
            "value": None if np.isnan(value) else float(value),
            "low": None,
            "high": None,
            "n_users": 0,
            "n_targets": report.n_clicks,
        }
        for name, value in asdict(report).items()
    ]
    return pa.Table.from_pylist(rows, tables.METRIC.schema)
