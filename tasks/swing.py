"""
Swing tasks: the clicks of a window -> one i2i table.

Plain functions of a day. Each replaces a whole ``ds`` partition, so a retry changes nothing.
"""

import dataclasses
import json
from datetime import date

import pyarrow as pa

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.swing import I2IBlocks, SwingConfig, SwingReport, iter_i2i_blocks
from models.swing.on_spark import SparkI2IBlocks, iter_i2i_blocks_on_spark
from tasks.days import ONE_DAY, ingested, source_first_day
from tasks.histories import read_window_clicks
from tasks.settings import Settings
from tasks.spark import spark_session


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
    blocks = i2i_blocks(clicks, settings.swing, settings)
    del clicks
    lakehouse.replace_by_batches(
        tables.I2I_TABLE,
        day,
        blocks,
        meta=lambda: {"report": json.dumps(dataclasses.asdict(blocks.report))},
    )
    return blocks.report


def i2i_blocks(clicks: pa.Table, config: SwingConfig, settings: Settings) -> I2IBlocks | SparkI2IBlocks:
    """Give the rows of the i2i table of these clicks, block by block, from the engine that is set."""
    spark = spark_session(settings)
    if spark is None:
        return iter_i2i_blocks(clicks, config)
    return iter_i2i_blocks_on_spark(clicks, config, spark, broadcast_bytes=settings.spark.broadcast_bytes)
