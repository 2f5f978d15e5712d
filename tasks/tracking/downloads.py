"""
How does a registered release get to this machine? As a verified copy that appears whole.
"""

import logging
import os
import shutil
import tempfile
import textwrap
import time
from pathlib import Path

import mlflow
import requests
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from lakehouse.manifest import keep_verified, verify_unchanged
from lakehouse.releases import ReleaseCorrupt, verify_release
from lakehouse.storage import one_line
from tasks.settings import Settings
from tasks.tracking.connection import connected
from tasks.tracking.versions import ReleaseVersion, release_version

_STALE_SECONDS = 86_400
_MOST_TOLD = 400
GONE_CODES = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
GONE_TEXTS = ("No such file or directory", "No such artifact", "404 Client Error")


def download_release(version: str, cache_folder: Path, settings: Settings) -> Path:
    """
    Give a verified local copy of a version's release: ``<cache_folder>/<release digest>``.

    A copy that is there is verified again, as `verify_unchanged` does; a damaged one is fetched anew. It
    appears whole.

    Raises:
        UnknownVersion: there is no such release.
        ReleaseCorrupt: the version's artifacts are gone, or hold another release than the registered one.
        OSError: the copy cannot be written.
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
        keep_verified(target)
    return target


def _is_whole(folder: Path) -> bool:
    try:
        return folder.exists() and verify_unchanged(folder).digest == folder.name
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
        if _is_gone(error):
            raise ReleaseCorrupt(f"{where} cannot be fetched: {_told(error, folder)}") from error
        if isinstance(error, requests.RequestException) or error.__context__ is not None:
            raise
        raise OSError(
            f"{where} cannot be fetched now: {_told(error, folder)}; make room, or mend its store"
        ) from error
    try:
        manifest = verify_release(release)
    except ReleaseCorrupt as error:
        raise ReleaseCorrupt(f"{where} is damaged: {_told(error, release)}") from error
    if manifest.digest != found.release_digest:
        raise ReleaseCorrupt(f"{where} holds release {manifest.digest[:12]}, not {found.release_digest[:12]}")
    return release


def _told(error: Exception, folder: Path) -> str:
    """Tell an error on one line, the same one each time: without the folder of this download."""
    told = one_line(error).replace(f"release {folder}: ", "").replace(str(folder), "the download")
    return textwrap.shorten(told, _MOST_TOLD, placeholder=" ...")


def _is_gone(error: Exception) -> bool:
    """Tell artifacts that are not there from a server or a disk that may be well again later."""
    cause = error if isinstance(error, requests.RequestException) else error.__context__
    if isinstance(cause, requests.RequestException):
        return cause.response is not None and cause.response.status_code == requests.codes.not_found
    if isinstance(error, MlflowException):
        # Of several files, each of which was tried: MLflow keeps their errors as text alone.
        return error.error_code in GONE_CODES or any(text in str(error) for text in GONE_TEXTS)
    return isinstance(error, KeyError | FileNotFoundError | NotADirectoryError)


def _remove_stale_downloads(cache_folder: Path) -> None:
    """Remove what killed processes left; a running download is younger."""
    for leftover in cache_folder.glob(".download-*"):
        if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)
