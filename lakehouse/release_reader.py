"""
How is a release read?

Opening reads the manifest alone; arrays are memory-mapped and read-only. Shapes as in ``lakehouse.releases``.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.manifest import Manifest, read_manifest

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
INDEX = "index.faiss"
PI2I = "pi2i"
SCORER = "scorer.safetensors"
WITH_PI2I = "publish one that was built with the section [pi2i] in the settings"
CANDIDATES = "candidates"


@dataclass(frozen=True)
class CandidateLists:
    """Ready answers: users [n], items [n, K], best first, padded with -1, and their scores [n, K]."""

    user_ids: np.ndarray
    item_ids: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Tower:
    """One tower channel of an opened release; arrays are memory-mapped and read-only."""

    folder: Path

    @property
    def weights(self) -> bytes:
        """Bytes of the safetensors file."""
        return (self.folder / WEIGHTS).read_bytes()

    @property
    def config(self) -> bytes:
        """Bytes of the JSON configuration."""
        return (self.folder / CONFIG).read_bytes()

    @property
    def index(self) -> bytes:
        """Bytes of the serialised index."""
        return (self.folder / INDEX).read_bytes()

    @cached_property
    def item_ids(self) -> np.ndarray:
        """int64 [I], the item of each row of ``item_embeddings`` and of the index."""
        return _map_array(self.folder / "item_ids.npy")

    @cached_property
    def item_embeddings(self) -> np.ndarray:
        """float32 [I, d]."""
        return _map_array(self.folder / "item_embeddings.npy")

    @cached_property
    def user_ids(self) -> np.ndarray:
        """int64 [n], the user of each row of ``user_embeddings``."""
        return _map_array(self.folder / "user_ids.npy")

    @cached_property
    def user_embeddings(self) -> np.ndarray:
        """float32 [n, d] or [n, m, d]."""
        return _map_array(self.folder / "user_embeddings.npy")


@dataclass(frozen=True)
class Release:
    """An opened release: its manifest, and everything else read when it is asked for."""

    folder: Path
    manifest: Manifest

    @property
    def towers(self) -> tuple[str, ...]:
        """Names of the channels that have embeddings."""
        return tuple(name.split("/")[0] for name in self.manifest.files if name.endswith(f"/{WEIGHTS}"))

    @property
    def candidate_lists(self) -> tuple[str, ...]:
        """Names of the ready candidate lists."""
        ends = f"{CANDIDATES}/", "/scores.npy"
        return tuple(
            name[len(ends[0]) : -len(ends[1])]
            for name in self.manifest.files
            if name.startswith(ends[0]) and name.endswith(ends[1])
        )

    @cached_property
    def i2i_table(self) -> pa.Table:
        """The Swing table."""
        return pq.read_table(self.folder / "i2i_table.parquet")

    @cached_property
    def item_index(self) -> pa.Table:
        """The dense index of every item."""
        return pq.read_table(self.folder / "item_index.parquet")

    @cached_property
    def items(self) -> pa.Table:
        """The items that may be recommended, with their dense index and side features."""
        return pq.read_table(self.folder / "items.parquet")

    @cached_property
    def user_history(self) -> pa.Table:
        """Every user's history as of the end of the release's day."""
        return pq.read_table(self.folder / "user_history.parquet")

    @cached_property
    def user_profile(self) -> pa.Table:
        """
        Every user's profile as of the end of the release's day: ``user_id`` and ``profile``.

        Raises:
            LookupError: the release is older than the file.
        """
        self._require_file("user_profile.parquet", "user profiles", "publish a newer one")
        return pq.read_table(self.folder / "user_profile.parquet")

    @property
    def scorer(self) -> bytes:
        """
        Bytes of PI2I's scorer.

        Raises:
            LookupError: the release has none.
        """
        self._require_file(f"{PI2I}/{SCORER}", "PI2I scorer", WITH_PI2I)
        return (self.folder / PI2I / SCORER).read_bytes()

    @cached_property
    def item_statistics(self) -> pa.Table:
        """
        What PI2I's scorer sees of items, as of the end of the release's day: ``item_id`` and counts.

        Raises:
            LookupError: the release has no scorer.
        """
        self._require_file("item_statistics.parquet", "item statistics", WITH_PI2I)
        return pq.read_table(self.folder / "item_statistics.parquet")

    @property
    def has_scorer(self) -> bool:
        """Tell whether PI2I can answer."""
        return f"{PI2I}/{SCORER}" in self.manifest.files

    @cached_property
    def popular_item_ids(self) -> np.ndarray:
        """int64 [p], most popular first."""
        return _map_array(self.folder / "popular_item_ids.npy")

    def channel(self, name: str) -> Tower:
        """
        Open one tower channel.

        Raises:
            LookupError: the release has no such tower.
        """
        self._require("tower channel", name, self.towers)
        return Tower(self.folder / name)

    def candidates(self, name: str) -> CandidateLists:
        """
        Memory-map one ready candidate list.

        Raises:
            LookupError: the release has no such list.
        """
        self._require("candidate list", name, self.candidate_lists)
        folder = self.folder / CANDIDATES / name
        return CandidateLists(
            *(_map_array(folder / f"{part}.npy") for part in CandidateLists.__annotations__)
        )

    def _require_file(self, name: str, what: str, remedy: str) -> None:
        if name not in self.manifest.files:
            raise LookupError(f"release {self.folder} of {self.manifest.day} has no {what}: {remedy}")

    def _require(self, kind: str, name: str, known: tuple[str, ...]) -> None:
        if name not in known:
            raise LookupError(
                f"release {self.folder} has no {kind} {name!r}; it has {', '.join(known) or 'none'}"
            )


def open_release(folder: str | Path) -> Release:
    """
    Open a release without reading more than its manifest.

    Raises:
        ReleaseCorrupt: the folder has no manifest that fits; see also ``verify_release``.
    """
    return Release(Path(folder), read_manifest(Path(folder)))


def _map_array(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)
