"""How does a source get clicks that once were? In the order of their times, so many a second."""

import time
from collections.abc import Callable, Sequence

import pyarrow as pa

from nearline.click_source import ClickSource
from nearline.clicks import Click

AT_ONCE = 500


def clicks_of(table: pa.Table) -> list[Click]:
    """Give the rows, with user_id, item_id and event_time, as clicks in the order of time (ties by ids)."""
    ordered = table.sort_by([(name, "ascending") for name in ("event_time", "user_id", "item_id")])
    times = ordered["event_time"].cast(pa.timestamp("us")).cast(pa.int64())
    columns = (column.to_pylist() for column in (ordered["user_id"], ordered["item_id"], times))
    return [Click(*row) for row in zip(*columns, strict=True)]


def replay(
    clicks: Sequence[Click],
    source: ClickSource,
    *,
    per_second: float | None = None,
    on_sent: Callable[[int], None] | None = None,
) -> float:
    """
    Send the clicks and give the seconds it took.

    Args:
        clicks: in the order to send them.
        source: where to.
        per_second: how many a second; None for as fast as it goes.
        on_sent: called with the number sent so far, after each write.

    Raises:
        StoreUnavailable: the source does not answer.
    """
    started, sent = time.monotonic(), 0
    while sent < len(clicks):
        due = len(clicks) if per_second is None else int((time.monotonic() - started) * per_second) + 1
        until = min(due, sent + AT_ONCE, len(clicks))
        if until > sent:
            source.send(clicks[sent:until])
            sent = until
            if on_sent:
                on_sent(sent)
        else:
            time.sleep(max(0.0, started + sent / per_second - time.monotonic()))
    return time.monotonic() - started
