"""
What does each channel retrieve for a set of users, as of a day?

The same code answers for the challenger, for the champion beside it, and for the published candidates.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.channels import merge_channels
from models.increc.model import TrainedModel
from models.item_to_item import retrieve_by_items
from models.pi2i.model import TrainedScorer
from models.pi2i.prices import log_prices
from models.pi2i.trigger_index import TriggerIndex, trigger_index
from models.popularity import retrieve_popular
from models.ragged import join_lists
from models.search import exact_top_k
from tasks.days import ONE_DAY, ingested, start_of
from tasks.popular import read_item_statistics, read_popular
from tasks.settings import PI2I, Settings
from tasks.train import read_checkpoint, read_items, read_scorer

MERGED = "merged"
# Users of whom PI2I's candidates are scored before the log says how far it is.
SCORED_AT_ONCE = 5000

Model = TrainedModel | TrainedScorer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalogue:
    """
    What can be retrieved as of the end of ``day``: available items, the i2i table, popularity.

    ``item_statistics`` is what PI2I's scorer sees of items, None where none is trained.
    """

    day: date
    items: pa.Table
    i2i_table: pa.Table
    popular: np.ndarray
    item_statistics: pa.Table | None = None

    @property
    def item_ids(self) -> np.ndarray:
        """int64, ascending: the available items."""
        return self.items["item_id"].to_numpy()

    @cached_property
    def trigger_index(self) -> TriggerIndex:
        """The i2i table as PI2I reads it, its targets restricted to the available items."""
        return trigger_index(
            self.i2i_table, allowed_item_ids=self.item_ids, item_statistics=self.item_statistics
        )


@dataclass(frozen=True)
class Users:
    """
    Users row by row: ids int64 [n], histories (oldest first) and profiles (null where unknown).

    ``event_times`` and ``scenarios`` tell when (UTC) and where each history item was used; ``now`` is the
    start of the day that is served, which follows the histories' day.
    """

    ids: np.ndarray
    histories: pa.ListArray
    event_times: pa.ListArray
    scenarios: pa.ListArray
    profiles: pa.ListArray
    now: datetime

    def slice(self, start: int, length: int) -> "Users":
        """Give ``length`` users from row ``start`` on, fewer at the end."""
        columns = {
            name: value for name, value in vars(self).items() if isinstance(value, np.ndarray | pa.Array)
        }
        return replace(self, **{name: value[start : start + length] for name, value in columns.items()})


def read_catalogue(lakehouse: Lakehouse, day: date, settings: Settings) -> Catalogue:
    """
    Read what can be retrieved as of the end of ``day``.

    Raises:
        MissingPartition: a table of the day, or the clicks of a day of the window, are not there.
    """
    items = read_items(lakehouse, day, settings).filter(pc.field("is_available"))
    available = items["item_id"].to_numpy()
    popular = read_popular(lakehouse, day, settings)
    return Catalogue(
        day,
        items,
        lakehouse.read(tables.I2I_TABLE, day),
        popular[np.isin(popular, available)],
        read_item_statistics(lakehouse, day, settings) if settings.pi2i else None,
    )


def with_profiles(lakehouse: Lakehouse, day: date, rows: pa.Table, prefix: str = "") -> Users:
    """
    Give the users of the rows, whose histories are as of the end of ``day``, with their profiles as of then.

    ``rows`` has ``user_id`` and, under names that start with ``prefix``, the histories' columns of
    ``user_history``.
    """
    users = lakehouse.read(tables.USER_SNAPSHOT, day)
    places = pc.index_in(rows["user_id"], users["user_id"])
    types = {"item_ids": tables.IDS, "event_times": tables.TIMES, "scenarios": tables.TEXTS}
    return Users(
        rows["user_id"].to_numpy(),
        *(rows[prefix + name].combine_chunks().cast(type_) for name, type_ in types.items()),
        profiles=users["profile"].combine_chunks().take(places.combine_chunks()),
        now=start_of(day + ONE_DAY, ingested(lakehouse, day).meta["timezone"]),
    )


def read_models(
    lakehouse: Lakehouse, day: date, settings: Settings, names: Iterable[str]
) -> dict[str, Model]:
    """
    Load those of ``names`` that are trained, as they were trained for ``day``.

    Raises:
        MissingPartition: one has no checkpoint of the day.
    """
    return {
        name: read_scorer(lakehouse, day) if name == PI2I else read_checkpoint(lakehouse, day, name)
        for name in names
        if name in settings.trained_methods
    }


def filters_retrieved(model: Model) -> bool:
    """Tell whether a model leaves out what the existing channels return."""
    return isinstance(model, TrainedModel) and model.config.filter_retrieved


def embed_users(model: TrainedModel, catalogue: Catalogue, users: Users) -> np.ndarray:
    """Represent the users by the serving tower of a model: float32 [n, d], or [n, m, d]."""
    return model.embed_users(
        users.histories,
        users.profiles,
        items=catalogue.items,
        event_times=users.event_times,
        scenarios=users.scenarios,
        now=users.now,
    )


def retrieve_channels(
    names: Iterable[str],
    models: Mapping[str, Model],
    catalogue: Catalogue,
    users: Users,
    k: int,
    settings: Settings,
    retrieved: pa.ListArray | None = None,
) -> dict[str, np.ndarray]:
    """
    Retrieve the top ``k`` of each named channel: popularity, swing or a model's name.

    PI2I ranks the available items that a user's triggers reach in the i2i table. Any other model retrieves
    among the available items that it has learned or can represent; with ``models[name].known_item_ids`` alone
    if the catalogue's items are its own. One with ``filter_retrieved`` leaves out what the existing channels
    return: ``retrieved``, one list per user.

    Returns:
        int64 [n_users, k] item ids per channel, histories excluded, padded with -1.

    Raises:
        ValueError: a model filters, and ``retrieved`` is not given.
    """
    return {name: _retrieve(name, models, catalogue, users, k, settings, retrieved) for name in names}


def restrict_to_known(catalogue: Catalogue, model: Model) -> Catalogue:
    """Leave out the items that a model never learned: for an older model they count as misses."""
    is_known = np.isin(catalogue.item_ids, model.known_item_ids)
    return replace(catalogue, items=catalogue.items.filter(pa.array(is_known)))


def merge(lists: dict[str, np.ndarray], quotas: dict[str, int]) -> np.ndarray:
    """Merge the channels by their quotas: int64 [n_users, sum of quotas]."""
    return merge_channels({name: lists[name] for name in quotas}, quotas)


def _retrieve(
    name: str,
    models: Mapping[str, Model],
    catalogue: Catalogue,
    users: Users,
    k: int,
    settings: Settings,
    retrieved: pa.ListArray | None,
) -> np.ndarray:
    if name == "popularity":
        return retrieve_popular(catalogue.popular, users.histories, k)
    if name == "swing":
        return retrieve_by_items(
            catalogue.i2i_table,
            users.histories,
            k,
            n_triggers=settings.samples.n_triggers,
            allowed_item_ids=catalogue.item_ids,
            n_threads=settings.n_threads,
        )
    model = models[name]
    if isinstance(model, TrainedScorer):
        return score_candidates(model, catalogue, users, k, settings)
    excluded = users.histories
    if model.config.filter_retrieved:
        if retrieved is None:
            raise ValueError(f"{name} leaves out what the existing channels return: give it as retrieved")
        excluded = join_lists(excluded, retrieved)
    return exact_top_k(
        embed_users(model, catalogue, users),
        model.embed_items(catalogue.items),
        catalogue.item_ids,
        k,
        exclude=excluded,
    )


def score_candidates(
    scorer: TrainedScorer, catalogue: Catalogue, users: Users, k: int, settings: Settings
) -> np.ndarray:
    """
    Retrieve PI2I's top ``k``, block by block of users: memory does not grow with their number.

    Returns:
        int64 [n_users, k] item ids, padded with -1.
    """
    started, prices = perf_counter(), log_prices(catalogue.items)
    blocks = [np.empty((0, k), np.int64)]
    for start in range(0, len(users.ids), SCORED_AT_ONCE):
        block = users.slice(start, SCORED_AT_ONCE)
        blocks.append(
            scorer.retrieve(
                catalogue.trigger_index,
                catalogue.items,
                block.histories,
                block.profiles,
                k,
                log_prices=prices,
                n_threads=settings.n_threads,
            )
        )
        done = start + len(block.ids)
        log.info("PI2I: %d of %d users scored, %.0f s", done, len(users.ids), perf_counter() - started)
    return np.concatenate(blocks)
