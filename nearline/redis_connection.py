"""
How is a Redis reached that a URL names? ``redis[s]://user:password@host:port/db?prefix=name``

The prefix is that of all keys, to share one server. Other parameters are those of redis-py that set the
connection: ``socket_*``, ``ssl_*`` and a few more.

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
# Others would show a password in messages, or have redis-py answer in other types.
_PARAMETER = re.compile(r"(ssl|socket)_\w+|health_check_interval|client_name|max_connections")


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
        if not re.fullmatch(r"(/\d*)?", parts.path):
            raise ValueError(f"the database {parts.path[1:]!r} is no number")
        for name in query:
            if not _PARAMETER.fullmatch(name):
                raise ValueError(f"the parameter {name!r} is none of prefix, socket_*, ssl_* and a few more")
        self.client = redis.Redis.from_url(
            urlunsplit(parts._replace(query=urlencode(query, doseq=True))),
            socket_connect_timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
        )
        try:
            with self.available():
                self.client.ping()
        except TypeError as error:  # redis-py takes parameters unseen, until it connects.
            raise ValueError(f"redis-py does not take it ({error})") from error

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
    return re.sub(r"(?<=[?&]password=)[^&]*", "***", re.sub(r"//[^/@]*@", "//***@", url))
