"""
How does a release become a version of the registered model, and who moves its aliases?

One registered model; each version is a release inside a pyfunc model, and its artifacts are the release's
only lasting copy. MLflow keeps no history of aliases: a tag beside them tells who of us moved the champion.
"""

import json
import uuid
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Literal

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

import lakehouse
import models
from lakehouse.releases import Manifest, open_release, verify_release
from tasks.records import DayRecord
from tasks.review import describe_release, key_figures
from tasks.settings import Settings
from tasks.tracking.connection import connected, experiment_id
from tasks.tracking.runs import provenance, run_address
from tasks.tracking.versions import (
    CHALLENGER,
    CHAMPION,
    CHAMPION_MOVE,
    FORCE_REASON,
    PROMOTION,
    ChampionMove,
    ReleaseVersion,
    is_release,
    release_version,
)

MODEL_FILE = Path(__file__).parents[1] / "pyfunc.py"
MODEL_PACKAGES = ("faiss-cpu", "numba", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "torch")


def register_version(
    release_folder: Path, record: DayRecord, run_id: str, settings: Settings
) -> ReleaseVersion:
    """
    Register a release as a version of the registered model, with a page to decide from.

    The version's artifacts are the release's only lasting copy. A release whose digest a version of the
    same day has already is not added again: that version's tags and page are brought up to date.

    Raises:
        ReleaseCorrupt: the folder is not what its manifest says.
    """
    manifest = verify_release(release_folder)
    with connected(settings) as client:
        experiment = experiment_id(client, settings)
        _registered_model(client, settings.model_name)
        run = client.get_run(run_id)
        version = _version_with_digest(client, settings.model_name, manifest.digest)
        tags = provenance(record) | key_figures(record)
        tags |= {"release_digest": manifest.digest, "logged_in_run": run_id}
        page = describe_release(record, manifest, run_address(settings, run))
        is_new = version is None
        if is_new:
            model_id = _logged_model(client, experiment, manifest) or _log_model(
                release_folder, manifest, run_id
            )
            version = client.create_model_version(
                settings.model_name,
                f"models:/{model_id}",
                run_id=run_id,
                tags=tags,
                description=page,
                model_id=model_id,
            )
        else:
            for name, value in tags.items() - version.tags.items():
                client.set_model_version_tag(settings.model_name, version.version, name, value)
            client.update_model_version(settings.model_name, version.version, description=page)
        return release_version(client, settings.model_name, str(version.version), is_new=is_new)


def set_challenger(version: str, settings: Settings) -> None:
    """Point the alias challenger at ``version``."""
    with connected(settings) as client:
        release_version(client, settings.model_name, version)
        client.set_registered_model_alias(settings.model_name, CHALLENGER, version)


def set_champion(
    version: str,
    settings: Settings,
    *,
    actor: Literal["auto", "manual"],
    reason: str,
    kind: Literal["promotion", "rollback"] = "promotion",
) -> ChampionMove:
    """
    Point the alias champion at ``version``; who moved it and why stays beside it.

    Raises:
        UnknownVersion: there is no such release.
    """
    at = datetime.now(UTC).replace(tzinfo=None).isoformat()
    move = ChampionMove(uuid.uuid4().hex, version, actor, kind, reason, at)
    with connected(settings) as client:
        release_version(client, settings.model_name, version)
        client.set_registered_model_tag(settings.model_name, CHAMPION_MOVE, json.dumps(asdict(move)))
        client.set_registered_model_alias(settings.model_name, CHAMPION, version)
    return move


def note_promotion(version: str, note: str, settings: Settings) -> None:
    """Keep on a version whether and why policy promoted it."""
    with connected(settings) as client:
        client.set_model_version_tag(settings.model_name, version, PROMOTION, note)


def force(version: str, reason: str, settings: Settings) -> None:
    """Record on a version why it may serve without having passed its gates."""
    with connected(settings) as client:
        client.set_model_version_tag(settings.model_name, version, FORCE_REASON, reason)


def _registered_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name, description="Releases of the retrieval stage, one version each.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_model(release_folder: Path, manifest: Manifest, run_id: str) -> str:
    """Upload the release inside a pyfunc model whose code is a file; give the logged model's id."""
    ids = Array(DataType.long)
    signature = ModelSignature(
        inputs=Schema(
            [
                ColSpec(ids, "item_ids"),
                ColSpec(DataType.long, "user_id", required=False),
                ColSpec(Array(DataType.datetime), "event_times", required=False),
                ColSpec(Array(DataType.string), "scenarios", required=False),
                ColSpec(DataType.datetime, "now", required=False),
            ]
        ),
        outputs=Schema([ColSpec(ids, "item_ids"), ColSpec(Array(DataType.double), "scores")]),
        params=ParamSchema(
            [ParamSpec("k", DataType.long, 100), ParamSpec("channel", DataType.string, "merged")]
        ),
    )
    newest = open_release(release_folder).popular_item_ids[:3].tolist()
    with mlflow.start_run(run_id=run_id):
        logged = mlflow.pyfunc.log_model(
            name="retrieval",
            python_model=str(MODEL_FILE),
            artifacts={"release": str(release_folder)},
            code_paths=[package.__path__[0] for package in (lakehouse, models)],
            pip_requirements=[f"{name}=={package_version(name)}" for name in MODEL_PACKAGES],
            signature=signature,
            input_example=pd.DataFrame({"item_ids": [newest]}),
            tags={"release_digest": manifest.digest, "day": str(manifest.day)},
        )
    return logged.model_id


def _logged_model(client: MlflowClient, experiment: str, manifest: Manifest) -> str | None:
    """Find a model that an interrupted registration has uploaded whole."""
    found = client.search_logged_models([experiment], f"tags.release_digest = '{manifest.digest}'")
    return next((model.model_id for model in found if model.status == LoggedModelStatus.READY), None)


def _version_with_digest(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name = '{name}' and tags.release_digest = '{digest}'")
    releases = [version for version in found if is_release(version)]
    return max(releases, key=lambda version: int(version.version), default=None)
