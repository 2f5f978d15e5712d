"""
How is kept what a comparison made, and what is its name? By a digest of all that it was made from.

What is written appears whole or not at all; what a killed run leaves unfinished begins with a dot.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from lakehouse import tables
from lakehouse.store import Lakehouse
from tasks.settings import REPOSITORY

# Whose other version may give other bits: of weights, of lists, of the rows that SQL reads.
LIBRARIES = ("torch", "numpy", "numba", "pyarrow", "duckdb")
UNFINISHED_SECONDS = 3600

log = logging.getLogger(__name__)


def digest(values: object) -> str:
    """Digest plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def digest_of(lakehouse: Lakehouse, table: tables.Table, day: date) -> str:
    """Give the digest of a partition. Raises MissingPartition."""
    return lakehouse.require(table, day).digest


@cache
def code_of(package: str) -> str:
    """Digest the source and SQL files of a folder of the repository: other code makes other models."""
    folder = REPOSITORY / package
    made_of = hashlib.sha256()
    for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.sql")]):
        made_of.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return made_of.hexdigest()


@cache
def versions() -> dict[str, str]:
    """Name the versions of the libraries that compute."""
    return {name: version(name) for name in LIBRARIES}


def keep_whole(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder that appears at once, with all of them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(folder)
    temporary.mkdir()
    for name, content in files.items():
        (temporary / name).write_bytes(content)
    try:
        os.replace(temporary, folder)
    except OSError:
        shutil.rmtree(temporary)
        if not folder.exists():
            raise
        log.info("%s was trained by another process meanwhile", folder.name)


def unfinished(path: Path) -> Path:
    """Name where to write before the whole is renamed to ``path``."""
    return path.with_name(f".{path.name[:8]}-{uuid4().hex}")


def remove_unfinished(root: Path) -> None:
    """Delete what killed runs left in ``models`` and ``hits``; what is younger may still be written to."""
    for path in [*root.glob("models/.*-*"), *root.glob("hits/.*-*")]:
        if time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
