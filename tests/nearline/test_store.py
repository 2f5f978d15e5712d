"""The online store: the same behaviour from SQLite and Redis, and one clear line when there is none."""

import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import redis

from nearline.store import OnlineStore, StoreUnavailable, UnknownStore, open_store, read_served

NOON = datetime(2022, 5, 3, 12)
USERS = np.array([7, 8])
ITEMS = np.array([[10, 11, 12], [20, -1, -1]])
SCORES = np.array([[0.9, 0.5, 0.1], [0.7, 0, 0]], np.float32)


@pytest.fixture
def store(url: str) -> Iterator[OnlineStore]:
    store = open_store(url)
    yield store
    store.close()


def write(store: OnlineStore, *, shift: int = 0, time: object = NOON, release: str = "r1") -> int:
    items = np.where(ITEMS < 0, -1, ITEMS + shift)
    return store.write_many("merged", USERS, items, SCORES, release=release, event_times=time)


def test_candidates_come_back_without_padding(store: OnlineStore) -> None:
    assert write(store) == 2
    first, second = store.read("merged", 7), store.read("merged", np.int64(8))
    assert first.item_ids.tolist() == [10, 11, 12]
    assert first.scores.tolist() == SCORES[0].tolist()
    assert (first.release, first.event_time) == ("r1", NOON)
    assert second.item_ids.tolist() == [20]
    assert second.scores.tolist() == SCORES[1, :1].tolist()


def test_unknown_user_and_unknown_list_have_no_candidates(store: OnlineStore) -> None:
    write(store)
    assert store.read("merged", 9) is None
    assert store.read("swing", 7) is None


def test_lists_of_an_earlier_time_are_taken_away_and_others_stay(store: OnlineStore) -> None:
    second = timedelta(seconds=1)
    times = np.array([NOON, NOON + second], "datetime64[us]")
    for name in ("merged", "merged.2"):
        store.write_many(name, USERS, ITEMS, SCORES, release="r1", event_times=times)
    assert store.forget_before("merged", NOON) == 0
    assert store.forget_before("merged", NOON + timedelta(microseconds=1)) == 1
    assert store.read("merged", 7) is None
    assert store.read("merged", 8).item_ids.tolist() == [20]
    assert store.read("merged.2", 7).item_ids.tolist() == [10, 11, 12]
    assert store.forget_before("nobodys", NOON + second) == 0
    assert store.list_names() == {"merged", "merged.2"}
    assert write(store, time=NOON - second) == 1, "the user's list may be written again"


def test_write_with_an_older_event_time_never_wins(store: OnlineStore) -> None:
    write(store)
    assert write(store, shift=100, time=NOON - timedelta(microseconds=1), release="r0") == 0
    assert store.read("merged", 7).item_ids.tolist() == [10, 11, 12]
    assert write(store, shift=100, time=NOON + timedelta(microseconds=1), release="r2") == 2
    assert store.read("merged", 7).item_ids.tolist() == [110, 111, 112]
    assert store.read("merged", 7).release == "r2"


def test_each_user_is_guarded_by_itself(store: OnlineStore) -> None:
    write(store)
    times = np.array([NOON + timedelta(seconds=1), NOON - timedelta(seconds=1)], "datetime64[us]")
    assert write(store, shift=100, time=times) == 1
    assert store.read("merged", 7).item_ids[0] == 110
    assert store.read("merged", 8).item_ids[0] == 20


def test_same_event_time_wins_so_that_a_retry_is_harmless(store: OnlineStore) -> None:
    assert write(store) == 2
    assert write(store, shift=1) == 2
    assert store.read("merged", 8).item_ids.tolist() == [21]


def test_times_before_1970_and_huge_and_negative_ids_survive(store: OnlineStore) -> None:
    old = datetime(1969, 12, 31, 23, 59, 59, 999999)
    users, items = np.array([-5, 2**62]), np.array([[2**62 + 1], [3]])
    scores = np.ones((2, 1), np.float32)
    assert store.write_many("a", users, items, scores, release="r", event_times=old) == 2
    assert store.read("a", -5).event_time == old
    assert store.read("a", -5).item_ids.tolist() == [2**62 + 1]
    assert store.write_many("a", users, items, scores, release="r", event_times=NOON) == 2
    assert store.write_many("a", users, items, scores, release="r", event_times=old) == 0


def test_no_users_and_no_candidates_can_be_written(store: OnlineStore) -> None:
    none = np.empty((0, 3))
    assert store.write_many("a", np.empty(0, int), none.astype(int), none, release="r", event_times=NOON) == 0
    assert (
        store.write_many("a", USERS, np.empty((2, 0), int), np.empty((2, 0)), release="r", event_times=NOON)
        == 2
    )
    assert store.read("a", 7).item_ids.tolist() == []


def test_lists_are_apart_and_dropped_apart(store: OnlineStore) -> None:
    for name in ("merged@1", "merged@12", "pi2i"):
        store.write_many(name, USERS, ITEMS, SCORES, release="r", event_times=NOON)
    assert store.list_names() == {"merged@1", "merged@12", "pi2i"}
    store.drop("merged@1")
    assert store.list_names() == {"merged@12", "pi2i"}
    assert store.read("merged@1", 7) is None
    assert store.read("merged@12", 7) is not None
    assert (
        store.write_many("merged@1", USERS, ITEMS, SCORES, release="r", event_times=datetime(2000, 1, 1)) == 2
    )


def test_served_candidates_follow_the_serving_record(store: OnlineStore) -> None:
    assert store.serving() is None
    assert read_served(store, 7) is None
    for shift, name in enumerate(("merged@1", "merged@2")):
        store.write_many(name, USERS, ITEMS + shift, SCORES, release=name, event_times=NOON)
    store.serve({"release": "1", "lists": {"merged": "merged@1"}})
    assert read_served(store, 7).item_ids[0] == 10
    store.serve({"release": "2", "lists": {"merged": "merged@2"}})
    assert read_served(store, 7).item_ids[0] == 11
    assert read_served(store, 7, "swing") is None
    assert store.serving()["release"] == "2"


def test_arrays_that_do_not_fit_and_odd_list_names_are_refused(store: OnlineStore) -> None:
    with pytest.raises(ValueError, match="arrays do not fit each other"):
        store.write_many("a", USERS[:1], ITEMS, SCORES, release="r", event_times=NOON)
    with pytest.raises(ValueError, match="cannot name a list"):
        store.write_many("a:*", USERS, ITEMS, SCORES, release="r", event_times=NOON)
    assert store.list_names() == set()


def test_two_processes_writing_in_any_order_leave_the_newest(url: str, store: OnlineStore) -> None:
    script = """
import sys, numpy as np
from nearline.store import open_store
store, seed = open_store(sys.argv[1]), int(sys.argv[2])
generator, users = np.random.default_rng(seed), np.arange(200)
for second in generator.permutation(20) * 2 + seed:
    items = np.full((200, 2), second)
    times = np.full(200, second, "datetime64[s]")
    store.write_many("merged", users, items, items, release=str(second), event_times=times)
"""
    writers = [subprocess.Popen([sys.executable, "-c", script, url, str(seed)]) for seed in (0, 1)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    for user in range(200):
        found = store.read("merged", user)
        assert (found.item_ids.tolist(), found.release) == ([39, 39], "39")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite://",
        "sqlite:///",
        "mysql://host/db",
        "online.db",
        "redis://host:port",
        "redis://localhost/name",
        "redis://localhost/0?perfix=name",
        "redis://localhost/0?password=secret",
        "redis://localhost/0?decode_responses=1",
    ],
)
def test_unknown_url_is_one_clear_line(url: str) -> None:
    with pytest.raises(UnknownStore, match="online_store_url") as caught:
        open_store(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_absent_redis_is_one_clear_line_without_the_password() -> None:
    with pytest.raises(StoreUnavailable, match="start it or set") as caught:
        open_store("redis://:secret@127.0.0.1:1/0")
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_no_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "online.db").write_text("this is a text, not a database" * 100)
    with pytest.raises(StoreUnavailable, match=r"online\.db cannot be used"):
        open_store(f"sqlite:///{tmp_path}/online.db")


def note(
    store: OnlineStore, clicks: list[tuple[int, int]], *, user: int = 7, keep: int = 4, seconds: int = 60
):
    return store.note_clicks(user, clicks, keep=keep, keep_seconds=seconds)


def test_clicked_items_are_kept_by_their_newest_click_oldest_first(store: OnlineStore) -> None:
    found = note(store, [(5, 100), (6, 200), (5, 300), (-3, 200)])
    assert found.item_ids.tolist() == [-3, 6, 5]
    assert found.event_times.tolist() == [200, 200, 300]
    assert (found.revision, found.n_changed) == (1, 3)
    again = note(store, [(6, 200), (5, 250)])
    assert (again.item_ids.tolist(), again.revision, again.n_changed) == ([-3, 6, 5], 1, 0)
    assert note(store, [(9, 50), (8, 60), (6, 201), (5, 301)]).item_ids.tolist() == [8, -3, 6, 5]
    assert note(store, [(9, 50)]).n_changed == 0
    assert note(store, [], user=8).item_ids.tolist() == []
    assert note(store, [(2**62 + 1, 1_700_000_000_123_457)], user=8).item_ids.tolist() == [2**62 + 1]


def test_clicks_in_any_order_and_number_leave_the_same_items(store: OnlineStore) -> None:
    generator = np.random.default_rng(3)
    clicks = [(int(item), int(time)) for item, time in generator.integers(0, 12, (60, 2))]
    newest = {item: max(time for other, time in clicks if other == item) for item, _ in clicks}
    expected = sorted((time, item) for item, time in newest.items())[-4:]
    for user in range(5):
        for start in range(0, 60, 7):
            order = generator.permutation(60)[: start + 7]
            note(store, [clicks[at] for at in order], user=user)
        found = note(store, clicks, user=user)
        assert list(zip(found.event_times.tolist(), found.item_ids.tolist(), strict=True)) == expected


def test_list_of_an_older_revision_does_not_win_and_publishing_needs_none(store: OnlineStore) -> None:
    def write_revision(revision: int, item: int, time: datetime = NOON) -> int:
        items = np.array([[item]])
        arguments = {"release": "r", "event_times": time, "revisions": revision}
        return store.write_many("pi2i", USERS[:1], items, np.ones((1, 1), np.float32), **arguments)

    assert write_revision(2, 1) == 1
    assert write_revision(1, 2) == 0
    assert write_revision(2, 3) == 1
    assert write_revision(1, 4, NOON + timedelta(seconds=1)) == 1
    assert write_revision(9, 5) == 0
    found = store.read("pi2i", 7)
    assert (found.item_ids.tolist(), found.scores.tolist()) == ([4], [1.0])


def test_clicks_are_forgotten_when_their_time_is_over(store: OnlineStore) -> None:
    note(store, [(1, 100)], seconds=1)
    note(store, [(1, 100)], user=8, seconds=60)
    time.sleep(1.1)
    found = note(store, [(2, 50)])
    assert (found.item_ids.tolist(), found.revision) == ([2], 1)
    assert note(store, [(2, 50)], user=8).item_ids.tolist() == [2, 1]


def test_two_processes_noting_clicks_at_once_lose_none(url: str, store: OnlineStore) -> None:
    script = """
import sys
import time
from nearline.store import open_store
store, seed = open_store(sys.argv[1]), int(sys.argv[2])
for item in range(seed, 200, 2):
    store.note_clicks(item % 5, [(item, 1000 - item)], keep=1000, keep_seconds=60)
"""
    writers = [subprocess.Popen([sys.executable, "-c", script, url, str(seed)]) for seed in (0, 1)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    for user in range(5):
        found = note(store, [], user=user, keep=1000)
        assert found.item_ids.tolist() == [item for item in range(199, -1, -1) if item % 5 == user]
        assert found.revision == 40


def test_lists_of_an_older_version_are_read_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript("""
create table list (list_id integer primary key, list_name text not null unique);
create table candidates (
    list_id integer not null, user_id integer not null, event_time integer not null,
    release text not null, item_ids blob not null, scores blob not null, primary key (list_id, user_id)
);
insert into list values (1, 'merged');
""")
        packed = np.array([10], "<i8").tobytes(), np.ones(1, "<f4").tobytes()
        old.execute("insert into candidates values (1, 7, 5, 'r0', ?, ?)", packed)
        old.commit()
    with closing(open_store(f"sqlite:///{path}")) as store:
        assert store.read("merged", 7).item_ids.tolist() == [10]
        assert write(store) == 2


def test_lists_of_an_older_version_are_read_and_replaced_in_redis(redis_url: str) -> None:
    packed = (
        struct.pack(">qHI", 5, 2, 8) + b"r0" + np.array([10], "<i8").tobytes() + np.ones(1, "<f4").tobytes()
    )
    server, _, prefix = redis_url.partition("?prefix=")
    with closing(redis.Redis.from_url(server)) as client:
        client.set(f"{prefix}:list:merged:7", packed)
    with closing(open_store(redis_url)) as store:
        found = store.read("merged", 7)
        assert (found.item_ids.tolist(), found.scores.tolist(), found.release) == ([10], [1.0], "r0")
        arguments = {"release": "r", "event_times": np.array([5], "datetime64[us]")}
        assert store.write_many("merged", USERS[:1], ITEMS[:1], SCORES[:1], **arguments) == 1
