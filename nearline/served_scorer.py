"""
Which release scores now? The one that the pointer names, as soon as it is ready.

A new release is read beside the work with the old one, which answers until then. One that cannot be used is
told loudly and tried again; the old one goes on, also where its folder is removed: everything it needs is in
memory or mapped.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from lakehouse.manifest import MANIFEST
from lakehouse.releases import ReleaseCorrupt
from lakehouse.serving import NothingServed, Serving, read_serving
from nearline.click_scorer import ClickScorer, open_click_scorer

UNUSABLE = (ValueError, LookupError, OSError)
"""What a release that cannot be used raises; a ReleaseCorrupt or CorruptModel is a ValueError."""
LOOK_SECONDS = 0.2
TRY_AGAIN_SECONDS = 10.0

log = logging.getLogger(__name__)


class ServedScorer:
    """The scorer of the served release, exchanged between two clicks."""

    def __init__(self, root: Path, count: Callable[[str], None], n_threads: int = 1) -> None:
        """
        Read the served release below ``root``; ``count`` is told what happens.

        Raises:
            NothingServed: nothing has been published.
            ReleaseCorrupt, LookupError, CorruptModel: it cannot be used; see `ClickScorer`.
        """
        self._root, self._count, self._n_threads = root, count, n_threads
        serving = read_serving(root)
        if serving is None:
            raise NothingServed(f"nothing is served below {root}: publish a release first")
        self.scorer = self._open(serving)
        self.day = serving.day
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="release")
        self._coming: tuple[Serving, Future[ClickScorer]] | None = None
        self._look_at = self._try_at = 0.0
        self._refused = self._told = ""
        log.info("release of %s, %s, scores", serving.day, self.scorer.digest[:12])

    def current(self) -> ClickScorer:
        """Give the scorer; takes a new release that is ready, and starts reading one that is served since."""
        if self._coming and self._coming[1].done():
            self._exchange()
        if not self._coming and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            self._look()
        return self.scorer

    def close(self) -> None:
        """Wait for a release that is being read, and let go."""
        self._reader.shutdown()

    def _look(self) -> None:
        try:
            serving = read_serving(self._root)
        except UNUSABLE as error:
            self._tell(f"the served pointer cannot be read, {self.scorer.digest[:12]} goes on: {error}")
            return
        if serving is None or serving.release_digest == self.scorer.digest:
            if not (self.scorer.release.folder / MANIFEST).exists():
                folder = self.scorer.release.folder
                self._tell(f"release {folder} was removed; it goes on from memory: publish a release")
            return
        if serving.release_digest != self._refused or time.monotonic() >= self._try_at:
            self._coming = serving, self._reader.submit(self._open, serving)

    def _open(self, serving: Serving) -> ClickScorer:
        scorer = open_click_scorer(self._root / serving.local_path, self._n_threads)
        if scorer.digest != serving.release_digest:
            raise ReleaseCorrupt(
                f"release {scorer.release.folder} is {scorer.digest[:12]}, but the pointer names "
                f"{serving.release_digest[:12]}: publish it again"
            )
        return scorer

    def _exchange(self) -> None:
        serving, coming = self._coming
        self._coming = None
        try:
            scorer = coming.result()
        except UNUSABLE as error:
            self._refused, self._try_at = serving.release_digest, time.monotonic() + TRY_AGAIN_SECONDS
            self._tell(f"the release of {serving.day} is refused, {self.scorer.digest[:12]} goes on: {error}")
            return
        self.scorer, self.day, self._refused, self._told = scorer, serving.day, "", ""
        self._count("release_exchanges")
        log.info("release of %s, %s, scores from now on", serving.day, scorer.digest[:12])

    def _tell(self, what: str) -> None:
        """Count and log it once, until something else happens."""
        if what != self._told:
            self._count("release_failures")
            log.error("%s", what)
        self._told = what
