"""
How are the triggers spread over a Spark cluster?

The driver indexes the clicks and plans blocks of triggers; the workers score them with the kernel of one
machine; the rows come back in order, wave by wave, so that the driver holds two waves and never the table.
An index of up to ``broadcast_bytes`` goes whole to every worker process. A larger one is cut: Spark groups
the users by the blocks that hold an item of theirs, and a worker gets the users of its block with all their
items, which is all that a trigger's scores depend on (a nearly full matrix, which is scored from the users
that are missing, goes whole at any size). Both give the bytes of one machine.

A block's rows travel as one value, as Arrow writes them: row by row, Spark would make each a Java object.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.swing.click_index import ClickIndex, identity, index_clicks
from models.swing.clicks import Clicks
from models.swing.config import SwingConfig
from models.swing.paths import path_of_blocks
from models.swing.plan import TriggerBlock, plan_blocks
from models.swing.report import SwingReport, TargetCounts, swing_report
from models.swing.rows import I2I_SCHEMA, BlockScorer
from models.threads import iterate_in_threads

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BLOCKS_PER_SLOT = 16
# Of a wave: starting a task costs about 0.1 s of CPU, so a task scores several blocks.
TASKS_PER_SLOT = 2
ROWS_PER_WAVE = 1 << 24
CUT_PATH = "walk"
USERS_PER_BATCH = 1 << 12
MEMBER = "block long, user long, weight double, items array<int>"
SCORED = "block long, rows binary"
SCORED_SCHEMA = pa.schema([pa.field("block", pa.int64()), pa.field("rows", pa.binary())])


@dataclass(frozen=True)
class _Plan:
    """What every worker needs to know beside the index."""

    blocks: list[TriggerBlock]
    config: SwingConfig


class SparkI2IBlocks:
    """As `models.swing.I2IBlocks`, scored on Spark."""

    schema = I2I_SCHEMA

    def __init__(self, clicks: Clicks, config: SwingConfig, spark: "SparkSession", *, broadcast_bytes: int):
        """Index the clicks and plan the blocks, here. Raises as `models.swing.build_i2i_table`."""
        self._started = time.perf_counter()
        self._spark = spark
        self._index = index_clicks(clicks, config)
        self._n_slots = spark.sparkContext.defaultParallelism
        blocks = plan_blocks(self._index, config, n_blocks=self._n_slots * BLOCKS_PER_SLOT)
        self._plan = _Plan(blocks, config.model_copy(update={"memory_budget_gib": None, "n_threads": 1}))
        self._path = path_of_blocks(self._index, config)
        self._is_whole = self._index.n_bytes <= broadcast_bytes or self._path != CUT_PATH
        self._report: SwingReport | None = None

    @property
    def report(self) -> SwingReport:
        """What came out; there once all batches were read."""
        if self._report is None:
            raise RuntimeError("the report of a Swing index is there once all its blocks were read")
        return self._report

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Give the batches; while one wave is written, the next is scored."""
        index, plan = self._index, self._plan
        counts = TargetCounts()
        waves = self._waves()
        if waves:
            with self._scoring_whole() if self._is_whole else self._scoring_cut() as score:
                for scored in iterate_in_threads(score, waves, n_threads=2, n_ahead=1):
                    for content in scored:
                        rows = pa.ipc.open_stream(content).read_next_batch()
                        counts.add(rows)
                        yield rows
        way = "whole" if self._is_whole else "cut"
        self._report = swing_report(
            index,
            counts,
            plan.config,
            path=f"{self._path}, {way} index on Spark",
            n_blocks=len(plan.blocks),
            seconds=time.perf_counter() - self._started,
        )

    def _waves(self) -> list[range]:
        """Cut the blocks into waves of bounded rows that keep every slot busy."""
        blocks = self._plan.blocks
        if not blocks:
            return []
        # the compiler's import takes longer than a whole small index: only those who build one pay for it
        from models.swing.walk import estimate_triggers

        config = self._plan.config
        least_users = 1 if config.include_self_pairs else 2
        _, _, n_rows = estimate_triggers(self._index.lists, config.truncation, least_users)
        running = np.concatenate(([0], np.cumsum(n_rows)))[[0, *(block.last for block in blocks)]]
        waves, first = [], 0
        while first < len(blocks):
            last = int(np.searchsorted(running, running[first] + ROWS_PER_WAVE, side="right")) - 1
            last = min(len(blocks), max(last, first + self._n_slots))
            waves.append(range(first, last))
            first = last
        return waves

    @contextmanager
    def _scoring_whole(self) -> Iterator[Callable[[range], list[bytes]]]:
        shared = self._spark.sparkContext.broadcast((self._index.arrays(), self._plan))

        def score(wave: range) -> list[bytes]:
            n_tasks = min(len(wave), self._n_slots * TASKS_PER_SLOT)
            blocks = self._spark.range(wave.start, wave.stop, numPartitions=n_tasks)
            return _in_order(blocks.mapInArrow(partial(_score_blocks, shared), SCORED))

        try:
            yield score
        finally:
            shared.destroy()

    @contextmanager
    def _scoring_cut(self) -> Iterator[Callable[[range], list[bytes]]]:
        shared = self._spark.sparkContext.broadcast((self._index.item_ids, self._plan))
        users = self._users().repartition(self._n_slots).persist()

        def score_members(key: tuple[pa.Scalar, ...], members: pa.Table) -> pa.Table:
            return _score_members(shared, key, members)

        def score(wave: range) -> list[bytes]:
            members = users.mapInArrow(partial(_members, shared, wave), MEMBER)
            return _in_order(members.groupBy("block").applyInArrow(score_members, SCORED))

        try:
            yield score
        finally:
            users.unpersist()
            shared.destroy()

    def _users(self) -> "DataFrame":
        """Give the users to Spark: number, weight and items of each."""
        index = self._index
        batches = []
        for first in range(0, index.n_users, USERS_PER_BATCH):
            last = min(first + USERS_PER_BATCH, index.n_users)
            starts = index.user_starts[first : last + 1]
            items = index.user_items[starts[0] : starts[-1]].astype(np.int32)
            lists = pa.ListArray.from_arrays(pa.array((starts - starts[0]).astype(np.int32)), pa.array(items))
            numbers, weights = np.arange(first, last), index.weights[first:last]
            batches.append(pa.record_batch({"user": numbers, "weight": weights, "items": lists}))
        return self._spark.createDataFrame(pa.Table.from_batches(batches))


def iter_i2i_blocks_on_spark(
    clicks: Clicks, config: SwingConfig, spark: "SparkSession", *, broadcast_bytes: int
) -> SparkI2IBlocks:
    """
    Give the rows of `models.swing.build_i2i_table` as record batches, scored on Spark. Raises as it.

    Args:
        clicks: see there; they are indexed in this process, within ``config.memory_budget_gib``.
        config: the options; ``n_threads`` is of this process, a worker's slot scores one block at a time.
        spark: a session whose workers have this package.
        broadcast_bytes: size of the index up to which every worker process gets it whole.
    """
    return SparkI2IBlocks(clicks, config, spark, broadcast_bytes=broadcast_bytes)


def _in_order(scored: "DataFrame") -> list[bytes]:
    """Run the job; give what it scored in the order of the blocks."""
    return [bytes(row["rows"]) for row in sorted(scored.collect(), key=lambda row: row["block"])]


# What this worker process had last: the arrays of an index, and their scorer.
_LAST: list[tuple[dict[str, object], BlockScorer]] = []


def _score_blocks(shared, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Score blocks, given by number, on a worker that has the whole index."""
    arrays, plan = shared.value
    if not _LAST or _LAST[0][0] is not arrays:
        _LAST[:] = [(arrays, BlockScorer(ClickIndex.from_arrays(arrays), plan.config))]
    for batch in batches:
        for number in batch["id"].to_pylist():
            yield _scored(number, _LAST[0][1].rows(plan.blocks[number]))


def _members(shared, wave: range, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Repeat each user for every block of the wave that holds an item of theirs, with that block's number."""
    _, plan = shared.value
    edges = np.array([block.first for block in plan.blocks])
    for batch in batches:
        items = batch["items"]
        block = np.searchsorted(edges, items.flatten().to_numpy(), side="right") - 1
        row = np.repeat(np.arange(batch.num_rows), items.value_lengths().to_numpy())
        is_in_wave = (block >= wave.start) & (block < wave.stop)
        pairs = row[is_in_wave] * len(edges) + block[is_in_wave]
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # they ascend, as a user's items do
        members = batch.take(pa.array(pairs // len(edges)))
        yield pa.record_batch(
            [pa.array(pairs % len(edges)), *members.columns], ["block", *members.schema.names]
        )


def _score_members(shared, key: tuple[pa.Scalar, ...], members: pa.Table) -> pa.Table:
    """Score one block from the users who have an item of it."""
    item_ids, plan = shared.value
    number = key[0].as_py()
    index, block = _index_of(members, plan.blocks[number], item_ids, plan.config)
    rows = BlockScorer(index, plan.config, path=CUT_PATH).rows(block)
    return pa.Table.from_batches([_scored(number, rows)])


def _index_of(
    members: pa.Table, block: TriggerBlock, item_ids: np.ndarray, config: SwingConfig
) -> tuple[ClickIndex, TriggerBlock]:
    """
    Index the users of one block, in their order, with all their items; those outside the block lack users.

    The block holds every trigger between its ends, so its triggers are neighbours here too.
    """
    from models.swing.csr import keep_first, transpose

    members = members.sort_by("user")
    items = pc.list_flatten(members["items"]).to_numpy()
    is_here = np.zeros(len(item_ids), bool)
    is_here[items] = True
    codes = np.flatnonzero(is_here)
    user_items = (np.cumsum(is_here, dtype=np.uint32) - 1)[items]
    starts = np.concatenate(([0], np.cumsum(pc.list_value_length(members["items"]).to_numpy())))
    starts = starts.astype(np.int64)
    n_users = members.num_rows
    by_item = transpose(starts, user_items, identity(n_users), identity(len(codes)), len(codes))
    if config.max_users_per_item is not None:
        by_item = keep_first(*by_item, config.max_users_per_item)
    index = ClickIndex(
        item_ids=item_ids[codes],
        item_starts=by_item[0],
        item_users=by_item[1],
        user_starts=starts,
        user_items=user_items,
        weights=members["weight"].to_numpy(),
        n_clicks=0,
        n_distinct_clicks=0,
        n_clicked_items=0,
        n_items_capped=0,
        n_users_capped=0,
        share_clicks_dropped=0.0,
    )
    return index, TriggerBlock(*np.searchsorted(codes, block).tolist())


def _scored(number: int, rows: pa.RecordBatch) -> pa.RecordBatch:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, I2I_SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
        stream.write_batch(rows)
    content = pa.array([sink.getvalue().to_pybytes()], pa.binary())
    return pa.record_batch([pa.array([number], pa.int64()), content], schema=SCORED_SCHEMA)
