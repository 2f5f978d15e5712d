"""
Which release serves now?

``SERVING.json`` in the release root is the one pointer: it is replaced at once, never edited. A reader
that opened a release keeps it; the next ``open_served`` gives the new one.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from lakehouse.releases import Release, ReleaseCorrupt, open_release

POINTER = "SERVING.json"


class NothingServed(LookupError):
    """No release has been published yet."""


@dataclass(frozen=True)
class Serving:
    """
    The served release.

    ``local_path`` is its verified copy, relative to the release root; ``artifact_address`` is where a
    reader on another machine fetches its own from. ``published_at`` is UTC, ISO 8601.
    """

    version: str
    day: date
    release_digest: str
    artifact_address: str
    local_path: str
    published_at: str


def read_serving(root: Path) -> Serving | None:
    """
    Read the pointer; None before the first release is published.

    Raises:
        ReleaseCorrupt: the pointer cannot be read.
    """
    path = root / POINTER
    try:
        values = json.loads(path.read_text())
        return Serving(**values | {"day": date.fromisoformat(values["day"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ReleaseCorrupt(f"{path} cannot be read ({error!r}): remove it and publish again") from error


def write_serving(root: Path, serving: Serving) -> None:
    """Flip the pointer, durably and at once."""
    text = json.dumps(asdict(serving) | {"day": serving.day.isoformat()}, indent=2) + "\n"
    replace_file(root / POINTER, text)


def open_served(root: Path) -> Release:
    """
    Open the served release.

    Raises:
        NothingServed: nothing has been published below ``root``.
        ReleaseCorrupt: the pointer or the release cannot be read.
    """
    serving = read_serving(root)
    if serving is None:
        raise NothingServed(f"nothing is served below {root}: publish a release first")
    return open_release(root / serving.local_path)


def replace_file(path: Path, text: str) -> None:
    """Replace a small file so that every reader sees the old or the new text, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
