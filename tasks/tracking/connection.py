"""
Where is MLflow, and does it answer?

``sqlite:///file`` keeps artifacts in ``<var>/mlartifacts``; the http(s) address of a server leaves them to
it, and MLflow reads the server's user and password from its own environment variables.
"""

import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from sqlalchemy.exc import SQLAlchemyError

from tasks.settings import Settings

# Read when mlflow is imported or first used: no telemetry, no bars, seconds of retries, not minutes.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
}.items():
    os.environ.setdefault(_name, _value)

import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

logging.getLogger("mlflow").setLevel(logging.WARNING)

PING_TIMEOUT_SECONDS = 5


class TrackingUnavailable(ConnectionError):
    """MLflow does not answer; the message names the address and what to do."""


def has_store(settings: Settings) -> bool:
    """Tell whether there is a store to read: asking MLflow for an absent SQLite file would make it."""
    path = settings.tracking_uri.removeprefix("sqlite:///")
    return path == settings.tracking_uri or Path(path).exists()


@contextmanager
def connected(settings: Settings) -> Iterator[MlflowClient]:
    """
    Give a client, with mlflow's own functions pointed at the same place.

    Raises:
        TrackingUnavailable: MLflow does not answer, before or while it is used.
    """
    uri = settings.tracking_uri
    _require_tracking(uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield MlflowClient(uri, uri)
    except (SQLAlchemyError, requests.RequestException) as error:
        raise _unavailable(uri, error) from error
    except MlflowException as error:
        if error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "TEMPORARILY_UNAVAILABLE"):
            raise _unavailable(uri, error) from error
        if isinstance(error.__context__, requests.RequestException | SQLAlchemyError):
            raise _unavailable(uri, error) from error
        raise


def _require_tracking(uri: str) -> None:
    """Ask before mlflow does, which would try for minutes."""
    try:
        if uri.startswith(("http://", "https://")):
            answer = requests.get(f"{uri.rstrip('/')}/health", timeout=PING_TIMEOUT_SECONDS)
            if answer.status_code >= requests.codes.internal_server_error:
                answer.raise_for_status()
        elif uri.startswith("sqlite:///"):
            path = Path(uri.removeprefix("sqlite:///"))
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path)
            connection.execute("pragma schema_version").fetchone()
            connection.close()
        else:
            raise TrackingUnavailable(
                f"tracking_uri {_without_password(uri)!r} must be sqlite:///file or http://server"
            )
    except (requests.RequestException, sqlite3.Error, OSError) as error:
        raise _unavailable(uri, error) from error


def _unavailable(uri: str, error: Exception) -> TrackingUnavailable:
    first_line = _without_password((str(error).strip() or repr(error)).splitlines()[0])
    is_file = uri.startswith("sqlite")
    advice = "check the file" if is_file else "start the server or check its user and password"
    return TrackingUnavailable(
        f"MLflow at {_without_password(uri)} cannot be used ({first_line}): {advice}, or set tracking_uri"
    )


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", text)


def experiment_id(client: MlflowClient, settings: Settings) -> str:
    """Give the experiment's id; make or restore it where needed."""
    found = client.get_experiment_by_name(settings.experiment)
    if found is None:
        is_local = settings.tracking_uri.startswith("sqlite")
        location = (settings.var / "mlartifacts").absolute().as_uri() if is_local else None
        try:
            return client.create_experiment(settings.experiment, artifact_location=location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(settings.experiment)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id
