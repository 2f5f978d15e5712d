"""
Is a release folder whole?

``manifest.json`` names every file of a release with its size, its sha256 and, where the file means rows,
weights or embeddings, a *logical* digest of those. The release digest is taken over the logical digests,
the day, when it is served from, the quotas and the number of triggers: it covers no index bytes, no code
version and no run id, so that the same inputs give the same digest wherever they were computed.
"""

import hashlib
import json
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
VERIFIED_SECONDS = 86_400
_BLOCK = 1 << 20


class ReleaseCorrupt(ValueError):
    """A release folder is not what its manifest says; the message names the folder and the file."""


@dataclass(frozen=True)
class FileEntry:
    """One file: size in bytes and sha256 as stored; ``logical`` digests what it means, null for an index."""

    size: int
    sha256: str
    logical: str | None


@dataclass(frozen=True)
class Manifest:
    """
    What a release holds and where it comes from.

    ``quotas`` gives every served channel its places in the merged list, in the order of merging; Swing
    reaches from a history's last ``n_triggers`` items; ``digest`` is the release digest. ``served_from``: the
    time (UTC) that time gaps of the histories were counted to, None in releases that do not know it.
    """

    day: date
    code_version: str
    config_digest: str
    mlflow_run_id: str | None
    quotas: dict[str, int]
    n_triggers: int
    files: dict[str, FileEntry]
    digest: str
    format_version: int = FORMAT_VERSION
    served_from: datetime | None = None

    def to_json(self) -> str:
        """Give the text of ``manifest.json``."""
        facts = asdict(self) | {"day": self.day.isoformat()}
        if self.served_from is not None:
            facts["served_from"] = self.served_from.isoformat()
        return json.dumps(facts, indent=2) + "\n"


def release_digest(
    day: date,
    quotas: Mapping[str, int],
    n_triggers: int,
    files: Mapping[str, FileEntry],
    served_from: datetime | None = None,
) -> str:
    """Give the SHA-256 over what decides the release's answers, as 64 hexadecimal digits."""
    facts = {
        "format": FORMAT_VERSION,
        "day": day.isoformat(),
        "quotas": list(quotas.items()),
        "n_triggers": n_triggers,
        "files": {name: entry.logical for name, entry in files.items() if entry.logical is not None},
    }
    if served_from is not None:
        facts["served_from"] = served_from.isoformat()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def file_entry(path: Path, logical: str | None) -> FileEntry:
    """Digest one stored file."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            whole.update(block)
    return FileEntry(path.stat().st_size, whole.hexdigest(), logical)


def digest_array(array: np.ndarray) -> str:
    """Digest type, shape and values of a C-contiguous array."""
    whole = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
    whole.update(array.data)
    return whole.hexdigest()


def digest_json(content: bytes) -> str:
    """Digest what a JSON text means; ValueError when it is none."""
    return hashlib.sha256(json.dumps(json.loads(content), sort_keys=True).encode()).hexdigest()


def digest_tensors(weights: bytes) -> str:
    """
    Digest names, types, shapes and values of all tensors, wherever the safetensors file puts them.

    Raises:
        ValueError: the bytes are no safetensors file.
    """
    try:
        (length,) = struct.unpack_from("<Q", weights)
        header = json.loads(weights[8 : 8 + length])
        whole = hashlib.sha256()
        for name in sorted(header.keys() - {"__metadata__"}):
            tensor = header[name]
            start, end = (8 + length + offset for offset in tensor["data_offsets"])
            whole.update(f"{name} {tensor['dtype']} {tensor['shape']}\n".encode())
            whole.update(memoryview(weights)[start:end])
    except (struct.error, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"no safetensors file ({error!r})") from error
    return whole.hexdigest()


def digest_model(content: bytes) -> str:
    """
    Digest the tensors of a safetensors file that also holds its configuration, as metadata, and that.

    Raises:
        ValueError: the bytes are no safetensors file.
    """
    tensors = digest_tensors(content)
    (length,) = struct.unpack_from("<Q", content)
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return hashlib.sha256(f"{tensors} {json.dumps(metadata, sort_keys=True)}".encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """
    Read ``manifest.json``.

    Raises:
        ReleaseCorrupt: there is none, it cannot be read, or its digest is not that of its entries.
    """
    try:
        values = json.loads((folder / MANIFEST).read_text())
        values["day"] = date.fromisoformat(values["day"])
        if values.get("served_from") is not None:
            values["served_from"] = datetime.fromisoformat(values["served_from"])
        values["files"] = {name: FileEntry(**entry) for name, entry in values["files"].items()}
        manifest = Manifest(**values)
    except FileNotFoundError as error:
        raise ReleaseCorrupt(f"{folder} is no release: it has no {MANIFEST}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ReleaseCorrupt(f"release {folder}: {MANIFEST} cannot be read ({error!r})") from error
    if manifest.format_version != FORMAT_VERSION:
        raise ReleaseCorrupt(
            f"release {folder} has format {manifest.format_version}; this code reads format {FORMAT_VERSION}"
        )
    expected = release_digest(
        manifest.day, manifest.quotas, manifest.n_triggers, manifest.files, manifest.served_from
    )
    if manifest.digest != expected:
        raise ReleaseCorrupt(
            f"release {folder}: {MANIFEST} was changed, its digest is not that of its entries"
        )
    return manifest


def verify_unchanged(folder: Path) -> Manifest:
    """
    Check a release like `verify_release`, but read the files' bytes only where that can find something new.

    A check that read them all leaves the files' sizes and times in ``<folder>.verified`` beside the folder;
    while these are the same, and for `VERIFIED_SECONDS` at most, the bytes are taken to be the same.

    Raises:
        ReleaseCorrupt: as `verify_release`.
    """
    record = verified_record(folder)
    if record.exists() and time.time() - record.stat().st_mtime < VERIFIED_SECONDS:
        manifest, state = read_manifest(folder), _state(folder)
        if record.read_text() == state:
            return manifest
    state = _state(folder)
    manifest = verify_release(folder)
    keep_verified(folder, state)
    return manifest


def keep_verified(folder: Path, state: str | None = None) -> None:
    """Keep for `verify_unchanged` that the files' bytes are as they should be, in the given state or now."""
    record = verified_record(folder)
    temporary = record.with_name(f".{record.name}.{os.getpid()}.tmp")
    temporary.write_text(state or _state(folder))
    os.replace(temporary, record)


def verified_record(folder: Path) -> Path:
    """Name the file in which `verify_unchanged` keeps what it has seen of a release."""
    return folder.with_name(f"{folder.name}.verified")


def _state(folder: Path) -> str:
    """Give path, inode, size and times of every file; any write or replacement changes it."""
    states = ((path.relative_to(folder).as_posix(), path.lstat()) for path in sorted(folder.rglob("*")))
    return json.dumps([(name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in states])


def verify_release(folder: str | Path) -> Manifest:
    """
    Check every file of a release against its manifest.

    Raises:
        ReleaseCorrupt: a file is missing, was added or was changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    found.discard(MANIFEST)
    for name in sorted(manifest.files.keys() - found):
        raise ReleaseCorrupt(f"release {folder}: {name} is missing")
    for name in sorted(found - manifest.files.keys()):
        raise ReleaseCorrupt(f"release {folder}: {name} is not in the manifest")
    for name, entry in manifest.files.items():
        stored = file_entry(folder / name, entry.logical)
        if stored != entry:
            raise ReleaseCorrupt(
                f"release {folder}: {name} was changed "
                f"({stored.size} bytes, sha256 {stored.sha256[:12]}; "
                f"the manifest says {entry.size} bytes, {entry.sha256[:12]})"
            )
    return manifest
