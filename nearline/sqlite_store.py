"""The online store in one SQLite file: several processes may read and write, one writes at a time."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np

from nearline.candidates import Candidates, StoreUnavailable, pack_rows, unpack

LOCK_TIMEOUT_SECONDS = 60

_CREATE = """
create table if not exists list (list_id integer primary key, list_name text not null unique);
create table if not exists candidates (
    list_id integer not null, user_id integer not null, event_time integer not null,
    release text not null, item_ids blob not null, scores blob not null,
    primary key (list_id, user_id)
);
create table if not exists serving (only_row integer primary key, record text not null);
"""
_KEEP_NEWEST = """
insert into candidates values ((select list_id from list where list_name = ?), ?, ?, ?, ?, ?)
on conflict (list_id, user_id) do update
set event_time = excluded.event_time, release = excluded.release,
    item_ids = excluded.item_ids, scores = excluded.scores
where excluded.event_time >= candidates.event_time
"""
_READ = """
select event_time, release, item_ids, scores
from candidates join list using (list_id) where list_name = ? and user_id = ?
"""


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

    def write_many(
        self,
        list_name: str,
        user_ids: np.ndarray,
        item_ids: np.ndarray,
        scores: np.ndarray,
        *,
        release: str,
        event_times: datetime | np.ndarray,
    ) -> int:
        """Write in one transaction, so all of it or nothing."""
        rows = pack_rows(list_name, user_ids, item_ids, scores, event_times)
        values = ((list_name, row.user_id, row.event_time, release, row.item_ids, row.scores) for row in rows)
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

    def list_names(self) -> set[str]:
        """Name every list that the store holds."""
        return {name for (name,) in self._query("select list_name from list", ())}

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
