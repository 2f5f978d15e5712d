"""The online store in one SQLite file: several processes may read and write, one writes at a time."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np

from nearline.candidates import Candidates, ClickedItems, StoreUnavailable, microseconds, pack_rows, unpack

LOCK_TIMEOUT_SECONDS = 60

_CREATE = """
create table if not exists list (list_id integer primary key, list_name text not null unique);
create table if not exists candidates (
    list_id integer not null, user_id integer not null, event_time integer not null,
    release text not null, item_ids blob not null, scores blob not null, revision integer not null default 0,
    primary key (list_id, user_id)
);
create table if not exists serving (only_row integer primary key, record text not null);
create table if not exists clicked (
    user_id integer not null, item_id integer not null, event_time integer not null,
    primary key (user_id, item_id)
) without rowid;
create table if not exists clicked_revision (
    user_id integer primary key, revision integer not null, expires_at real not null
);
create index if not exists clicked_expires_at on clicked_revision (expires_at);
"""
_HAS_REVISION = "select count(*) from pragma_table_info('candidates') where name = 'revision'"
_ADD_REVISION = "alter table candidates add column revision integer not null default 0"
_KEEP_NEWEST = """
insert into candidates (list_id, user_id, event_time, release, item_ids, scores, revision)
values ((select list_id from list where list_name = ?), ?, ?, ?, ?, ?, ?)
on conflict (list_id, user_id) do update
set event_time = excluded.event_time, release = excluded.release,
    item_ids = excluded.item_ids, scores = excluded.scores, revision = excluded.revision
where (excluded.event_time, excluded.revision) >= (candidates.event_time, candidates.revision)
"""
_READ = """
select event_time, release, item_ids, scores
from candidates join list using (list_id) where list_name = ? and user_id = ?
"""
_FORGET_BEFORE = """
delete from candidates
where list_id = (select list_id from list where list_name = ?) and event_time < ?
"""
_NEWEST_CLICK = """
insert into clicked values (?, ?, ?)
on conflict (user_id, item_id) do update set event_time = excluded.event_time
where excluded.event_time > clicked.event_time
"""
_KEEP_LAST = """
delete from clicked where user_id = ? and item_id in (
    select item_id from clicked where user_id = ? order by event_time desc, item_id desc limit -1 offset ?
)
"""
_COUNT_REVISION = """
insert into clicked_revision values (?, ?, ?)
on conflict (user_id) do update
set revision = revision + excluded.revision, expires_at = excluded.expires_at
returning revision
"""
_CLICKED = "select item_id, event_time from clicked where user_id = ? order by event_time, item_id"
_EXPIRED = "select user_id from clicked_revision where expires_at <= ? limit ?"
FORGET_AT_ONCE = 100
"""Most users whose expired clicks one call takes away, so that no call takes long."""


class SqliteStore:
    """See ``nearline.store.OnlineStore``."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it."""
        self._path = path
        with self._available():
            path.parent.mkdir(parents=True, exist_ok=True)
            # A worker of a stream may use it from one thread after the other.
            self._connection = sqlite3.connect(
                path, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = normal")
            self._connection.executescript(_CREATE)
        with self._transaction() as connection:
            if not connection.execute(_HAS_REVISION).fetchone()[0]:
                connection.execute(_ADD_REVISION)

    def write_many(
        self,
        list_name: str,
        user_ids: np.ndarray,
        item_ids: np.ndarray,
        scores: np.ndarray,
        *,
        release: str,
        event_times: datetime | np.ndarray,
        revisions: int | np.ndarray = 0,
    ) -> int:
        """Write in one transaction, so all of it or nothing."""
        rows = pack_rows(list_name, user_ids, item_ids, scores, event_times, revisions)
        values = (
            (list_name, row.user_id, row.event_time, release, row.item_ids, row.scores, row.revision)
            for row in rows
        )
        with self._transaction() as connection:
            connection.execute("insert or ignore into list (list_name) values (?)", (list_name,))
            before = connection.total_changes
            connection.executemany(_KEEP_NEWEST, values)
            return connection.total_changes - before

    def read(self, list_name: str, user_id: int) -> Candidates | None:
        """Give the user's candidates of one list; None when there are none."""
        rows = self._query(_READ, (list_name, int(user_id)))
        return unpack(*rows[0]) if rows else None

    def drop(self, list_name: str) -> None:
        """Forget a whole list."""
        with self._transaction() as connection:
            of_list = "where list_id = (select list_id from list where list_name = ?)"
            connection.execute(f"delete from candidates {of_list}", (list_name,))
            connection.execute("delete from list where list_name = ?", (list_name,))

    def forget_before(self, list_name: str, time: datetime) -> int:
        """Take away the candidates of a list with an earlier event time; give the number of users."""
        with self._transaction() as connection:
            return connection.execute(_FORGET_BEFORE, (list_name, microseconds(time))).rowcount

    def list_names(self) -> set[str]:
        """Name every list that the store holds."""
        return {name for (name,) in self._query("select list_name from list", ())}

    def note_clicks(
        self, user_id: int, clicks: Iterable[tuple[int, int]], *, keep: int, keep_seconds: int
    ) -> ClickedItems:
        """Add clicks in one transaction."""
        user, now = int(user_id), time.time()
        with self._transaction() as connection:
            self._forget_expired(connection, user, now)
            before = set(connection.execute(_CLICKED, (user,)))
            connection.executemany(_NEWEST_CLICK, [(user, item, when) for item, when in clicks])
            connection.execute(_KEEP_LAST, (user, user, keep))
            rows = connection.execute(_CLICKED, (user,)).fetchall()
            n_changed = len(set(rows) - before)
            counted = (user, int(n_changed > 0), now + keep_seconds)
            (revision,) = connection.execute(_COUNT_REVISION, counted).fetchone()
        items, times = np.array(rows, np.int64).reshape(-1, 2).T
        return ClickedItems(items, times, revision, n_changed)

    def serve(self, record: dict[str, object]) -> None:
        """Replace the serving record."""
        with self._transaction() as connection:
            connection.execute("insert or replace into serving values (1, ?)", (json.dumps(record),))

    def serving(self) -> dict[str, object] | None:
        """Give the serving record; None before the first release."""
        rows = self._query("select record from serving", ())
        return json.loads(rows[0][0]) if rows else None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _forget_expired(self, connection: sqlite3.Connection, user_id: int, now: float) -> None:
        own = "select user_id from clicked_revision where user_id = ? and expires_at <= ?"
        for query, arguments in ((_EXPIRED, (now, FORGET_AT_ONCE)), (own, (user_id, now))):
            for expired in connection.execute(query, arguments).fetchall():
                connection.execute("delete from clicked where user_id = ?", expired)
                connection.execute("delete from clicked_revision where user_id = ?", expired)

    def _query(self, query: str, parameters: tuple) -> list[tuple]:
        with self._available():
            return self._connection.execute(query, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._available(), self._connection:
            self._connection.execute("begin immediate")
            yield self._connection

    @contextmanager
    def _available(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(
                f"the online store {self._path} cannot be used ({error}): check the file and online_store_url"
            ) from error
