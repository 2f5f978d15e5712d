"""Which items are popular, as of the end of a day?"""

from datetime import date

import numpy as np

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.popularity import rank_popular
from tasks.days import ingested, source_first_day, window
from tasks.settings import Settings


def read_popular(lakehouse: Lakehouse, day: date, settings: Settings) -> np.ndarray:
    """Rank the items by the clicks of the window that ends on ``day``, the warm start left out."""
    days = window(day, settings.window_days, source_first_day(ingested(lakehouse, day)))
    return rank_popular(lakehouse.read_days(tables.CLICK, days, columns=["item_id"]))
