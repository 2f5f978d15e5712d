"""Which items are popular, and how much was each clicked and shown, as of the end of a day?"""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from lakehouse import tables
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from models.popularity import rank_popular
from tasks.days import ingested, source_first_day, window
from tasks.settings import Settings
from tasks.spark import spark_session


def read_popular(lakehouse: Lakehouse, day: date, settings: Settings) -> np.ndarray:
    """Rank the items by the clicks of the window that ends on ``day``, the warm start left out."""
    days = window(day, settings.window_days, source_first_day(ingested(lakehouse, day)))
    return rank_popular(lakehouse.read_days(tables.CLICK, days, columns=["item_id"]))


def read_item_statistics(lakehouse: Lakehouse, day: date, settings: Settings) -> pa.Table:
    """
    Count each item's clicks and exposures as of ``day``, the warm start left out; the columns PI2I takes.

    Without rows on the eve of the source's first day.

    Raises:
        MissingPartition: a day of the window has no clicks, or ``day`` no exposures.
    """
    days = window(day, settings.window_days, source_first_day(ingested(lakehouse, day)))
    return run_sql(
        "marts/item_statistic",
        {
            "click": lakehouse.relation(tables.CLICK, days),
            "exposure": lakehouse.relation(tables.EXPOSURE, days[-1:]),
        },
        {"first_day": min(days, default=day), "day": day, "third_day": day - timedelta(days=2)},
        spark=spark_session(settings),
    )
