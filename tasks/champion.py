"""
What would the champion have retrieved? The registered release that serves, put beside the challenger.

It gets the challenger's own histories and i2i table; its towers and vocabulary are its own, and items that
they never learned are misses.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np

from lakehouse.releases import Release, open_release
from models.increc.model import TrainedModel
from tasks import tracking
from tasks.channels import MERGED, Catalogue, Users, merge, restrict_to_known, retrieve_channels
from tasks.settings import Settings

NO_CHAMPION, COMPARED, NO_COMPARISON = "none", "compared", "no comparison"


@dataclass(frozen=True)
class ChampionStatus:
    """Whether there is a champion to compare with, and which."""

    status: str
    version: str | None = None
    day: str | None = None


@dataclass(frozen=True)
class Champion:
    """The champion's release with its towers loaded."""

    release: Release
    models: dict[str, TrainedModel]

    @property
    def quotas(self) -> dict[str, int]:
        """The quota of each channel that the champion serves."""
        return dict(self.release.manifest.quotas)


def read_champion(day: date, settings: Settings) -> tuple[Champion | None, ChampionStatus]:
    """
    Load the champion for a comparison on ``day``; only one of a day before it can be compared.

    Raises:
        TrackingUnavailable: MLflow does not answer.
        ReleaseCorrupt: the champion's artifacts are damaged.
    """
    version = tracking.champion(settings)
    if version is None:
        return None, ChampionStatus(NO_CHAMPION)
    status = COMPARED if version.day < day else NO_COMPARISON
    found = ChampionStatus(status, version.version, version.day.isoformat())
    if status == NO_COMPARISON:
        return None, found
    folder = tracking.download_release(version.version, settings.release_root / "local", settings)
    release = open_release(folder)
    models = {
        name: TrainedModel.from_files(
            {"model.safetensors": release.channel(name).weights, "config.json": release.channel(name).config}
        )
        for name in release.towers
    }
    return Champion(release, models), found


def retrieve_champion(
    champion: Champion, catalogue: Catalogue, users: Users, k: int, settings: Settings
) -> dict[str, np.ndarray]:
    """Give the champion's top ``k`` per channel and its merged list, by its own quotas."""
    lists = {}
    for name in champion.quotas:
        model = champion.models.get(name)
        known = restrict_to_known(catalogue, model) if model else catalogue
        lists |= retrieve_channels([name], champion.models, known, users, k, settings)
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
