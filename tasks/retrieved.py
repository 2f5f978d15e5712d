"""
What did the existing channels return for a request (R_u), and what do they return for a user now?

Three sources (IncRec 2.1, METHODS section 2) and a control, by ``samples.retrieved_by``:

- ``simulated``: the union of ``samples.simulated_channels``. ``swing``: as a daily release would serve it, by
  the i2i table of the day before, the history before the request, popular items for users without a history.
  ``mnr``: what other scenarios' rankings had put into the store for the user before the request.
- ``logged``: the table ``retrieval_log``. A request that no logged retrieval answers has no R_u: its targets
  cannot be told apart, so it gives no target group and no sample, and is counted.
- ``release``: a registered release lends its channels, its i2i table and its quotas, so that ITG is what this
  system misses. It must be of a day before the request's.
- ``random``: the control. Items by chance, so that nothing can be learned of what R_u misses: what
  a method still gains over the base model, it gains by something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.serving import read_serving
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from models.item_to_item import retrieve_by_items
from models.mnr.merging import merge_scenarios
from models.popularity import retrieve_popular
from models.ragged import unite_lists
from tasks.channels import (
    MERGED,
    Catalogue,
    Model,
    Users,
    filters_retrieved,
    read_catalogue,
    with_profiles,
)
from tasks.days import ONE_DAY, ingested, start_of
from tasks.popular import read_popular
from tasks.rankings import candidates_before
from tasks.settings import Settings
from tasks.spark import spark_session

if TYPE_CHECKING:
    from tasks.champion import Champion

BLOCK = 8192


class NoRelease(LookupError):
    """No release can lend its channels; the message says why and what to set."""


class NoRetrievalLog(LookupError):
    """The day's source has no retrieval log; the message says what to set."""


@dataclass(frozen=True)
class Retrieved:
    """R_u of each request, best first, null where it is not known; and who returned it."""

    item_ids: pa.ListArray
    by: str


def retrieved_for_requests(
    lakehouse: Lakehouse, day: date, requests: pa.Table, settings: Settings
) -> Retrieved:
    """
    Give R_u of the day's requests, row by row; what it reads is of the days before, or before the request.

    Args:
        lakehouse: where the tables are.
        day: the day of the requests.
        requests: request_id, user_id, event_time and history_item_ids, as ``sql/marts/request_history``.
        settings: ``samples`` says who retrieved.

    Raises:
        MissingPartition: a table that is read is not there.
        NoRetrievalLog: the day has no ``retrieval_log``.
        NoRelease: no release of a day before ``day`` can lend its channels.
    """
    histories = pc.cast(requests["history_item_ids"], tables.IDS).combine_chunks()
    by = settings.samples.retrieved_by
    if by == "logged":
        gap = timedelta(seconds=settings.samples.visit_gap_seconds)
        return Retrieved(_logged(lakehouse, day, requests, gap, settings), by)
    if by == "release":
        version, release_day = lending_release(day, settings)
        users = with_profiles(lakehouse, day - ONE_DAY, requests, prefix="history_")
        catalogue = read_catalogue(lakehouse, day - ONE_DAY, settings)
        return Retrieved(_lent(version, catalogue, users, settings), f"release {version} of {release_day}")
    if by == "random":
        # of the day itself: a source's first day has none before it
        item_ids = lakehouse.read(tables.ITEM_SNAPSHOT, day, columns=["item_id"])["item_id"].to_numpy()
        return Retrieved(as_lists(draw(item_ids, requests.num_rows, day, settings)), by)
    channels = settings.samples.simulated_channels
    lists = pa.array([[]] * requests.num_rows, tables.IDS)
    if "swing" in channels:
        i2i_table = lakehouse.read(tables.I2I_TABLE, day - ONE_DAY)
        popular = read_popular(lakehouse, day - ONE_DAY, settings)
        lists = as_lists(simulate(i2i_table, popular, histories, settings))
    if "mnr" in channels:
        lists = unite_lists(
            lists, _held(lakehouse, day, requests.select(["user_id", "event_time"]), settings)
        )
    return Retrieved(lists, by if channels == ("swing",) else f"{by} {'+'.join(channels)}")


def retrieved_for_filter(
    models: Mapping[str, Model], catalogue: Catalogue, users: Users, settings: Settings
) -> pa.ListArray | None:
    """
    Give what the existing channels return for users as of the catalogue's day; None if no model filters it.

    Of a log it is each user's last retrieval of that day, empty without one: later ones are not known yet.

    Raises:
        NoRetrievalLog, NoRelease: as ``retrieved_for_requests``.
    """
    if not any(filters_retrieved(model) for model in models.values()):
        return None
    if settings.samples.retrieved_by == "logged":
        lakehouse, n_users = Lakehouse(settings.lakehouse_root), len(users.ids)
        now = start_of(catalogue.day + ONE_DAY, ingested(lakehouse, catalogue.day).meta["timezone"])
        requests = pa.table(
            {
                "request_id": np.arange(n_users),
                "user_id": users.ids,
                "event_time": pa.array([now] * n_users, tables.TIME),
            }
        )
        lists = _logged(lakehouse, catalogue.day, requests, ONE_DAY + timedelta(hours=1), settings)
        return pc.if_else(pc.is_null(lists), pa.scalar([], tables.IDS), lists)
    if settings.samples.retrieved_by == "release":
        version, _ = lending_release(catalogue.day + ONE_DAY, settings)
        return _lent(version, catalogue, users, settings)
    if settings.samples.retrieved_by == "random":
        return as_lists(draw(catalogue.item_ids, len(users.ids), catalogue.day, settings, *users.ids[:1]))
    lists = pa.array([[]] * len(users.ids), tables.IDS)
    if "swing" in settings.samples.simulated_channels:
        lists = as_lists(simulate(catalogue.i2i_table, catalogue.popular, users.histories, settings))
    if "mnr" in settings.samples.simulated_channels:
        # as of the start of the day that is served: its own rankings are not known yet
        now = pa.array([users.now] * len(users.ids), tables.TIME)
        moments = pa.table({"user_id": users.ids, "event_time": now})
        lists = unite_lists(
            lists, _held(Lakehouse(settings.lakehouse_root), catalogue.day, moments, settings)
        )
    return lists


def simulate(
    i2i_table: pa.Table, popular: np.ndarray, histories: pa.ListArray, settings: Settings
) -> np.ndarray:
    """
    Simulate what Swing returns: its channel, and popular items for users without a history.

    Returns:
        int64 [n_requests, retrieved_per_user], best first, padded with -1.
    """
    k = settings.samples.retrieved_per_user
    retrieved = retrieve_by_items(i2i_table, histories, k, n_triggers=settings.samples.n_triggers)
    is_unknown = pc.list_value_length(histories).to_numpy(zero_copy_only=False) == 0
    if is_unknown.any():
        unknown = histories.filter(pa.array(is_unknown))
        retrieved[is_unknown] = retrieve_popular(popular, unknown, k)
    return retrieved


def draw(item_ids: np.ndarray, n: int, day: date, settings: Settings, *block: int) -> np.ndarray:
    """
    Draw R_u at random for ``n`` requests of a day, or of a ``block`` of them, the same in every run.

    Returns:
        int64 [n, retrieved_per_user], -1 where an item was drawn twice.
    """
    generator = np.random.default_rng([settings.evaluation.seed, day.toordinal(), *block])
    drawn = np.sort(generator.choice(item_ids, (n, settings.samples.retrieved_per_user)), axis=1)
    drawn[:, 1:][drawn[:, 1:] == drawn[:, :-1]] = -1
    return drawn


def lending_release(day: date, settings: Settings) -> tuple[str, date]:
    """
    Give version and day of the release that lends its channels to the requests of ``day``.

    It is the one that ``samples.release`` names, else the one that serves.

    Raises:
        NoRelease: none serves, or it is not of a day before ``day``: it would have seen what it is asked.
        UnknownVersion: there is no such version.
    """
    if version := settings.samples.release:
        from tasks import tracking

        release_day = tracking.find_release(version, settings).day
    else:
        serving = read_serving(settings.release_root)
        if serving is None:
            raise NoRelease(
                f"samples.retrieved_by = release, but none serves below {settings.release_root}: name one "
                "with samples.release, or take simulated until the first is published"
            )
        version, release_day = serving.version, serving.day
    if release_day >= day:
        raise NoRelease(
            f"release {version} is of {release_day} and cannot lend its channels to {day}: name one of a day "
            "before it with samples.release, or set samples.retrieved_by = simulated"
        )
    return version, release_day


def as_lists(retrieved: np.ndarray) -> pa.ListArray:
    """Turn a matrix of item ids padded with -1 into one list per row."""
    is_item = retrieved >= 0
    offsets = np.concatenate([[0], np.cumsum(is_item.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(retrieved[is_item]))


def _held(lakehouse: Lakehouse, last: date, moments: pa.Table, settings: Settings) -> pa.ListArray:
    """Give what MNR held for users at moments, of rankings up to ``last``: all scenarios merged."""
    per_user = settings.samples.retrieved_per_user
    candidates = candidates_before(lakehouse, last, moments, settings)
    return as_lists(merge_scenarios(candidates, moments.num_rows, per_user))


def _logged(
    lakehouse: Lakehouse, day: date, requests: pa.Table, gap: timedelta, settings: Settings
) -> pa.ListArray:
    """Find each request's logged retrieval, no older than ``gap``: null where there is none."""
    if lakehouse.commit(tables.RETRIEVAL_LOG, day) is None:
        raise NoRetrievalLog(
            f"samples.retrieved_by = logged, but {lakehouse.root} has no retrieval_log of {day}: map it in "
            "the source and ingest the day again, or set samples.retrieved_by = simulated"
        )
    eve = day - ONE_DAY
    days = [each for each in (eve, day) if lakehouse.commit(tables.RETRIEVAL_LOG, each)]
    found = run_sql(
        "marts/logged_retrieval",
        {
            "request": requests.select(["request_id", "user_id", "event_time"]),
            "retrieval_log": lakehouse.relation(tables.RETRIEVAL_LOG, days),
        },
        {
            "day": day,
            "yesterday": eve,
            "primary_scenario": ingested(lakehouse, day).meta["primary_scenario"],
            "visit_gap_seconds": int(gap.total_seconds()),
        },
        spark=spark_session(settings),
    )
    rows = pc.index_in(requests["request_id"], found["request_id"]).combine_chunks()
    return found["retrieved_item_ids"].combine_chunks().cast(tables.IDS).take(rows)


@lru_cache(maxsize=1)
def _lender(folder: Path) -> "Champion":
    """Load a release once for all blocks of users; it never changes."""
    from tasks.champion import load_release

    return load_release(folder)


def _lent(version: str, catalogue: Catalogue, users: Users, settings: Settings) -> pa.ListArray:
    """Retrieve a release's merged list, in blocks of users; its channels filter by its own i2i table."""
    # mlflow is slow to import: only those who borrow a release pay
    from tasks import tracking
    from tasks.champion import retrieve_champion

    release = _lender(tracking.download_release(version, settings.local_root, settings))
    own = release.release
    is_available = np.isin(own.popular_item_ids, catalogue.item_ids)
    catalogue = Catalogue(
        catalogue.day,
        catalogue.items,
        own.i2i_table,
        own.popular_item_ids[is_available],
        own.item_statistics if own.has_scorer else None,
    )
    changes = {"retrieved_by": "simulated", "n_triggers": own.manifest.n_triggers}
    lent = settings.model_copy(update={"samples": settings.samples.model_copy(update=changes)})
    lists = []
    for start in range(0, len(users.ids), BLOCK):
        block = users.slice(start, BLOCK)
        filtered = retrieved_for_filter(release.models, catalogue, block, lent)
        size = sum(release.quotas.values())
        merged = retrieve_champion(release, catalogue, block, size, lent, retrieved=filtered)[MERGED]
        lists.append(as_lists(merged))
    return pa.concat_arrays(lists) if lists else pa.array([], tables.IDS)
