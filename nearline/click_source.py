"""
Where do clicks come from? A stream in Redis for any number of workers, or a file of JSON lines for one.

Both give every event at least once: one that was taken and not finished is given again, to this worker or, of
a stream, to another. What can never be finished is put aside, with the reason.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from nearline.click_file import ClickFile
from nearline.click_stream import ClickStream
from nearline.clicks import Click, Delivery
from nearline.redis_connection import without_password


class UnknownSource(ValueError):
    """The URL names no source of clicks."""


class ClickSource(Protocol):
    """What every source of clicks does."""

    def send(self, clicks: Iterable[Click]) -> None:
        """Add clicks, as whoever shows the items would."""

    def take(self, n: int, wait_seconds: float) -> list[Delivery]:
        """
        Take at most ``n`` events, the oldest first; wait for the first one so long.

        Raises:
            StoreUnavailable: the source does not answer.
        """

    def finish(self, deliveries: Iterable[Delivery]) -> None:
        """Never give these events again."""

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        """Keep those of the events that are not finished from other workers for another while."""

    def give_back(self, deliveries: Iterable[Delivery]) -> None:
        """Let those of the events that are not finished come again as if they had not been taken now."""

    def put_aside(self, delivery: Delivery, reason: str) -> None:
        """Keep an event apart for a person, and finish it."""

    def backlog(self) -> int:
        """Count the events that are not finished."""

    def close(self) -> None:
        """Let go of the source."""


def open_click_source(url: str, *, worker: str, claim_after_seconds: float = 10.0) -> ClickSource:
    """
    Open the source that ``url`` names; ``worker`` is this process's own name.

    Raises:
        UnknownSource: the URL is neither ``redis[s]://host:port/db`` nor ``file:///path``.
        StoreUnavailable: the Redis does not answer.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and len(parts.path) > 1:
        return ClickFile(Path(unquote(parts.path)))
    try:
        if parts.scheme in ("redis", "rediss"):
            return ClickStream(url, worker=worker, claim_after_seconds=claim_after_seconds)
    except ValueError as error:
        raise UnknownSource(f"clicks_url {without_password(url)!r} is no URL of Redis: {error}") from error
    raise UnknownSource(
        f"clicks_url {without_password(url)!r} names no source of clicks: "
        "use redis://host:port/db or file:///path.jsonl"
    )
