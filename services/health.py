"""Is a service ready, and if it died: why?"""

import re
from collections import deque
from contextlib import closing
from pathlib import Path

import httpx
import redis
from redis.exceptions import RedisError

from services.databases import connect, own_postgres_url
from services.environment import Addresses
from services.ports import HOST
from services.processes import Process
from services.state import ServicesError

TIMEOUT_SECONDS = 5
ANSI = re.compile(r"\x1b\[[0-9;]*m")
ERROR = re.compile(
    r"\b\w*(Error|Exception|FATAL|CRITICAL|PANIC)\b|\[error\s*\]|Fatal|Could not|Failed", re.IGNORECASE
)


def is_ready(process: Process, addresses: Addresses, credentials: dict[str, str]) -> bool:
    """Tell whether a process does its work, by asking it."""
    if process.health == "postgres":
        return _postgres_answers(_port(process), credentials["POSTGRES_PASSWORD"])
    if process.health == "redis":
        return redis_answers(f"redis://:{credentials['REDIS_PASSWORD']}@{HOST}:{_port(process)}/0")
    if process.health == "dag-processor":
        health = _json(f"{addresses.airflow_url}/api/v2/monitor/health")
        return (health.get("dag_processor") or {}).get("status") == "healthy"
    return _get(process.health) is not None


def redis_answers(url: str) -> bool:
    """Tell whether the Redis of a URL answers and lets us in."""
    try:
        with closing(redis.Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS)) as client:
            return bool(client.ping())
    except (RedisError, OSError):
        return False


def last_words(log: Path) -> str:
    """Give the last line of a log that tells an error, else its last line; empty for no log."""
    try:
        with log.open(errors="replace") as file:
            lines = [ANSI.sub("", line).strip() for line in deque(file, maxlen=200)]
    except OSError:
        return ""
    lines = [line for line in lines if line]
    telling = [line for line in lines if ERROR.search(line)]
    return (telling or lines or [""])[-1][:300]


def _postgres_answers(port: int, password: str) -> bool:
    try:
        connect(own_postgres_url(port), password).close()
    except ServicesError:
        return False
    return True


def _json(url: str) -> dict:
    answer = _get(url)
    try:
        return answer.json() if answer is not None else {}
    except ValueError:
        return {}


def _get(url: str) -> httpx.Response | None:
    """Get a page; None when it does not answer with success."""
    try:
        answer = httpx.get(url, timeout=TIMEOUT_SECONDS, trust_env=False)
    except httpx.HTTPError:
        return None
    return answer if answer.is_success else None


def _port(process: Process) -> int:
    return int(process.address.rpartition(":")[2])
