"""
MNR tasks, the daily batch: other scenarios' rankings of a window -> candidates -> the online store.

The same pure functions score here as in the streaming job. The store keeps the newer of two writes by their
event times, so a batch never replaces what the streaming job wrote later.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.mnr.replay import LogReport, candidates_at
from models.ragged import flat_lists
from nearline.mnr_lists import PREFIX, list_name
from nearline.store import open_store
from tasks.days import ONE_DAY, ingested, start_of
from tasks.rankings import is_stand_in, read_visits
from tasks.settings import Settings

BLOCK = 8192


@dataclass(frozen=True)
class BatchReport:
    """What ``rebuild_mnr_candidates`` wrote, and what the rankings lost on the way."""

    n_users: int
    n_lists: int
    n_candidates: int
    is_stand_in: bool
    """Visits stood in for rankings, which the source does not log."""
    log: LogReport


@dataclass(frozen=True)
class LoadReport:
    """Lists written to the online store, of the others it held newer ones; and those taken out of it."""

    n_lists: int
    n_written: int
    n_forgotten: int


def has_logs(day: date, settings: Settings) -> bool:
    """Tell whether the day's logs are ingested: exposures are written last."""
    return Lakehouse(settings.lakehouse_root).commit(tables.EXPOSURE, day) is not None


def rebuild_mnr_candidates(day: date, settings: Settings) -> BatchReport:
    """
    Replace ``mnr_candidates/ds=<day>``: each user's lists as of the end of ``day``, one per other scenario.

    Raises:
        MissingPartition: a day of the window was not ingested.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    log = read_visits(lakehouse, day, settings)
    end = start_of(day + ONE_DAY, ingested(lakehouse, day).meta["timezone"])
    users = np.unique(log.users)
    moments = pa.table({"user_id": users, "event_time": pa.array([end] * len(users), tables.TIME)})
    blocks = [
        candidates_at(log, moments.slice(start, BLOCK), settings.mnr) for start in range(0, len(users), BLOCK)
    ]
    candidates = pa.concat_tables(
        [tables.MNR_CANDIDATES.schema.empty_table()]
        + [block.select(tables.MNR_CANDIDATES.schema.names) for block in blocks]
    )
    lakehouse.replace(tables.MNR_CANDIDATES, day, candidates)
    n_candidates = pc.sum(pc.list_value_length(candidates["item_ids"])).as_py() or 0
    return BatchReport(len(users), candidates.num_rows, n_candidates, is_stand_in(lakehouse, day), log.report)


def load_mnr_candidates(day: date, settings: Settings) -> LoadReport:
    """
    Write the lists of ``mnr_candidates/ds=<day>`` to the online store, as ``mnr@<scenario>``.

    Takes away lists that are older than the window or than ``mnr.idle_seconds``, whoever wrote them: those of
    users who have gone. It is the newest day's window that counts, so that an older day, loaded again, brings
    none of them back. A newer list stays, as the store compares event times.

    Raises:
        MissingPartition: the day's candidates are not there.
        StoreUnavailable: the store does not answer.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    candidates = lakehouse.read(tables.MNR_CANDIDATES, day)
    oldest = _oldest(lakehouse, max(lakehouse.days(tables.MNR_CANDIDATES)), settings)
    store, n_written, n_forgotten = open_store(settings.online_store_url), 0, 0
    try:
        for scenario in sorted(pc.unique(candidates["scenario"]).to_pylist()):
            of_scenario = candidates.filter(pc.equal(candidates["scenario"], scenario))
            for start in range(0, of_scenario.num_rows, BLOCK):
                block = of_scenario.slice(start, BLOCK)
                n_written += store.write_many(
                    list_name(scenario),
                    block["user_id"].to_numpy(),
                    *_padded(block),
                    release=f"batch {day}",
                    event_times=block["event_time"].to_numpy(),
                )
        for name in sorted(store.list_names()):
            if name.startswith(PREFIX):
                n_forgotten += store.forget_before(name, oldest)
    finally:
        store.close()
    return LoadReport(candidates.num_rows, n_written, n_forgotten)


def _oldest(lakehouse: Lakehouse, day: date, settings: Settings) -> datetime:
    """Give the earliest event time that a list of the day's window can have, UTC without a zone."""
    timezone = ingested(lakehouse, day).meta["timezone"]
    begins = start_of(day - (settings.window_days - 1) * ONE_DAY, timezone)
    # A queue whose newest visit is exactly idle_seconds old is forgotten.
    idle_since = start_of(day + ONE_DAY, timezone) - timedelta(seconds=settings.mnr.idle_seconds)
    oldest = max(begins, idle_since + timedelta(microseconds=1))
    # An event may come from up to an hour before its day.
    event_times = lakehouse.read(tables.MNR_CANDIDATES, day, columns=["event_time"])["event_time"]
    return min(oldest, pc.min(event_times).as_py() or oldest)


def _padded(lists: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Give items int64 [n, K] padded with -1 and scores float32 [n, K]; K is the longest list."""
    offsets, items = flat_lists(lists["item_ids"])
    lengths = np.diff(offsets)
    shape = (len(lengths), int(lengths.max(initial=1)))
    is_item = np.arange(shape[1]) < lengths[:, None]
    padded, scores = np.full(shape, -1, np.int64), np.zeros(shape, np.float32)
    padded[is_item] = items
    scores[is_item] = lists["scores"].combine_chunks().flatten().to_numpy()
    return padded, scores
