"""
What is in a release?

A release is one folder that moves as one piece. Shapes: I items, n users, m interests, d dimensions, K
candidates.

    manifest.json                       day, code, config, quotas, digests of every file
    i2i_table.parquet                   columns of the table i2i_table
    item_index.parquet                  columns of the table item_index
    items.parquet                       the available items, with item_index and side features
    user_history.parquet                columns of the table user_history
    user_profile.parquet                user_id and profile of every user
    item_statistics.parquet             what PI2I's scorer sees of items: item_id and counts, beside a scorer
    popular_item_ids.npy                int64 [p], most popular first
    pi2i/scorer.safetensors             PI2I's scorer of what the i2i table reaches, where it is trained
    <channel>/model.safetensors         tower weights
    <channel>/config.json               their configuration
    <channel>/item_ids.npy              int64 [I]
    <channel>/item_embeddings.npy       float32 [I, d]
    <channel>/user_ids.npy              int64 [n]
    <channel>/user_embeddings.npy       float32 [n, d] or [n, m, d]
    <channel>/index.faiss               nearest-neighbour index of item_embeddings, row by row
    candidates/<list>/user_ids.npy      int64 [n]
    candidates/<list>/item_ids.npy      int64 [n, K], best first, padded at the end with -1
    candidates/<list>/scores.npy        float32 [n, K]

PI2I answers from the scorer, the i2i table (its targets among ``items``, whose prices count), the item
statistics, histories and profiles alone; a nearline worker reads these, and the popular items for users whose
history reaches nothing.
"""

import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.digest import digest_rows
from lakehouse.folder_lock import one_writer
from lakehouse.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    ReleaseCorrupt,
    digest_array,
    digest_json,
    digest_model,
    digest_tensors,
    file_entry,
    release_digest,
    verified_record,
    verify_release,
)
from lakehouse.release_reader import (
    CANDIDATES,
    CONFIG,
    INDEX,
    PI2I,
    SCORER,
    WEIGHTS,
    CandidateLists,
    Release,
    Tower,
    open_release,
)

__all__ = [
    "BadRelease",
    "CandidateLists",
    "FileEntry",
    "Manifest",
    "Release",
    "ReleaseContents",
    "ReleaseCorrupt",
    "Tower",
    "TowerContents",
    "open_release",
    "remove_release",
    "verify_release",
    "write_release",
]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class BadRelease(ValueError):
    """The parts given do not make a release; the message names the part."""


@dataclass(frozen=True)
class TowerContents:
    """One tower channel: weights, config and index as bytes, ids row-aligned with their embeddings."""

    weights: bytes
    config: bytes
    item_ids: np.ndarray
    item_embeddings: np.ndarray
    user_ids: np.ndarray
    user_embeddings: np.ndarray
    index: bytes


@dataclass(frozen=True)
class ReleaseContents:
    """
    Everything in a release.

    ``items`` are those that may be recommended, one row each from ``item_id`` on. ``quotas`` names every
    served channel, ``towers`` those with embeddings; ``candidates`` are the lists that publishing loads
    into the online store, e.g. ``merged``. Swing reaches from a history's last ``n_triggers`` items.
    ``served_from`` is the time (UTC) that time gaps of the histories were counted to, None where unknown.
    ``scorer`` is PI2I's, a safetensors file, with ``item_statistics`` beside it; they may be there without a
    quota, for nearline answers alone.
    """

    i2i_table: pa.Table
    item_index: pa.Table
    items: pa.Table
    user_history: pa.Table
    user_profile: pa.Table
    popular_item_ids: np.ndarray
    quotas: Mapping[str, int]
    n_triggers: int = 100
    served_from: datetime | None = None
    towers: Mapping[str, TowerContents] = field(default_factory=dict)
    scorer: bytes | None = None
    item_statistics: pa.Table | None = None
    candidates: Mapping[str, CandidateLists] = field(default_factory=dict)


def write_release(
    folder: str | Path,
    contents: ReleaseContents,
    *,
    day: date,
    code_version: str,
    config_digest: str,
    mlflow_run_id: str | None = None,
) -> Manifest:
    """
    Replace ``folder`` by a release; it appears whole, and a second writer waits until the first has ended.

    Raises:
        BadRelease: arrays that do not fit each other, or a name that cannot be a folder.
    """
    folder = Path(folder)
    _check(contents)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with one_writer(folder.parent):
        _remove_leftovers(folder)
        new, old = (folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp" for _ in range(2))
        new.mkdir()
        try:
            files = _write_files(new, contents)
            manifest = Manifest(
                day=day,
                code_version=code_version,
                config_digest=config_digest,
                mlflow_run_id=mlflow_run_id,
                quotas=dict(contents.quotas),
                n_triggers=contents.n_triggers,
                served_from=contents.served_from,
                files=files,
                digest=release_digest(day, contents.quotas, contents.n_triggers, files, contents.served_from),
            )
            (new / MANIFEST).write_text(manifest.to_json())
            if folder.exists():
                os.replace(folder, old)
            os.replace(new, folder)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return manifest


def remove_release(folder: Path) -> None:
    """Remove a release folder, if it is there; it disappears whole, however this ends."""
    if not folder.parent.exists():
        return
    with one_writer(folder.parent):
        _remove_leftovers(folder)
        if folder.exists():
            gone = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.tmp"
            os.replace(folder, gone)
            shutil.rmtree(gone)
        verified_record(folder).unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed writing or removal of the folder left."""
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover)


def _check(contents: ReleaseContents) -> None:
    for name in (*contents.quotas, *contents.towers, *contents.candidates):
        if not NAME.fullmatch(name) or name == CANDIDATES:
            raise BadRelease(
                f"{name!r} cannot name a channel or list: letters, digits, '_', '-' and '.' only"
            )
    if PI2I in contents.towers:
        raise BadRelease(f"{PI2I!r} cannot name a tower channel: it is the scorer's")
    if (contents.scorer is None) != (contents.item_statistics is None):
        raise BadRelease("a scorer and item_statistics come together, but only one of them is given")
    if PI2I in contents.quotas and contents.scorer is None:
        raise BadRelease(f"channel {PI2I!r} has a quota but no scorer, so nothing would answer for it")
    for name in contents.towers.keys() - contents.quotas.keys():
        raise BadRelease(f"tower channel {name!r} has no quota, so nothing would serve it")
    for name, tower in contents.towers.items():
        for role in ("item", "user"):
            ids, embeddings = getattr(tower, f"{role}_ids"), getattr(tower, f"{role}_embeddings")
            if ids.ndim != 1 or len(ids) != len(embeddings):
                raise BadRelease(f"{name}: {role}_ids {ids.shape} do not fit embeddings {embeddings.shape}")
            if not np.isfinite(embeddings).all():
                raise BadRelease(f"{name}: {role}_embeddings hold values that are not finite")
    for name, lists in contents.candidates.items():
        if lists.item_ids.shape != lists.scores.shape or len(lists.user_ids) != len(lists.item_ids):
            raise BadRelease(
                f"candidates {name}: {lists.user_ids.shape} users, {lists.item_ids.shape} items and "
                f"{lists.scores.shape} scores do not fit"
            )


def _write_files(folder: Path, contents: ReleaseContents) -> dict[str, FileEntry]:
    files = {}
    for name in ("i2i_table", "item_index", "items", "user_history", "user_profile", "item_statistics"):
        path = f"{name}.parquet"
        rows = getattr(contents, name)
        if rows is None:
            continue
        pq.write_table(rows, folder / path, compression="zstd")
        files[path] = file_entry(folder / path, digest_rows(rows))
    arrays = {"popular_item_ids.npy": (contents.popular_item_ids, np.int64)}
    blobs = {}
    for name, tower in contents.towers.items():
        for role in ("item", "user"):
            arrays[f"{name}/{role}_ids.npy"] = (getattr(tower, f"{role}_ids"), np.int64)
            arrays[f"{name}/{role}_embeddings.npy"] = (getattr(tower, f"{role}_embeddings"), np.float32)
        blobs[f"{name}/{WEIGHTS}"] = (tower.weights, _logical(name, WEIGHTS, digest_tensors, tower.weights))
        blobs[f"{name}/{CONFIG}"] = (tower.config, _logical(name, CONFIG, digest_json, tower.config))
        blobs[f"{name}/{INDEX}"] = (tower.index, None)
    if contents.scorer is not None:
        logical = _logical(PI2I, SCORER, digest_model, contents.scorer)
        blobs[f"{PI2I}/{SCORER}"] = (contents.scorer, logical)
    for name, lists in contents.candidates.items():
        for part, dtype in (("user_ids", np.int64), ("item_ids", np.int64), ("scores", np.float32)):
            arrays[f"{CANDIDATES}/{name}/{part}.npy"] = (getattr(lists, part), dtype)
    for path in (*arrays, *blobs):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    for path, (values, dtype) in arrays.items():
        array = np.ascontiguousarray(values, dtype)
        np.save(folder / path, array, allow_pickle=False)
        files[path] = file_entry(folder / path, digest_array(array))
    for path, (content, logical) in blobs.items():
        (folder / path).write_bytes(content)
        files[path] = file_entry(folder / path, logical)
    return dict(sorted(files.items()))


def _logical(channel: str, file: str, digest: Callable[[bytes], str], content: bytes) -> str:
    try:
        return digest(content)
    except ValueError as error:
        raise BadRelease(f"{channel}/{file} cannot be read: {error}") from error
