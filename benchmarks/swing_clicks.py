"""Which clicks are indexed? Power-law logs of any size, in chunks, the same for the same shape and seed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

CLICKS_PER_CHUNK = 1 << 20
SCHEMA = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("event_time", pa.int64())])


@dataclass(frozen=True)
class Shape:
    """
    How large a log is and how steeply its activity and popularity fall.

    User and item of a click are drawn by themselves, with weight (rank + offset) ** -exponent. A catalogue
    larger than the number of clicked items leaves items without a click, as real ones do.
    """

    name: str
    n_users: int
    n_catalogue: int
    n_clicks: int
    user_exponent: float = 0.6
    item_exponent: float = 0.8
    offset: float = 50.0
    max_users_per_item: int | None = None


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("134k", 5_000, 3_000, 134_000, offset=10.0),
        Shape("1M", 20_000, 50_000, 1_000_000),
        Shape("taobao_small", 36_535, 9_500_000, 6_430_000, user_exponent=0.4),
        Shape("taobao_large", 705_699, 22_000_000, 131_000_000, user_exponent=0.4, max_users_per_item=200),
    )
}


def click_chunks(shape: Shape, seed: int = 0) -> Iterator[pa.RecordBatch]:
    """Give the clicks in chunks: ids without order, so that popularity and id have nothing in common."""
    generator = np.random.default_rng(seed)
    user_ids = _spread(np.arange(shape.n_users))
    for first in range(0, shape.n_clicks, CLICKS_PER_CHUNK):
        n = min(CLICKS_PER_CHUNK, shape.n_clicks - first)
        user = draw_ranks(generator, n, shape.n_users, shape.user_exponent, shape.offset)
        item = draw_ranks(generator, n, shape.n_catalogue, shape.item_exponent, shape.offset)
        time = np.arange(first, first + n)
        yield pa.record_batch([user_ids[user], _spread(item), time], schema=SCHEMA)


def click_table(shape: Shape, seed: int = 0) -> pa.Table:
    """Give the clicks as one table."""
    return pa.Table.from_batches(click_chunks(shape, seed), SCHEMA)


def draw_ranks(
    generator: np.random.Generator, n: int, size: int, exponent: float, offset: float
) -> np.ndarray:
    """Draw ranks below ``size`` by the inverse of their (continuous) distribution."""
    low, high = offset ** (1 - exponent), (size + offset) ** (1 - exponent)
    ranks = (low + generator.random(n) * (high - low)) ** (1 / (1 - exponent)) - offset
    return np.minimum(ranks.astype(np.int64), size - 1)


def _spread(ranks: np.ndarray) -> np.ndarray:
    """Give each rank an id of its own, far from its neighbours' (a one-to-one map of 2**40 numbers)."""
    mixed = ranks.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed & np.uint64(2**40 - 1)).astype(np.int64)
