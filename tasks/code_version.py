"""Which code is this? A digest of its files, so that an installed copy knows without git."""

import hashlib
from functools import cache

from tasks.settings import REPOSITORY

CODE = ("lakehouse", "models", "nearline", "sql", "tasks", "dags")
SUFFIXES = (".py", ".sql", ".toml")


@cache
def code_version() -> str:
    """Digest the names and contents of all code and SQL files: 12 hex digits."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in SUFFIXES:
                digest.update(f"{path.relative_to(REPOSITORY)}\0".encode())
                digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
