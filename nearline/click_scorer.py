"""
What does one release answer to a user's clicks? PI2I's list, from everything in the release that it needs.

A user's history is the release's with what was clicked since, by time; of an item the newest time counts. The
list is the one that ``TrainedScorer.retrieve`` gives for it. A user whom the release does not know has the
clicks alone and no profile; an item that it does not know reaches nothing. Where nothing is reached the list
is the popular available items outside the history, with the score 1 / (r + 1) at place r.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lakehouse.manifest import file_entry
from lakehouse.release_reader import PI2I, SCORER, Release
from lakehouse.releases import ReleaseCorrupt, open_release
from models.increc.features import no_profiles, profile_buckets
from models.increc.ragged import Ragged
from models.pi2i.candidates import gather, scratch
from models.pi2i.model import TrainedScorer
from models.pi2i.prices import log_prices
from models.pi2i.sampling import log_price_of
from models.pi2i.scoring import Candidates
from models.pi2i.trigger_index import trigger_index, user_triggers
from models.ragged import codes_of, flat_lists
from nearline.candidates import ClickedItems

FILES = (
    "i2i_table.parquet",
    "item_index.parquet",
    "items.parquet",
    "item_statistics.parquet",
    "user_history.parquet",
    "user_profile.parquet",
    "popular_item_ids.npy",
    f"{PI2I}/{SCORER}",
)
UNKNOWN_ITEM = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Answer:
    """A user's list: ids int64 [n] and scores float32 [n], best first; is it of popular items alone."""

    item_ids: np.ndarray
    scores: np.ndarray
    is_fallback: bool


class ClickScorer:
    """One release, ready to score; for one thread."""

    def __init__(self, release: Release, n_threads: int = 1) -> None:
        """
        Read what is needed of a release, after checking each file against the manifest.

        ``n_threads`` score at a time; their number does not change the answers.

        Raises:
            ReleaseCorrupt: a file is gone or is not the manifest's, as where i2i table and scorer are of
                different releases.
            LookupError: the release has no scorer, or is older than a file that is needed.
            CorruptModel: the scorer is of another version.
        """
        self.release = release
        self.digest = release.manifest.digest
        self._n_threads = n_threads
        _refuse_changed(release)
        scorer = TrainedScorer.from_bytes(release.scorer)
        self._config = scorer.config
        available = release.items["item_id"].to_numpy()
        self._index = trigger_index(
            release.i2i_table, allowed_item_ids=available, item_statistics=release.item_statistics
        )
        self._known_items = np.sort(release.item_index["item_id"].to_numpy())
        # The last one stands for all that are not known.
        self._triggers = np.append(np.union1d(self._known_items, self._index.trigger_ids), UNKNOWN_ITEM)
        self._scorer = scorer.catalogue_scorer(self._index, release.items, self._triggers)
        prices = log_prices(release.items)
        self._target_prices, self._trigger_prices = (
            log_price_of(item_ids, prices) for item_ids in (self._index.item_ids, self._triggers)
        )
        self._memory, self._row = scratch(len(self._index.item_ids)), 0
        self._popular = release.popular_item_ids[np.isin(release.popular_item_ids, available)]
        self._read_users()
        self._compile()

    def knows_user(self, user_id: int) -> bool:
        """Tell whether the release holds a history or a profile of the user."""
        return _row_of(user_id, self._users) is not None or _row_of(user_id, self._profiled) is not None

    def knows_items(self, item_ids: np.ndarray) -> np.ndarray:
        """Tell of each item, int64 [n], whether the release knows it: bool [n]."""
        return codes_of(item_ids, self._known_items) >= 0

    def answer(self, user_id: int, clicked: ClickedItems, k: int) -> Answer:
        """Give the user's best ``k`` candidates."""
        history = self._history(user_id, clicked)
        begins = np.array([0, len(history)])
        _, triggers = user_triggers(begins, history, self._config.n_triggers)
        places = codes_of(triggers, self._triggers)
        places[places < 0] = len(self._triggers) - 1
        self._row += 1
        candidates = Candidates(
            *gather(
                self._row,
                codes_of(triggers, self._index.trigger_ids),
                codes_of(history, self._index.item_ids),
                self._index.lists,
                self._target_prices,
                self._trigger_prices[places],
                self._memory,
            )
        )
        if not len(candidates.codes):
            popular = self._popular[~np.isin(self._popular, history)][:k]
            return Answer(popular, 1 / np.arange(1, len(popular) + 1, dtype=np.float32), True)
        profile = self._scorer.embed_profiles(self._profile(user_id))[0]
        best, scores = self._scorer.best(profile, places, candidates, k, n_threads=self._n_threads)
        return Answer(self._index.item_ids[best], scores, False)

    def _history(self, user_id: int, clicked: ClickedItems) -> np.ndarray:
        """Give item ids, oldest first; of items at one time those of the release come first."""
        row = _row_of(user_id, self._users)
        if row is None:
            return clicked.item_ids
        at = slice(self._starts[row], self._starts[row + 1])
        items = np.concatenate([self._items[at], clicked.item_ids])
        times = np.concatenate([self._times[at], clicked.event_times])
        return items[np.argsort(times, kind="stable")]

    def _profile(self, user_id: int) -> Ragged:
        row = _row_of(user_id, self._profiled)
        return no_profiles(1) if row is None else self._profiles.take(np.array([row]))

    def _read_users(self) -> None:
        history = self.release.user_history.sort_by("user_id")
        self._users = history["user_id"].to_numpy()
        self._starts, self._items = flat_lists(history["item_ids"])
        times = history["event_times"].combine_chunks().flatten()
        self._times = times.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
        profile = self.release.user_profile.sort_by("user_id")
        n_buckets = self._config.n_profile_buckets
        self._profiled = profile["user_id"].to_numpy() if n_buckets else np.empty(0, np.int64)
        self._profiles = profile_buckets(profile["profile"], n_buckets) if n_buckets else no_profiles(0)

    def _compile(self) -> None:
        """Compile the kernels, so that the first click does not wait for it."""
        first = np.array(self._index.trigger_ids[:1], np.int64)
        self.answer(-1, ClickedItems(first, np.zeros(len(first), np.int64), 0, 0), 1)


def open_click_scorer(folder: Path, n_threads: int = 1) -> ClickScorer:
    """Open a release for scoring; raises as `ClickScorer`."""
    try:
        return ClickScorer(open_release(folder), n_threads)
    except OSError as error:
        raise ReleaseCorrupt(f"release {folder} cannot be read ({error}): publish it again") from error


def _refuse_changed(release: Release) -> None:
    for name in FILES:
        entry = release.manifest.files.get(name)
        if entry is None:
            continue  # Reading it says what is missing.
        stored = file_entry(release.folder / name, entry.logical)
        if stored != entry:
            raise ReleaseCorrupt(
                f"release {release.folder}: {name} is not its manifest's, as if it were of another release "
                f"(sha256 {stored.sha256[:12]}, not {entry.sha256[:12]}): publish it again"
            )


def _row_of(user_id: int, sorted_ids: np.ndarray) -> int | None:
    row = int(np.searchsorted(sorted_ids, user_id))
    return row if row < len(sorted_ids) and sorted_ids[row] == user_id else None
