"""
Swing tasks: the clicks of a window -> one i2i table.

Plain functions of a day. Each replaces a whole ``ds`` partition, so a retry changes nothing.
"""

import dataclasses
import json
from datetime import date

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.swing import SwingReport, iter_i2i_blocks
from tasks.days import ONE_DAY, ingested, source_first_day
from tasks.histories import read_window_clicks
from tasks.settings import Settings


def rebuild_swing_index(day: date, settings: Settings) -> SwingReport:
    """
    Replace ``i2i_table/ds=<day>`` from the clicks of the window that ends on ``day``.

    On the source's first day the eve's table is built too, from what users brought along.

    Raises:
        MissingPartition: a day of the window has no committed ``click`` partition.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    if day == source_first_day(ingested(lakehouse, day)):
        _rebuild(lakehouse, day - ONE_DAY, settings)
    return _rebuild(lakehouse, day, settings)


def _rebuild(lakehouse: Lakehouse, day: date, settings: Settings) -> SwingReport:
    clicks = read_window_clicks(lakehouse, day, settings).select(["user_id", "item_id", "event_time"])
    blocks = iter_i2i_blocks(clicks, settings.swing)
    del clicks
    lakehouse.replace_by_batches(
        tables.I2I_TABLE,
        day,
        blocks,
        meta=lambda: {"report": json.dumps(dataclasses.asdict(blocks.report))},
    )
    return blocks.report
