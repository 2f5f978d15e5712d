"""
Which releases are registered, and which do the aliases name?

Alias ``challenger`` is the newest release that passed its gates, ``champion`` the one that serves.
"""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from tasks.settings import Settings
from tasks.tracking.connection import connected, has_store

CHALLENGER, CHAMPION = "challenger", "champion"
CHAMPION_MOVE, FORCE_REASON, PROMOTION = "champion_move", "force_reason", "promotion"
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


class UnknownVersion(LookupError):
    """The registered model has no such version, or it is none that ``register_version`` made."""


@dataclass(frozen=True)
class ChampionMove:
    """Why the alias champion is where it is, as far as this project's own code moved it."""

    move_id: str
    version: str
    actor: Literal["auto", "manual"]
    kind: Literal["promotion", "rollback"]
    reason: str
    at: str


@dataclass(frozen=True)
class ReleaseVersion:
    """
    One version of the registered model; ``move`` is set when our own code made it the champion.

    ``force_reason`` is why a person lets it serve though its verdict is not ``passed``, ``promotion`` what
    policy said when it was registered; empty without one. ``registered_at`` has its zone.
    """

    version: str
    day: date
    release_digest: str
    verdict: str
    missed_gates: str
    force_reason: str
    promotion: str
    is_backfill: bool
    run_id: str
    artifact_address: str
    registered_at: datetime
    is_new: bool = False
    move: ChampionMove | None = None


def champion(settings: Settings) -> ReleaseVersion | None:
    """
    Give the release that the alias champion names; None without one.

    Raises:
        UnknownVersion: the alias names a version that is no release.
    """
    return _aliased(CHAMPION, settings)


def challenger(settings: Settings) -> ReleaseVersion | None:
    """Give the release that the alias challenger names; None without one."""
    return _aliased(CHALLENGER, settings)


def find_release(version: str, settings: Settings) -> ReleaseVersion:
    """
    Give a version of the registered model.

    Raises:
        UnknownVersion: there is none, or it is no release.
    """
    if not has_store(settings):
        raise UnknownVersion(f"the registered model {settings.model_name} has no version {version}")
    with connected(settings) as client:
        return release_version(client, settings.model_name, version)


def list_releases(settings: Settings) -> list[ReleaseVersion]:
    """List the registered releases, newest version first; ``artifact_address`` is the logged model's."""
    if not has_store(settings):
        return []
    with connected(settings) as client:
        found = client.search_model_versions(f"name = '{settings.model_name}'")
    releases = [_read_version(version, version.source) for version in found if _is_release(version)]
    return sorted(releases, key=lambda release: int(release.version), reverse=True)


def find_version(day: date, settings: Settings) -> dict[str, Any] | None:
    """Give the newest registered release of ``day`` as plain facts; None without one."""
    if not has_store(settings):
        return None
    with connected(settings) as client:
        found = client.search_model_versions(f"name = '{settings.model_name}' and tags.day = '{day}'")
        if not found:
            return None
        newest = max(int(version.version) for version in found)
        facts = asdict(release_version(client, settings.model_name, str(newest)))
    at = facts["registered_at"].isoformat()
    shown = {name: facts[name] for name in facts if name not in ("is_new", "move")}
    return shown | {"day": day.isoformat(), "registered_at": at}


def release_version(client: MlflowClient, name: str, version: str, *, is_new: bool = False) -> ReleaseVersion:
    """
    Read one version of the registered model ``name``.

    Raises:
        UnknownVersion: there is none, or it is no release.
    """
    try:
        found = client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UnknownVersion(f"the registered model {name} has no version {version}") from error
    if not _is_release(found):
        raise UnknownVersion(
            f"version {version} of {name} is no release: it has no tags day and release_digest"
        )
    return _read_version(found, client.get_model_version_download_uri(name, version), is_new=is_new)


def _is_release(version: ModelVersion) -> bool:
    return "release_digest" in version.tags and bool(_DAY.fullmatch(version.tags.get("day", "")))


def _read_version(found: ModelVersion, artifact_address: str, *, is_new: bool = False) -> ReleaseVersion:
    return ReleaseVersion(
        version=str(found.version),
        day=date.fromisoformat(found.tags["day"]),
        release_digest=found.tags["release_digest"],
        verdict=found.tags.get("verdict", ""),
        missed_gates=found.tags.get("missed_gates", ""),
        force_reason=found.tags.get(FORCE_REASON, "").strip(),
        promotion=found.tags.get(PROMOTION, ""),
        is_backfill=found.tags.get("is_backfill") == "true",
        run_id=found.run_id,
        artifact_address=artifact_address,
        registered_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        is_new=is_new,
    )


def _aliased(alias: str, settings: Settings) -> ReleaseVersion | None:
    if not has_store(settings):
        return None
    with connected(settings) as client:
        try:
            registered = client.get_registered_model(settings.model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        version = registered.aliases.get(alias)
        if version is None:
            return None
        found = release_version(client, settings.model_name, str(version))
        move = json.loads(registered.tags.get(CHAMPION_MOVE, "null"))
        if alias == CHAMPION and move and move["version"] == found.version:
            return ReleaseVersion(**vars(found) | {"move": ChampionMove(**move)})
        return found
