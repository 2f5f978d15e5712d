"""Which steps does a day need before it can be learned from, and which days before it still lack them?"""

from datetime import date

from lakehouse import tables
from lakehouse.sources import open_source
from lakehouse.store import Lakehouse
from tasks.days import ONE_DAY, day_range
from tasks.histories import build_histories
from tasks.ingest import ingest_logs
from tasks.samples import construct_samples
from tasks.settings import Settings
from tasks.swing import rebuild_swing_index
from tasks.validate import validate_data

STEPS = {
    step.__name__: step
    for step in (ingest_logs, validate_data, build_histories, rebuild_swing_index, construct_samples)
}


def list_missing_days(day: date, settings: Settings) -> list[date]:
    """
    List the days from the source's first day to the day before ``day`` that have no samples yet.

    All of them, not only the window's: the item index and the histories grow from day to day.

    Raises:
        SourceError: the source does not have ``day``.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    first_day = open_source(settings.source).first_day
    return [
        d for d in day_range(first_day, day - ONE_DAY) if lakehouse.commit(tables.INCREC_SAMPLE, d) is None
    ]
