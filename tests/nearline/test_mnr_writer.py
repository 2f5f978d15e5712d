"""Lists on their way into the store: gathered, written together, kept while the store is away."""

import numpy as np
import pytest

from models.mnr import Scored
from nearline.mnr_writer import RETRY_SECONDS, ListWriter, Settled
from nearline.store import OnlineStore, StoreUnavailable, open_store

NOON = 1_767_268_800_000_000


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path) -> OnlineStore:
    return open_store(f"sqlite:///{tmp_path}/online.db")


def scored(*items: int) -> Scored:
    return Scored(np.array(items, np.int64), np.linspace(1, 0.5, len(items)).astype(np.float32))


def test_what_waits_is_written_together_by_the_first_timer(store: OnlineStore) -> None:
    writer = ListWriter(lambda: store)
    writer.put("7:search", "search", 7, NOON, scored(1, 2, 3))
    writer.put("8:search", "search", 8, NOON + 5, scored(4))
    writer.put("7:shop", "shop", 7, NOON, scored())
    assert store.list_names() == set()
    assert writer.settle("8:search") == Settled.WRITTEN
    assert store.read("mnr@search", 7).item_ids.tolist() == [1, 2, 3]
    assert store.read("mnr@search", 8).item_ids.tolist() == [4]
    assert store.read("mnr@search", 8).event_time.microsecond == 5
    assert store.read("mnr@search", 7).scores.tolist() == scored(1, 2, 3).scores.tolist()
    assert store.read("mnr@shop", 7).item_ids.tolist() == []
    assert [writer.settle(key) for key in ("7:search", "7:shop")] == [Settled.WRITTEN] * 2
    assert writer.n_written == 3


def test_timer_of_a_key_that_nothing_is_known_of_asks_for_its_list_again(store: OnlineStore) -> None:
    writer = ListWriter(lambda: store)
    assert writer.settle("7:search") == Settled.UNKNOWN
    writer.put("7:search", "search", 7, NOON, scored(1))
    assert writer.settle("7:search") == Settled.WRITTEN
    assert writer.settle("7:search") == Settled.UNKNOWN


def test_newest_list_of_a_key_is_written(store: OnlineStore) -> None:
    writer = ListWriter(lambda: store)
    writer.put("7:search", "search", 7, NOON, scored(1))
    writer.put("7:search", "search", 7, NOON, scored(2, 1))
    writer.write()
    assert store.read("mnr@search", 7).item_ids.tolist() == [2, 1]


def test_older_list_does_not_win_in_the_store(store: OnlineStore) -> None:
    for time, item in ((NOON, 1), (NOON - 1, 2)):
        writer = ListWriter(lambda: store)
        writer.put("7:search", "search", 7, time, scored(item))
        assert writer.settle("7:search") == Settled.WRITTEN
    assert store.read("mnr@search", 7).item_ids.tolist() == [1]


def test_nothing_is_lost_while_the_store_is_away(store: OnlineStore) -> None:
    clock, is_away, n_tries = Clock(), True, 0

    def open_it() -> OnlineStore:
        nonlocal n_tries
        n_tries += 1
        if is_away:
            raise StoreUnavailable("the online store is away")
        return store

    writer = ListWriter(open_it, clock)
    writer.put("7:search", "search", 7, NOON, scored(1))
    assert writer.settle("7:search") == Settled.WAITING
    writer.put("8:search", "search", 8, NOON, scored(2))
    writer.put("7:search", "search", 7, NOON + 1, scored(3))
    assert writer.settle("8:search") == Settled.WAITING
    assert n_tries == 1, "it is not asked again at once"
    clock.now += RETRY_SECONDS
    assert writer.settle("8:search") == Settled.WAITING
    assert (n_tries, writer.n_failures, writer.last_failure) == (2, 2, "the online store is away")
    clock.now, is_away = clock.now + RETRY_SECONDS, False
    assert writer.settle("7:search") == Settled.WRITTEN
    assert store.read("mnr@search", 7).item_ids.tolist() == [3]
    assert store.read("mnr@search", 8).item_ids.tolist() == [2]


def test_store_that_goes_away_between_two_lists_keeps_the_second_waiting(store: OnlineStore) -> None:
    class HalfAway:
        is_away = True

        def write_many(self, list_name: str, *arguments, **named) -> int:
            if self.is_away and list_name == "mnr@shop":
                raise StoreUnavailable("gone")
            return store.write_many(list_name, *arguments, **named)

    half_away, clock = HalfAway(), Clock()
    writer = ListWriter(lambda: half_away, clock)
    writer.put("7:search", "search", 7, NOON, scored(1))
    writer.put("7:shop", "shop", 7, NOON, scored(2))
    assert writer.settle("7:search") == Settled.WAITING
    assert store.read("mnr@search", 7).item_ids.tolist() == [1]
    half_away.is_away, clock.now = False, clock.now + RETRY_SECONDS
    assert writer.settle("7:shop") == Settled.WRITTEN
    assert store.read("mnr@shop", 7).item_ids.tolist() == [2]
