"""
What does the synthetic world log on a day?

Any day can be had directly: it is a pure function of (config, day). Users are handled in blocks of
``BLOCK_USERS``, so that memory does not grow with their number.
"""

import hashlib
from collections.abc import Iterator
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
import pyarrow as pa

from lakehouse import tables
from lakehouse.sources.source import SourceError, require_day
from lakehouse.sources.synthetic.behaviour import NO_ITEM, Behaviour, behaviour_of
from lakehouse.sources.synthetic.config import SyntheticConfig
from lakehouse.sources.synthetic.interests import Interests, interests_of
from lakehouse.sources.synthetic.population import (
    BLOCK_USERS,
    Catalogue,
    Items,
    Users,
    n_items_on,
    n_users_on,
    profile_tokens,
    user_block,
)
from lakehouse.sources.synthetic.requests import Requests, requests_of

_SECONDS_PER_PLACE = 2


class SyntheticWorld:
    """A source of generated days; see ``docs/synthetic_world.md`` for what is planted in them."""

    name = "synthetic"
    timezone = "UTC"
    primary_scenario = "home"
    tables = frozenset({"exposure", "ranking_log", "item", "user"})

    def __init__(self, config: SyntheticConfig | None = None) -> None:
        """Draw the latent state of the items; users are drawn block by block when a day is read."""
        self.config = config or SyntheticConfig()
        self.first_day = self.config.first_day
        self.last_day = self.config.last_day
        self.items = Items(self.config)
        self._catalogue = lru_cache(maxsize=self.config.trigger_days + 2)(
            lambda day: Catalogue(self.items, day)
        )

    def read(self, table: str, day: date) -> pa.Table:
        """
        Give the rows of ``table`` on ``day`` in the columns of ``lakehouse.tables``.

        Raises:
            SourceError: ``table`` is not one of ``tables``, or ``day`` is outside the log.
        """
        number = self.day_number(day)
        if table == "item":
            return self._item_snapshot(number)
        if table == "user":
            return pa.concat_tables(
                self._user_snapshot(self.users(block, number)) for block in self.blocks(number)
            )
        if table == "exposure":
            return pa.concat_tables(exposure for exposure, _ in self.read_blocks(day))
        if table == "ranking_log":
            return pa.concat_tables(ranking for _, ranking in self.read_blocks(day))
        raise SourceError(f"source synthetic has no table {table}; it has {', '.join(sorted(self.tables))}")

    def read_blocks(self, day: date) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Give (exposure, ranking_log) of ``day`` for one block of users after the other."""
        number = self.day_number(day)
        for block in self.blocks(number):
            users = self.users(block, number)
            behaviour = self.behaviour(block, number)
            yield self._exposure(users, behaviour, number), self._ranking_log(users, behaviour, number)

    def fingerprint(self, day: date) -> str:
        """Digest what the rows of ``day`` depend on: the configuration and the day."""
        self.day_number(day)
        return hashlib.sha256(f"{self.config.model_dump_json()} {day}".encode()).hexdigest()

    def day_number(self, day: date) -> int:
        """
        Count the days from the first day to ``day``.

        Raises:
            SourceError: ``day`` is outside the log.
        """
        require_day(self, day)
        return (day - self.first_day).days

    def blocks(self, number: int) -> range:
        """Number the blocks of users that exist on day ``number``."""
        return range(-(-n_users_on(self.config, number) // BLOCK_USERS))

    def users(self, block: int, number: int) -> Users:
        """Give the latent state of one block of users as of day ``number``."""
        return user_block(self.config, block, n_users_on(self.config, number))

    def openings(self, block: int, number: int) -> Requests:
        """Give the opening requests of one block of users on day ``number``."""
        return self._requests(self.users(block, number), number).openings()

    def interests(self, block: int, number: int) -> Interests:
        """Give the interests of one block of users at the start of day ``number``."""
        users = self.users(block, number)
        openings = {
            age: self._requests(users, number - age).openings()
            for age in range(1, self.config.trigger_days + 1)
        }
        return interests_of(self.config, self.items, users, openings, number)

    def behaviour(self, block: int, number: int) -> Behaviour:
        """Give what one block of users saw and did on day ``number``."""
        users = self.users(block, number)
        return behaviour_of(
            self._catalogue(number),
            users,
            self.interests(block, number),
            self._requests(users, number),
            day=number,
            generator=np.random.default_rng([self.config.seed, number, block]),
        )

    def _requests(self, users: Users, number: int) -> Requests:
        return requests_of(self._catalogue(number), users, number)

    def _exposure(self, users: Users, behaviour: Behaviour, number: int) -> pa.Table:
        requests = behaviour.requests
        shown = behaviour.ranked[:, : self.config.page_size]
        row, place = np.nonzero(shown != NO_ITEM)
        seconds = requests.seconds[row] + _SECONDS_PER_PLACE * (place + 1)
        return pa.table(
            [
                self._request_ids(users, behaviour, number)[row],
                users.index[requests.user[row]] + 1,
                shown[row, place] + 1,
                self._scenario_names(requests.scenario[row]),
                self._times(number, seconds),
                place.astype(np.int32),
                behaviour.is_click[row, place],
                behaviour.is_order[row, place],
            ],
            schema=tables.EXPOSURE.schema,
        )

    def _ranking_log(self, users: Users, behaviour: Behaviour, number: int) -> pa.Table:
        requests = behaviour.requests
        is_item = behaviour.ranked != NO_ITEM
        offsets = np.concatenate([[0], np.cumsum(is_item.sum(axis=1))]).astype(np.int32)
        ranked = behaviour.ranked[is_item]
        lists = (ranked + 1, self.items.category_id[ranked], behaviour.scores[is_item])
        return pa.table(
            [
                self._request_ids(users, behaviour, number),
                users.index[requests.user] + 1,
                self._scenario_names(requests.scenario),
                self._times(number, requests.seconds),
                *(pa.ListArray.from_arrays(offsets, values) for values in lists),
            ],
            schema=tables.RANKING_LOG.schema,
        )

    def _item_snapshot(self, number: int) -> pa.Table:
        items = self.items
        known = slice(0, n_items_on(self.config, number))
        return pa.table(
            [
                np.arange(1, items.n + 1)[known],
                items.category_id[known],
                items.author_id[known],
                items.brand_id[known],
                items.price[known],
                items.is_available(number)[known],
            ],
            schema=tables.ITEM_SNAPSHOT.schema,
        )

    def _user_snapshot(self, users: Users) -> pa.Table:
        profile = pa.array(profile_tokens(self.config, users), pa.list_(pa.string()))
        return pa.table([users.index + 1, profile], schema=tables.USER_SNAPSHOT.schema)

    def _request_ids(self, users: Users, behaviour: Behaviour, number: int) -> np.ndarray:
        ordinal = (self.first_day + timedelta(days=number)).toordinal()
        requests = behaviour.requests
        return (ordinal << 40) + (users.index[requests.user] << 5) + requests.number

    def _times(self, number: int, seconds: np.ndarray) -> pa.Array:
        midnight = np.datetime64(self.first_day, "us") + np.timedelta64(number, "D")
        return pa.array(midnight + (seconds * 1e6).astype("timedelta64[us]"), tables.TIME)

    def _scenario_names(self, scenario: np.ndarray) -> pa.Array:
        names = pa.array(self.config.scenarios, pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(scenario, pa.int32()), names).cast(pa.string())
