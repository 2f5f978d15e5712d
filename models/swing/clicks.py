"""Which clicks are there? A table or a stream of Arrow chunks -> numbered users and items."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.swing.config import SwingConfig
from models.swing.memory import check_clicks

COLUMNS = ("user_id", "item_id", "event_time")
ROWS_PER_STEP = 1 << 18

Clicks = pa.Table | pa.RecordBatch | pa.RecordBatchReader | Iterable[pa.RecordBatch | pa.Table]


class BadClicks(ValueError):
    """The click table cannot be indexed."""


@dataclass
class NumberedClicks:
    """
    All clicks, in the order in which they came.

    ``user`` and ``item`` are int32 numbers into ``user_ids`` and ``item_ids`` (int64, in no order);
    ``time`` is int64, None where it was not asked for.
    """

    user_ids: np.ndarray
    item_ids: np.ndarray
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray | None


def number_clicks(clicks: Clicks, config: SwingConfig) -> NumberedClicks:
    """
    Take clicks in and number their users and items; times only where the item cap asks for them.

    Raises:
        BadClicks: a column is missing, repeated, has nulls, is no integer or time, or changes its type.
        BudgetTooSmall: there are too many; of a table this is known before the first row is read.
    """
    from models.swing.ids import IdNumbers

    check_clicks(clicks.num_rows if isinstance(clicks, pa.Table | pa.RecordBatch) else 0, 0, config)
    is_timed = config.max_items_per_user is not None
    users, items = IdNumbers(), IdNumbers()
    user, item, time = [], [], []
    n_clicks = 0
    for user_id, item_id, event_time in _steps(clicks):
        n_clicks += len(user_id)
        user.append(users.number(user_id))
        item.append(items.number(item_id))
        check_clicks(n_clicks, len(users.ids()) + len(items.ids()), config)
        if is_timed:
            time.append(event_time.copy())
    return NumberedClicks(
        users.ids(),
        items.ids(),
        _joined(user, np.int32),
        _joined(item, np.int32),
        _joined(time, np.int64) if is_timed else None,
    )


def _steps(clicks: Clicks) -> Iterator[list[np.ndarray]]:
    """Give the three columns as int64 arrays, some rows at a time."""
    types: list[pa.DataType] | None = None
    for chunk in [clicks] if isinstance(clicks, pa.Table | pa.RecordBatch) else clicks:
        _check(chunk)
        found = [chunk.schema.field(name).type for name in COLUMNS]
        types = types or found
        if found != types:
            raise BadClicks(
                f"chunks of clicks differ in their types: {', '.join(map(str, types))} first, then "
                f"{', '.join(map(str, found))} of {', '.join(COLUMNS)}"
            )
        for first in range(0, chunk.num_rows, ROWS_PER_STEP):
            rows = chunk.slice(first, ROWS_PER_STEP)
            yield [_as_int64(rows[name], name) for name in COLUMNS]


def _check(chunk: pa.RecordBatch | pa.Table) -> None:
    names = chunk.schema.names
    for name in COLUMNS:
        if names.count(name) != 1:
            times = "no" if name not in names else "more than one"
            raise BadClicks(f"clicks have {times} column {name}, only {', '.join(names)}")
        kind = chunk.schema.field(name).type
        is_time = name == "event_time" and pa.types.is_timestamp(kind)
        if not (pa.types.is_integer(kind) or is_time):
            raise BadClicks(f"clicks have a {name} of type {kind}, which is no integer; map such ids first")
        if chunk[name].null_count:
            raise BadClicks(
                f"clicks have {chunk[name].null_count} nulls in {name}; quarantine such rows first"
            )


def _as_int64(column: pa.Array | pa.ChunkedArray, name: str) -> np.ndarray:
    try:
        return column.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise BadClicks(f"clicks have a {name} that is no int64: {error}; map such ids first") from error


def _joined(pieces: list[np.ndarray], dtype: type) -> np.ndarray:
    """Put the pieces behind each other, dropping each as soon as it is copied."""
    joined = np.empty(sum(map(len, pieces)), dtype)
    end = len(joined)
    while pieces:
        piece = pieces.pop()
        joined[end - len(piece) : end] = piece
        end -= len(piece)
    return joined
