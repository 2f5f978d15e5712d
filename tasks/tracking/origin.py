"""What does MLflow still know of how a release was made?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from tasks.settings import Settings
from tasks.tracking.connection import connected
from tasks.tracking.runs import DATA_DIGEST, MADE_WITH
from tasks.tracking.versions import UnknownVersion, release_version


@dataclass(frozen=True)
class LoggedOrigin:
    """Of a version's run; ``made_with`` is None where the run does not hold it."""

    code_version: str
    config_digest: str
    data_digests: Mapping[str, str]
    made_with: Mapping[str, Any] | None


def find_origin(version: str, settings: Settings) -> LoggedOrigin:
    """
    Read how a registered version was made.

    Raises:
        UnknownVersion: there is no such version, or its run is gone.
    """
    with connected(settings) as client:
        found = release_version(client, settings.model_name, version)
        try:
            tags = client.get_run(found.run_id).data.tags
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise UnknownVersion(f"the run of version {version} is gone") from error
        files = [file.path for file in client.list_artifacts(found.run_id)]
        made_with = None
        if MADE_WITH in files:
            made_with = json.loads(mlflow.artifacts.load_text(f"runs:/{found.run_id}/{MADE_WITH}"))
    return LoggedOrigin(
        tags.get("code_version", ""),
        tags.get("config_digest", ""),
        {n.removeprefix(DATA_DIGEST): v for n, v in tags.items() if n.startswith(DATA_DIGEST)},
        made_with,
    )
