"""
Which samples do all methods of the training benchmark learn from, and what must they find the day after?

A sample is one click and the user's items before it, the newest 50, oldest first; clicks without any are left
out. The last day is held out: users with a history must be given what they click that day and have not had.
Items are numbers from 1 on; 0 is kept for padding.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from benchmarks.swing import read_kuairand
from lakehouse.sources.synthetic import SyntheticConfig, SyntheticWorld

HISTORY_LENGTH = 50
KUAIRAND_PAST = "user_history_apr08_apr24_last50.parquet"


@dataclass(frozen=True)
class Log:
    """Clicks in the order of time, int64 [c] each, and what users had before the first day, oldest first."""

    user: np.ndarray
    item: np.ndarray
    day: np.ndarray
    past: dict[int, list[int]]


def kuairand_log(folder: Path) -> Log:
    """Read the clicks of the real days, and as the past what users watched long in the weeks before."""
    clicks, dates = read_kuairand(folder)
    past = pyarrow.parquet.read_table(folder / KUAIRAND_PAST, columns=["user_id", "long_watch_seq"])
    return _log(clicks, dates.to_numpy(), dict(zip(*(column.to_pylist() for column in past), strict=True)))


def synthetic_log(**fields: int) -> Log:
    """Draw the clicks of the synthetic world; ``fields`` are of its config."""
    world = SyntheticWorld(SyntheticConfig(**fields))
    days = [world.first_day + timedelta(days=n) for n in range(world.config.n_days)]
    tables = [table.filter(table["is_click"]) for table in (world.read("exposure", day) for day in days)]
    dates = np.repeat(np.arange(len(days)), [table.num_rows for table in tables])
    columns = ["user_id", "item_id", "event_time"]
    return _log(pa.concat_tables(table.select(columns) for table in tables), dates, {})


def make_samples(log: Log) -> dict[str, np.ndarray]:
    """
    Cut a log into samples and the held-out day.

    Returns:
        ``n_items``; ``candidates``, the items that were clicked before the held-out day: all methods are
        asked for these alone, as torch-rechub draws no others as negatives; ``target`` [n] and the ragged
        ``history`` of the samples; the ragged ``test_history`` and ``test_targets`` of the users to find
        items for. Ragged: values and ``<name>_offsets``. All int64.
    """
    last_day = log.day.max()
    had = {user: list(items) for user, items in log.past.items()}
    targets, histories, wanted, before = [], [], {}, {}
    for user, item, day in zip(log.user.tolist(), log.item.tolist(), log.day.tolist(), strict=True):
        items = had.setdefault(user, [])
        if day < last_day:
            if items:
                targets.append(item)
                histories.append(items[-HISTORY_LENGTH:])
            items.append(item)
        elif items:
            before[user] = items
            wanted.setdefault(user, set()).add(item)
    known = np.unique(np.concatenate([np.array(items, np.int64) for items in had.values()]))
    number = {item: place for place, item in enumerate(known.tolist(), 1)}
    new = [sorted(wanted[user] - set(before[user])) for user in wanted]
    users = [user for user, items in zip(wanted, new, strict=True) if items]
    before_last = np.unique(log.item[log.day < last_day]).tolist()
    # an item that nobody has had yet cannot be found by its id: it counts as a miss, under number -1
    return {
        "n_items": np.int64(len(known)),
        "candidates": np.array([number[item] for item in before_last], np.int64),
        "target": np.array([number[item] for item in targets], np.int64),
        **_ragged("history", [[number[item] for item in items] for items in histories]),
        **_ragged(
            "test_history", [[number[item] for item in before[user][-HISTORY_LENGTH:]] for user in users]
        ),
        **_ragged("test_targets", [[number.get(item, -1) for item in items] for items in new if items]),
    }


def _log(clicks: pa.Table, dates: np.ndarray, past: dict[int, list[int]]) -> Log:
    order = pc.sort_indices(clicks, [(name, "ascending") for name in ("event_time", "user_id", "item_id")])
    user, item = (clicks[name].take(order).to_numpy().astype(np.int64) for name in ("user_id", "item_id"))
    return Log(user, item, dates[order.to_numpy()].astype(np.int64), past)


def _ragged(name: str, lists: list[list[int]]) -> dict[str, np.ndarray]:
    offsets = np.cumsum([0, *map(len, lists)])
    return {name: np.array([item for items in lists for item in items], np.int64), f"{name}_offsets": offsets}
