"""
How do releases and runs leave MLflow, and their bytes the disk?

MLflow's own deletion hides and keeps the artifacts, until an administrator runs ``mlflow gc`` beside the
server. So artifacts are deleted here, through their repository, before what names them. A version that goes
is marked by a tag first: from then on it is no release, and an interrupted removal is finished later.
"""

from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tasks.settings import Settings
from tasks.tracking.connection import connected, has_store
from tasks.tracking.runs import DAY_RUN
from tasks.tracking.versions import REMOVED


def mark_removed(versions: Collection[str], settings: Settings) -> None:
    """Make versions no releases any more: nothing lists, serves or registers them again."""
    with connected(settings) as client:
        for version in versions:
            model_id = client.get_model_version(settings.model_name, version).model_id
            if model_id and _logged_model(client, model_id):
                client.set_logged_model_tags(model_id, {"release_digest": REMOVED})
            client.set_model_version_tag(settings.model_name, version, REMOVED, "true")


def list_removed(settings: Settings) -> list[str]:
    """List the versions that are marked and still there."""
    if not has_store(settings):
        return []
    with connected(settings) as client:
        found = client.search_model_versions(f"name = '{settings.model_name}' and tags.{REMOVED} = 'true'")
    return sorted((str(version.version) for version in found), key=int)


def remove_version(version: str, settings: Settings) -> None:
    """Delete a marked version with its artifacts, but for artifacts that another version shares."""
    with connected(settings) as client:
        model_id = client.get_model_version(settings.model_name, version).model_id
        of_model = client.search_model_versions(f"name = '{settings.model_name}'")
        users = [each for each in of_model if each.model_id == model_id and REMOVED not in each.tags]
        if model_id and not users:
            _remove_logged_model(client, model_id, settings)
        client.delete_model_version(settings.model_name, version)


def list_logged_days(settings: Settings) -> dict[date, datetime]:
    """Give the days that have a run, with when the last one started; times have their zone."""
    found: dict[date, datetime] = {}
    if not has_store(settings):
        return found
    with connected(settings) as client:
        for run in _runs(client, settings, f"tags.kind = '{DAY_RUN}'", ViewType.ACTIVE_ONLY):
            day = date.fromisoformat(run.data.tags["day"])
            at = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
            found[day] = max(at, found.get(day, at))
    return found


def remove_day(day: date, settings: Settings) -> None:
    """Delete the runs of a day, deleted ones too, and its models that no version holds, with artifacts."""
    with connected(settings) as client:
        experiment = client.get_experiment_by_name(settings.experiment)
        if experiment is None:
            return
        for model in client.search_logged_models([experiment.experiment_id], f"tags.day = '{day}'"):
            _remove_logged_model(client, model.model_id, settings)
        runs = list(_runs(client, settings, f"tags.day = '{day}'", ViewType.ALL))
        # The day's own run is what an interrupted removal is found by, so it goes last.
        for run in sorted(runs, key=lambda run: run.data.tags.get("kind") == DAY_RUN):
            _repository(run.info.artifact_uri, settings).delete_artifacts()
            if run.info.lifecycle_stage == LifecycleStage.ACTIVE:
                client.delete_run(run.info.run_id)


def _runs(client: MlflowClient, settings: Settings, query: str, view: int) -> Iterator[Run]:
    experiment, token = client.get_experiment_by_name(settings.experiment), None
    while experiment is not None and token != "":
        page = client.search_runs([experiment.experiment_id], query, view, page_token=token)
        yield from page
        token = page.token or ""


def _logged_model(client: MlflowClient, model_id: str):
    """Give a logged model; None where it is deleted."""
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _remove_logged_model(client: MlflowClient, model_id: str, settings: Settings) -> None:
    if model := _logged_model(client, model_id):
        _repository(model.artifact_location, settings).delete_artifacts()
        client.delete_logged_model(model_id)


def _repository(address: str, settings: Settings):
    return get_artifact_repository(address, settings.tracking_uri, settings.tracking_uri)
