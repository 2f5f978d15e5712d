"""
How is a Redis reached that a URL names? ``redis[s]://host:port/db``; ``?prefix=name`` shares one server.

Every failure of it is one line that names the server, without its password.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import redis

from nearline.candidates import LIST_NAME, StoreUnavailable

TIMEOUT_SECONDS = 5
DEFAULT_PREFIX = "tributary"


class RedisConnection:
    """A client, the prefix of our keys, and what the server is called in messages."""

    def __init__(self, url: str, what: str, setting: str) -> None:
        """
        Connect; every message says ``what`` the server is to us and which ``setting`` names it.

        Raises:
            ValueError: ``url`` is none of Redis.
            StoreUnavailable: the server does not answer.
        """
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._name, self._setting = f"{what} {without_password(url)}", setting
        self._prefix = query.pop("prefix", [DEFAULT_PREFIX])[0]
        if not LIST_NAME.fullmatch(self._prefix):
            raise ValueError(
                f"the prefix {self._prefix!r} has other characters than letters, digits and @._-"
            )
        self.client = redis.Redis.from_url(
            urlunsplit(parts._replace(query=urlencode(query, doseq=True))),
            socket_connect_timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
        )
        with self.available():
            self.client.ping()

    def key(self, *parts: str | int) -> str:
        """Name a key of ours."""
        return ":".join((self._prefix, *map(str, parts)))

    @contextmanager
    def available(self) -> Iterator[None]:
        """Turn every failure of Redis into StoreUnavailable."""
        try:
            yield
        except redis.RedisError as error:
            raise StoreUnavailable(
                f"{self._name} does not answer ({error}): start it or set {self._setting}"
            ) from error


def without_password(url: str) -> str:
    """Give the URL as messages may show it."""
    return re.sub(r"//[^/@]*@", "//***@", url)
