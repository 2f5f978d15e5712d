"""
The online store in Redis: one key per list and user, compared and set on the server.

    <prefix>:list:<list>:<user>   event time (8 bytes, first), lengths, release, ids, scores
    <prefix>:lists                the names of all lists
    <prefix>:serving              the serving record as JSON
"""

import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import numpy as np
import redis

from nearline.candidates import LIST_NAME, Candidates, StoreUnavailable, pack_rows, unpack

TIMEOUT_SECONDS = 5
BATCH = 1000

_HEADER = struct.Struct(">qHI")
_KEEP_NEWEST = """
local stored = redis.call('GETRANGE', KEYS[1], 0, 7)
if #stored == 8 and struct.unpack('>i8', stored) > struct.unpack('>i8', ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""


class RedisStore:
    """See ``nearline.store.OnlineStore``."""

    def __init__(self, url: str) -> None:
        """Connect; ValueError when ``url`` is none of Redis."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._name = without_password(url)
        self._prefix = query.pop("prefix", ["tributary"])[0]
        if not LIST_NAME.fullmatch(self._prefix):
            raise ValueError(
                f"the prefix {self._prefix!r} has other characters than letters, digits and @._-"
            )
        self._redis = redis.Redis.from_url(
            urlunsplit(parts._replace(query=urlencode(query, doseq=True))),
            socket_connect_timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
        )
        with self._available():
            self._redis.ping()
        self._keep_newest = self._redis.register_script(_KEEP_NEWEST)

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
        """Write in pipelined batches, each user at once; a failure leaves the users before it written."""
        rows = pack_rows(list_name, user_ids, item_ids, scores, event_times)
        name = release.encode()
        n_replaced = 0
        with self._available(), self._redis.pipeline(transaction=False) as pipeline:
            self._redis.sadd(self._key("lists"), list_name)
            for row in rows:
                header = _HEADER.pack(row.event_time, len(name), len(row.item_ids))
                value = b"".join((header, name, row.item_ids, row.scores))
                self._keep_newest([self._key("list", list_name, row.user_id)], [value], client=pipeline)
                if len(pipeline) >= BATCH:
                    n_replaced += sum(pipeline.execute())
            return n_replaced + sum(pipeline.execute())

    def read(self, list_name: str, user_id: int) -> Candidates | None:
        """Give the user's candidates of one list; None when there are none."""
        with self._available():
            value = self._redis.get(self._key("list", list_name, int(user_id)))
        if value is None:
            return None
        event_time, n_name, n_ids = _HEADER.unpack_from(value)
        ids = _HEADER.size + n_name
        scores = ids + n_ids
        return unpack(event_time, value[_HEADER.size : ids].decode(), value[ids:scores], value[scores:])

    def drop(self, list_name: str) -> None:
        """Forget a whole list; walks over the keys of the database."""
        with self._available(), self._redis.pipeline(transaction=False) as pipeline:
            for key in self._redis.scan_iter(self._key("list", list_name, "*"), count=BATCH):
                pipeline.unlink(key)
                if len(pipeline) >= BATCH:
                    pipeline.execute()
            pipeline.srem(self._key("lists"), list_name)
            pipeline.execute()

    def list_names(self) -> set[str]:
        """Name every list that the store holds."""
        with self._available():
            return {name.decode() for name in self._redis.smembers(self._key("lists"))}

    def serve(self, record: dict[str, object]) -> None:
        """Replace the serving record."""
        with self._available():
            self._redis.set(self._key("serving"), json.dumps(record))

    def serving(self) -> dict[str, object] | None:
        """Give the serving record; None before the first release."""
        with self._available():
            value = self._redis.get(self._key("serving"))
        return json.loads(value) if value else None

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _key(self, *parts: str | int) -> str:
        return ":".join((self._prefix, *map(str, parts)))

    @contextmanager
    def _available(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise StoreUnavailable(
                f"the online store {self._name} does not answer ({error}): start it or set online_store_url"
            ) from error


def without_password(url: str) -> str:
    """Give the URL as messages may show it."""
    return re.sub(r"//[^/@]*@", "//***@", url)
