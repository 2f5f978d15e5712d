"""Fixtures of the nearline tests: a Redis of their own prefix, both kinds of store and of click source."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.conftest import skip_or_fail

REDIS = "redis://127.0.0.1:6379/0"


@pytest.fixture
def redis_url() -> Iterator[str]:
    """URL of a Redis with a prefix of this test's own, which is emptied afterwards."""
    prefix = f"test-{uuid.uuid4().hex}"
    client = redis.Redis.from_url(REDIS)
    try:
        client.ping()
    except redis.RedisError:
        skip_or_fail(f"no Redis at {REDIS}")
    yield f"{REDIS}?prefix={prefix}"
    for key in client.scan_iter(f"{prefix}:*", count=1000):
        client.unlink(key)
    client.close()


@pytest.fixture(params=["sqlite", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two deployments: embedded, or on Redis."""
    return request.param


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """URL of an online store."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/state/online.db"
    return request.getfixturevalue("redis_url")


@pytest.fixture
def clicks_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """URL of a source of clicks: a file beside SQLite, a stream beside Redis."""
    if kind == "sqlite":
        return (tmp_path / "clicks" / "clicks.jsonl").as_uri()
    return request.getfixturevalue("redis_url")
