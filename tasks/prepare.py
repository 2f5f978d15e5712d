"""Which steps does a day need before it can be learned from, and which days before it still lack them?"""

from datetime import date
from importlib import import_module

from lakehouse import tables
from lakehouse.sources import open_source
from lakehouse.store import Lakehouse
from tasks.days import ONE_DAY, day_range
from tasks.settings import Settings

# Where each step lives; imported when it runs, since some load heavy packages.
STEPS = {
    "ingest_logs": "tasks.ingest",
    "validate_data": "tasks.validate",
    "build_histories": "tasks.histories",
    "rebuild_swing_index": "tasks.swing",
    "construct_samples": "tasks.samples",
}


def run_step(name: str, day: date, settings: Settings) -> object:
    """Run one step for one day; give its report."""
    return getattr(import_module(STEPS[name]), name)(day, settings)


def list_missing_days(day: date, settings: Settings) -> list[date]:
    """
    List the days from the source's first day to the day before ``day`` that have no samples yet.

    Where PI2I was switched on later, the days that lack its samples alone are among them. All of them, not
    only the window's: the item index and the histories grow from day to day. Days before the first that has
    samples were there, and retention dropped them: what they gave is in the days after.

    Raises:
        SourceError: the source does not have ``day``.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    first_day = open_source(settings.source).first_day
    there = {d for d in lakehouse.days(tables.INCREC_SAMPLE) if d < day}
    whole = there.intersection(lakehouse.days(tables.PI2I_SAMPLE)) if settings.pi2i else there
    return [d for d in day_range(min(there, default=first_day), day - ONE_DAY) if d not in whole]
