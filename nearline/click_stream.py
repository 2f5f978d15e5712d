"""
How are clicks taken from a stream in Redis? By a consumer group, so that any number of workers share it.

    XADD <prefix>:clicks * user_id 7 item_id 42 event_time 1767225600000000

A worker that dies leaves its events pending; once they have been so for ``claim_after_seconds`` another
worker claims them, one at a time, so that an event that kills workers takes no others along. XPENDING and
XCLAIM do it rather than XAUTOCLAIM, which does not tell how often an event was delivered. Finished events are
deleted: the stream's length is the backlog, and the stream is the worker's own. ``<prefix>:clicks:aside``
keeps what was put aside, the newest `MOST_ASIDE`.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

import redis

from nearline.clicks import Click, Delivery
from nearline.redis_connection import RedisConnection

GROUP = "pi2i"
MOST_ASIDE = 100_000
FORGET_WORKER_SECONDS = 86_400


class ClickStream:
    """See ``nearline.click_source.ClickSource``."""

    def __init__(self, url: str, *, worker: str, claim_after_seconds: float) -> None:
        """Connect; ValueError when ``url`` is none of Redis."""
        self._connection = RedisConnection(url, "the click stream", "clicks_url")
        self._redis, self._available = self._connection.client, self._connection.available
        self._stream, self._aside = (
            self._connection.key(*parts) for parts in (["clicks"], ["clicks", "aside"])
        )
        self._worker, self._claim_after = worker, claim_after_seconds
        self._look_again = 0.0
        self._has_group = False

    def send(self, clicks: Iterable[Click]) -> None:
        """Add clicks in one round trip."""
        with self._available(), self._redis.pipeline(transaction=False) as pipeline:
            for click in clicks:
                pipeline.xadd(self._stream, click.fields())
            pipeline.execute()

    def take(self, n: int, wait_seconds: float) -> list[Delivery]:
        """Take one event that a worker left, or else new ones."""
        with self._available():
            try:
                return self._take(n, wait_seconds)
            except redis.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                self._has_group = False  # The stream was deleted; the next call makes it again.
                return []

    def finish(self, deliveries: Iterable[Delivery]) -> None:
        """Acknowledge and delete the events, all or none."""
        ids = [delivery.event_id for delivery in deliveries]
        with self._available(), self._redis.pipeline() as transaction:
            self._finish(transaction, ids)
            transaction.execute()

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        """Let the events that are still this worker's be idle from now on."""
        self._claim_own(deliveries, n_less=0)

    def give_back(self, deliveries: Iterable[Delivery]) -> None:
        """Take one off the deliveries of the events that are still this worker's."""
        self._claim_own(deliveries, n_less=1)

    def put_aside(self, delivery: Delivery, reason: str) -> None:
        """Move the event to the other stream."""
        fields = delivery.fields if not isinstance(delivery.fields, str) else {"event": delivery.fields}
        told = {
            **{f"field:{name}": str(value) for name, value in fields.items()},
            "event_id": delivery.event_id,
            "reason": reason,
            "n_deliveries": delivery.n_deliveries,
        }
        with self._available(), self._redis.pipeline() as transaction:
            transaction.xadd(self._aside, told, maxlen=MOST_ASIDE)
            self._finish(transaction, [delivery.event_id])
            transaction.execute()

    def backlog(self) -> int:
        """Count the events in the stream."""
        with self._available():
            return self._redis.xlen(self._stream)

    def close(self) -> None:
        """Leave the group, unless events are still pending for this worker, and close the connections."""
        # Leaving is tidiness: where Redis is away, another worker does it later.
        with suppress(redis.RedisError):
            self._forget_workers(lambda worker: worker["name"].decode() == self._worker)
        self._redis.close()

    def _take(self, n: int, wait_seconds: float) -> list[Delivery]:
        if not self._has_group:
            self._join()
        if time.monotonic() >= self._look_again:
            if left := self._claim_one():
                return left
            self._look_again = time.monotonic() + self._claim_after / 4
        milliseconds = max(1, round(1000 * wait_seconds))
        found = self._redis.xreadgroup(GROUP, self._worker, {self._stream: ">"}, n, milliseconds)
        return [_delivery(event_id, fields, 1) for _, events in found for event_id, fields in events]

    def _join(self) -> None:
        try:
            self._redis.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._has_group = True
        self._forget_workers(lambda worker: worker["idle"] > 1000 * FORGET_WORKER_SECONDS)

    def _forget_workers(self, is_meant: Callable[[dict], bool]) -> None:
        """Remove workers that hold no event."""
        if not self._has_group:
            return
        for worker in self._redis.xinfo_consumers(self._stream, GROUP):
            if is_meant(worker) and not worker["pending"]:
                self._redis.xgroup_delconsumer(self._stream, GROUP, worker["name"])

    def _claim_one(self) -> list[Delivery]:
        """Claim the oldest event that was left; of several workers one gets it."""
        idle = round(1000 * self._claim_after)
        for left in self._redis.xpending_range(self._stream, GROUP, "-", "+", 10, idle=idle):
            claimed = self._redis.xclaim(self._stream, GROUP, self._worker, idle, [left["message_id"]])
            for event_id, fields in claimed:
                return [_delivery(event_id, fields, left["times_delivered"] + 1)]
        return []

    def _claim_own(self, deliveries: Iterable[Delivery], n_less: int) -> None:
        """Claim anew, as taken so many times less, what is still this worker's."""
        deliveries = list(deliveries)
        with self._available(), self._redis.pipeline(transaction=False) as pipeline:
            for each in deliveries:
                event = each.event_id
                pipeline.xpending_range(self._stream, GROUP, event, event, 1, consumername=self._worker)
            own = [each for each, held in zip(deliveries, pipeline.execute(), strict=True) if held]
            for each in own:
                pipeline.xclaim(
                    *(self._stream, GROUP, self._worker, 0, [each.event_id]),
                    retrycount=each.n_deliveries - n_less,
                    justid=True,
                )
            pipeline.execute()

    def _finish(self, transaction: redis.client.Pipeline, ids: list[str]) -> None:
        transaction.xack(self._stream, GROUP, *ids)
        transaction.xdel(self._stream, *ids)


def _delivery(event_id: bytes, fields: dict[bytes, bytes], n_deliveries: int) -> Delivery:
    name = event_id.decode()
    read = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in fields.items()}
    return Delivery(name, read, n_deliveries, int(name.partition("-")[0]) / 1000)
