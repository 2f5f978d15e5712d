"""
What would the champion have retrieved? The registered release that serves, put beside the challenger.

It gets the challenger's own histories and i2i table; its towers and vocabulary are its own, and items that
they never learned are misses.
"""

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa

from lakehouse.releases import Release, ReleaseCorrupt, open_release
from models.increc.model import TrainedModel
from models.increc.weights import CorruptModel
from models.pi2i.model import TrainedScorer
from tasks import tracking
from tasks.channels import MERGED, Catalogue, Model, Users, merge, restrict_to_known, retrieve_channels
from tasks.records import COMPARED, NO_CHAMPION, NO_COMPARISON, ChampionStatus
from tasks.redact import without_passwords
from tasks.settings import PI2I, Settings


@dataclass(frozen=True)
class Champion:
    """The champion's release with its towers and PI2I's scorer loaded."""

    release: Release
    models: dict[str, Model]

    @property
    def quotas(self) -> dict[str, int]:
        """The quota of each channel that the champion serves."""
        return dict(self.release.manifest.quotas)


def read_champion(day: date, settings: Settings) -> tuple[Champion | None, ChampionStatus]:
    """
    Load the champion for a comparison on ``day``.

    One that is not of a day before it, whose artifacts are gone, or that this code cannot load is not
    compared; the status says so, and the day goes on.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    version = tracking.champion(settings)
    if version is None:
        return None, ChampionStatus(NO_CHAMPION)
    found = ChampionStatus(COMPARED, version.version, version.day.isoformat(), version.release_digest)
    if version.day >= day:
        reason = f"the champion is of {version.day}, not of a day before {day}"
        return None, replace(found, status=NO_COMPARISON, reason=reason)
    try:
        folder = tracking.download_release(version.version, settings.local_root, settings)
        return load_release(folder), found
    except (ReleaseCorrupt, CorruptModel) as error:
        reason = without_passwords(f"the champion cannot be read: {error}")
        return None, replace(found, status=NO_COMPARISON, reason=reason)


def load_release(folder: Path) -> Champion:
    """
    Open a release and load its towers, and PI2I's scorer where it has one.

    Raises:
        ReleaseCorrupt: the folder holds no release.
        CorruptModel: this code cannot load a model of it.
    """
    release = open_release(folder)
    models: dict[str, Model] = {
        name: TrainedModel.from_files(
            {"model.safetensors": release.channel(name).weights, "config.json": release.channel(name).config}
        )
        for name in release.towers
    }
    if release.has_scorer:
        models[PI2I] = TrainedScorer.from_bytes(release.scorer)
    return Champion(release, models)


def retrieve_champion(
    champion: Champion,
    catalogue: Catalogue,
    users: Users,
    k: int,
    settings: Settings,
    *,
    retrieved: pa.ListArray | None = None,
) -> dict[str, np.ndarray]:
    """
    Give the champion's top ``k`` per channel and its merged list, by its own quotas.

    ``retrieved`` is what the existing channels return, for a channel that leaves it out.
    """
    lists = {}
    for name in champion.quotas:
        model = champion.models.get(name)
        known = restrict_to_known(catalogue, model) if model else catalogue
        lists |= retrieve_channels([name], champion.models, known, users, k, settings, retrieved)
    return lists | {MERGED: merge(lists, champion.quotas)}


def champion_candidates(champion: Champion, users: Users) -> np.ndarray:
    """
    Give the merged candidates as the champion's release serves them, stale as they are: int64 [n, K].

    Users that it does not know get its most popular items.
    """
    served = champion.release.candidates(MERGED)
    size = served.item_ids.shape[1]
    popular = np.full(size, -1, np.int64)
    popular[: min(size, len(champion.release.popular_item_ids))] = champion.release.popular_item_ids[:size]
    rows = np.searchsorted(served.user_ids, users.ids)
    rows[rows == len(served.user_ids)] = 0
    is_known = (
        np.asarray(served.user_ids)[rows] == users.ids if len(served.user_ids) else np.zeros(len(rows), bool)
    )
    candidates = np.tile(popular, (len(users.ids), 1))
    candidates[is_known] = np.asarray(served.item_ids)[rows[is_known]]
    return candidates
