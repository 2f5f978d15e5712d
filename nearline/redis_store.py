"""
The online store in Redis: one key per list and user, compared and set on the server.

    <prefix>:list:<list>:<user>     event time (8 bytes, first), lengths, release, ids, scores, revision
    <prefix>:lists                  the names of all lists
    <prefix>:serving                the serving record as JSON
    <prefix>:clicked:{<user>}       sorted set: an item's newest click time by its id, as 8 bytes in order
    <prefix>:revision:{<user>}      how often that set has changed
"""

import json
import struct
from collections.abc import Iterable
from datetime import datetime

import numpy as np

from nearline.candidates import Candidates, ClickedItems, microseconds, pack_rows, unpack
from nearline.redis_connection import RedisConnection

BATCH = 1000

_HEADER = struct.Struct(">qHI")
_TIME = struct.Struct(">q")
_REVISION = struct.Struct(">q")
_ITEM = struct.Struct(">Q")
# Shifts int64 ids into uint64, so that Redis breaks ties of members byte by byte as numbers compare.
_SHIFT = 1 << 63
# A list that an older version wrote ends without a revision: it counts as 0.
_KEEP_NEWEST = """
local head = redis.call('GETRANGE', KEYS[1], 0, 13)
if #head == 14 then
  local stored, n_name, n_ids = struct.unpack('>i8I2I4', head)
  local given = struct.unpack('>i8', ARGV[1])
  if stored > given then return 0 end
  if stored == given then
    local tail = redis.call('GETRANGE', KEYS[1], 14 + n_name + n_ids + n_ids / 2, -1)
    local revision = struct.unpack('>i8', ARGV[1], #ARGV[1] - 7)
    if #tail == 8 and struct.unpack('>i8', tail) > revision then return 0 end
  end
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""
_FORGET_BEFORE = """
local head = redis.call('GETRANGE', KEYS[1], 0, 7)
if #head < 8 or struct.unpack('>i8', head) >= struct.unpack('>i8', ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
return 1
"""
_NOTE_CLICKS = """
local changed, n_changed = {}, 0
for at = 3, #ARGV, 2 do
  local item = ARGV[at + 1]
  if redis.call('ZADD', KEYS[1], 'GT', 'CH', ARGV[at], item) == 1 then changed[item] = true end
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[1])
for item in pairs(changed) do
  if redis.call('ZSCORE', KEYS[1], item) then n_changed = n_changed + 1 end
end
if n_changed > 0 then redis.call('INCR', KEYS[2]) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return {n_changed, redis.call('GET', KEYS[2]) or '0', redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')}
"""


class RedisStore:
    """See ``nearline.store.OnlineStore``."""

    def __init__(self, url: str) -> None:
        """Connect; ValueError when ``url`` is none of Redis."""
        self._connection = RedisConnection(url, "the online store", "online_store_url")
        self._available, self._key = self._connection.available, self._connection.key
        self._redis = self._connection.client
        self._keep_newest = self._redis.register_script(_KEEP_NEWEST)
        self._forget_before = self._redis.register_script(_FORGET_BEFORE)
        self._note_clicks = self._redis.register_script(_NOTE_CLICKS)

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
        """Write in pipelined batches, each user at once; a failure leaves the users before it written."""
        rows = pack_rows(list_name, user_ids, item_ids, scores, event_times, revisions)
        name = release.encode()
        n_replaced = 0
        with self._available(), self._redis.pipeline(transaction=False) as pipeline:
            self._redis.sadd(self._key("lists"), list_name)
            for row in rows:
                header = _HEADER.pack(row.event_time, len(name), len(row.item_ids))
                value = b"".join((header, name, row.item_ids, row.scores, _REVISION.pack(row.revision)))
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
        end = scores + n_ids // 2
        return unpack(event_time, value[_HEADER.size : ids].decode(), value[ids:scores], value[scores:end])

    def drop(self, list_name: str) -> None:
        """Forget a whole list; walks over the keys of the database."""
        with self._available(), self._redis.pipeline(transaction=False) as pipeline:
            for key in self._redis.scan_iter(self._key("list", list_name, "*"), count=BATCH):
                pipeline.unlink(key)
                if len(pipeline) >= BATCH:
                    pipeline.execute()
            pipeline.srem(self._key("lists"), list_name)
            pipeline.execute()

    def forget_before(self, list_name: str, time: datetime) -> int:
        """Take away candidates user by user; walks over the keys of the database."""
        argument, n_forgotten = [_TIME.pack(microseconds(time))], 0
        with self._available(), self._redis.pipeline(transaction=False) as pipeline:
            for key in self._redis.scan_iter(self._key("list", list_name, "*"), count=BATCH):
                self._forget_before([key], argument, client=pipeline)
                if len(pipeline) >= BATCH:
                    n_forgotten += sum(pipeline.execute())
            return n_forgotten + sum(pipeline.execute())

    def list_names(self) -> set[str]:
        """Name every list that the store holds."""
        with self._available():
            return {name.decode() for name in self._redis.smembers(self._key("lists"))}

    def note_clicks(
        self, user_id: int, clicks: Iterable[tuple[int, int]], *, keep: int, keep_seconds: int
    ) -> ClickedItems:
        """Add clicks in one script on the server."""
        arguments: list[int | bytes] = [keep, keep_seconds]
        for item, time in clicks:
            arguments += [time, _ITEM.pack(item + _SHIFT)]
        # Braces: on a cluster a user's two keys lie on one node.
        keys = [self._key(kind, f"{{{int(user_id)}}}") for kind in ("clicked", "revision")]
        with self._available():
            n_changed, revision, rows = self._note_clicks(keys, arguments)
        items = [_ITEM.unpack(member)[0] - _SHIFT for member in rows[::2]]
        times = [int(float(score)) for score in rows[1::2]]
        return ClickedItems(np.array(items, np.int64), np.array(times, np.int64), int(revision), n_changed)

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
