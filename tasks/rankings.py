"""
Which rankings does a task read? A source's ``ranking_log``, or visits that stand in for it.

Where a source logs no rankings, each user's exposures in one scenario, cut into visits by a pause, stand in:
in the order of time, and known from the visit's last exposure on, never before.
"""

from collections.abc import Sequence
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from models.mnr.replay import VisitLog, candidates_at, read_log
from tasks.days import ingested, source_first_day, window
from tasks.settings import Settings
from tasks.spark import spark_session


def is_stand_in(lakehouse: Lakehouse, day: date) -> bool:
    """Tell whether visits stand in for the rankings of a day, which its source does not log."""
    return lakehouse.commit(tables.RANKING_LOG, day) is None


def read_rankings(lakehouse: Lakehouse, days: Sequence[date], settings: Settings) -> pa.Table:
    """
    Read all rankings of ``days``, of every scenario, in the columns of ``ranking_log``.

    Raises:
        MissingPartition: a day has neither rankings nor exposures.
    """
    if not days:
        return tables.RANKING_LOG.schema.empty_table()
    return pa.concat_tables(_rankings(lakehouse, day, settings) for day in days)


def read_visits(lakehouse: Lakehouse, last: date, settings: Settings, *, own: bool = False) -> VisitLog:
    """
    Read the visits of the window that ends on ``last``, of all scenarios but the primary one.

    With ``own`` those of the primary scenario alone. Before the source's first day there are none.
    """
    commit = ingested(lakehouse, last)
    days = window(last, settings.window_days, source_first_day(commit))
    rankings = read_rankings(lakehouse, days, settings)
    is_own = pc.equal(rankings["scenario"], commit.meta["primary_scenario"])
    return read_log(rankings.filter(is_own if own else pc.invert(is_own)), settings.mnr)


def candidates_before(lakehouse: Lakehouse, last: date, moments: pa.Table, settings: Settings) -> pa.Table:
    """
    Give what the store held of other scenarios' rankings at moments: user_id, event_time.

    ``last`` is the latest day whose rankings count; of them those that the store had before the moment.
    Result as ``models.mnr.replay.candidates_at``.
    """
    log = read_visits(lakehouse, last, settings)
    return candidates_at(log, moments, settings.mnr, settings.mnr_daily.delay_seconds)


def _rankings(lakehouse: Lakehouse, day: date, settings: Settings) -> pa.Table:
    if not is_stand_in(lakehouse, day):
        return lakehouse.read(tables.RANKING_LOG, day)
    visits = run_sql(
        "marts/visit_ranking",
        {
            "exposure": lakehouse.relation(tables.EXPOSURE, [day]),
            "item": lakehouse.relation(tables.ITEM_SNAPSHOT, [day]),
        },
        {
            "day": day,
            "visit_gap_seconds": settings.samples.visit_gap_seconds,
            "first_request_id": day.toordinal() << 32,
        },
        spark=spark_session(settings),
    )
    return visits.cast(tables.RANKING_LOG.schema)
