"""
How does a registered release get to this machine? As a verified copy that appears whole.
"""

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from lakehouse.releases import ReleaseCorrupt, verify_release
from tasks.settings import Settings
from tasks.tracking.connection import connected
from tasks.tracking.registry import ReleaseVersion, release_version

_STALE_SECONDS = 86_400


def download_release(version: str, cache_folder: Path, settings: Settings) -> Path:
    """
    Give a verified local copy of a version's release: ``<cache_folder>/<release digest>``.

    A copy that is there is verified again; a damaged one is fetched anew. It appears whole.

    Raises:
        UnknownVersion: there is no such release.
        ReleaseCorrupt: what the version's artifacts hold is not the registered release.
    """
    with connected(settings) as client:
        found = release_version(client, settings.model_name, version)
        target = cache_folder / found.release_digest
        if _is_whole(target):
            return target
        cache_folder.mkdir(parents=True, exist_ok=True)
        _remove_stale_downloads(cache_folder)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=cache_folder) as temporary:
            fetched = _fetch(found, Path(temporary), settings)
            if _is_whole(target):
                return target
            if target.exists():
                os.replace(target, Path(temporary) / "damaged")
            os.replace(fetched, target)
    return target


def _is_whole(folder: Path) -> bool:
    try:
        return folder.exists() and verify_release(folder).digest == folder.name
    except ReleaseCorrupt as error:
        logging.getLogger(__name__).warning("%s; it is fetched again", error)
        return False


def _fetch(found: ReleaseVersion, folder: Path, settings: Settings) -> Path:
    where = f"version {found.version} of {settings.model_name} at {found.artifact_address}"
    try:
        model = mlflow.artifacts.download_artifacts(
            f"models:/{settings.model_name}/{found.version}", dst_path=str(folder / "model")
        )
        flavor = Model.load(model).flavors["python_function"]
        release = Path(model) / flavor["artifacts"]["release"]["path"]
    except (MlflowException, OSError, KeyError) as error:
        raise ReleaseCorrupt(f"{where} cannot be fetched: {error}") from error
    try:
        manifest = verify_release(release)
    except ReleaseCorrupt as error:
        raise ReleaseCorrupt(f"{where} is damaged: {error}") from error
    if manifest.digest != found.release_digest:
        raise ReleaseCorrupt(f"{where} holds release {manifest.digest[:12]}, not {found.release_digest[:12]}")
    return release


def _remove_stale_downloads(cache_folder: Path) -> None:
    """Remove what killed processes left; a running download is younger."""
    for leftover in cache_folder.glob(".download-*"):
        if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)
