"""History tasks: the day's exposures -> clicks, user histories and the dense item index."""

from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa

from lakehouse import tables
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from tasks.days import ONE_DAY, ingested, source_first_day, start_of, window
from tasks.settings import Settings
from tasks.spark import spark_session


@dataclass(frozen=True)
class HistoryReport:
    """What ``build_histories`` wrote."""

    n_clicks: int
    n_users: int
    n_items: int
    n_new_items: int


def build_histories(day: date, settings: Settings) -> HistoryReport:
    """
    Replace ``click``, ``user_history`` and ``item_index`` of ``day``.

    On the source's first day the eve's histories and index are written too: what the users of a new
    deployment brought along (empty without a warm start).

    Raises:
        MissingPartition: the day was not ingested, or a day of the window has no clicks.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    first_day = source_first_day(ingested(lakehouse, day))
    if day == first_day:
        _write_histories(lakehouse, day - ONE_DAY, settings)
        _write_item_index(lakehouse, day - ONE_DAY, tables.ITEM_INDEX.schema.empty_table(), settings)
    clicks = run_sql(
        "marts/click",
        {"exposure": lakehouse.relation(tables.EXPOSURE, [day])},
        {"day": day},
        spark=spark_session(settings),
    )
    n_clicks = lakehouse.replace(tables.CLICK, day, clicks).n_rows
    n_users = _write_histories(lakehouse, day, settings)
    yesterday = lakehouse.read(tables.ITEM_INDEX, day - ONE_DAY)
    n_items = _write_item_index(lakehouse, day, yesterday, settings)
    return HistoryReport(n_clicks, n_users, n_items, n_items - yesterday.num_rows)


def read_window_clicks(lakehouse: Lakehouse, day: date, settings: Settings) -> pa.Table:
    """
    Read the clicks of the window that ends on ``day`` with the warm start's items that are still in it.

    Returns:
        Columns user_id, item_id, scenario, event_time, place; ``place`` orders a user's brought items, which
        all carry the time of the last one and no scenario (negative; 0 for logged clicks).
    """
    exposure = ingested(lakehouse, day)
    first_day = source_first_day(exposure)
    days = window(day, settings.window_days, first_day)
    first_of_window = day - timedelta(days=settings.window_days - 1)
    return run_sql(
        "marts/window_click",
        {
            "click": lakehouse.relation(tables.CLICK, days),
            "initial_history": lakehouse.relation(
                tables.INITIAL_HISTORY, _days_with(lakehouse, tables.INITIAL_HISTORY, first_day)
            ),
        },
        {
            "first_day": first_of_window,
            "last_day": day,
            "window_start": start_of(first_of_window, exposure.meta["timezone"]),
        },
        spark=spark_session(settings),
    )


def _write_histories(lakehouse: Lakehouse, day: date, settings: Settings) -> int:
    histories = run_sql(
        "marts/user_history",
        {"window_click": read_window_clicks(lakehouse, day, settings)},
        {"history_length": settings.history_length},
        spark=spark_session(settings),
    )
    return lakehouse.replace(tables.USER_HISTORY, day, histories).n_rows


def _write_item_index(lakehouse: Lakehouse, day: date, yesterday: pa.Table, settings: Settings) -> int:
    item_index = run_sql(
        "marts/item_index",
        {
            "yesterday": yesterday,
            "item": lakehouse.relation(
                tables.ITEM_SNAPSHOT, _days_with(lakehouse, tables.ITEM_SNAPSHOT, day)
            ),
            "click": lakehouse.relation(tables.CLICK, _days_with(lakehouse, tables.CLICK, day)),
            "initial_history": lakehouse.relation(
                tables.INITIAL_HISTORY, _days_with(lakehouse, tables.INITIAL_HISTORY, day)
            ),
        },
        {"day": day},
        spark=spark_session(settings),
    )
    return lakehouse.replace(tables.ITEM_INDEX, day, item_index).n_rows


def _days_with(lakehouse: Lakehouse, table: tables.Table, day: date) -> list[date]:
    return [day] if lakehouse.commit(table, day) else []
