"""
Where is MLflow, and does it answer?

``sqlite:///file`` keeps artifacts in ``<var>/mlartifacts``; the http(s) address of a server leaves them to
it, and MLflow reads the server's user and password from its own environment variables.
"""

import logging
import os
import re
import sqlite3
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from sqlalchemy.exc import SQLAlchemyError

from tasks.settings import BadSettings, Settings

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
MOST_TOLD = 160
REFUSALS = (requests.codes.unauthorized, requests.codes.forbidden)


class TrackingUnavailable(ConnectionError):
    """MLflow does not answer; the message names the address and what to do."""


class LoginRefused(ValueError):
    """MLflow answers and refuses the login, which no retry mends; the message says what to set."""


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
        LoginRefused: it does not take the user and password, or that user may not do this.
        BadSettings: the address is none that this code uses.
    """
    uri = settings.tracking_uri
    _require_tracking(uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield MlflowClient(uri, uri)
    except (SQLAlchemyError, requests.RequestException, MlflowException) as error:
        if is_login_refused(error):
            raise LoginRefused(
                f"MLflow at {_without_password(uri)} refuses the login ({_short(error)}): check "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and what that user may do in MLflow"
            ) from error
        away = (error, error.__context__)
        is_away = any(isinstance(each, SQLAlchemyError | requests.RequestException) for each in away)
        if is_away or error.error_code == "TEMPORARILY_UNAVAILABLE":
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
            raise BadSettings(
                f"tracking_uri {_without_password(uri)!r} must be sqlite:///file or http://server"
            )
    except (requests.RequestException, sqlite3.Error, OSError) as error:
        raise _unavailable(uri, error) from error


def is_login_refused(error: Exception) -> bool:
    """Tell a refused login, of which MLflow gives several kinds of error, from a server that is away."""
    if isinstance(error, MlflowException) and error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return True
    for each in (error, error.__context__):
        answer = getattr(each, "response", None)
        if answer is not None and answer.status_code in REFUSALS:
            return True
    # Of several files, each of which was tried: MLflow keeps their errors as text alone.
    return any(f"{status} Client Error" in str(error) for status in REFUSALS)


def _unavailable(uri: str, error: Exception) -> TrackingUnavailable:
    if uri.startswith("sqlite"):
        return TrackingUnavailable(
            f"MLflow's store {uri} cannot be used: {_short(error)}; check the file or set "
            "TRIBUTARY_TRACKING_URI"
        )
    return TrackingUnavailable(
        f"MLflow does not answer at {_without_password(uri)}: {_short(error)}; start it (make up) or set "
        "TRIBUTARY_TRACKING_URI"
    )


def _short(error: BaseException) -> str:
    """Give the reason in a few words: the system's for a failed connection, the status of an answer."""
    chain = list(_chain(error))
    for each in chain:
        if isinstance(each, requests.Timeout):
            return "no answer in time"
        answer = getattr(each, "response", None)
        if answer is not None:
            return f"HTTP {answer.status_code} {answer.reason}"
    for each in chain:
        if isinstance(each, OSError) and each.strerror and each.errno:
            return each.strerror.lower()
    first_line = (str(error).strip() or repr(error)).splitlines()[0]
    return _without_password(textwrap.shorten(first_line, MOST_TOLD, placeholder=" ..."))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error and those that it came from, itself first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


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
