"""
What does MLflow hold of a day? One parent run with a nested run per method.

A day has one parent run: an equal record of an earlier attempt is kept and only its tags are updated;
other and unfinished attempts are deleted, except where a registered version came from them.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from tasks.figures import hit_rate_figure, loss_figure
from tasks.records import ALL, DayRecord, MethodRecord
from tasks.review import describe_day, gate_table
from tasks.settings import Settings
from tasks.tracking.connection import connected, experiment_id

REPORT, MADE_WITH, DATA_DIGEST = "report.html", "made_with.json", "data_digest."
DAY_RUN, _METHOD_RUN = "day", "method"
_BATCH = 100


@dataclass(frozen=True)
class LoggedDay:
    """The parent run of a day; ``is_new`` is false when an equal record was there already."""

    run_id: str
    address: str
    is_new: bool


def log_day(record: DayRecord, settings: Settings) -> LoggedDay:
    """
    Log one day: the parent run, and a nested run per method.

    A day has one parent run: an equal record of an earlier attempt is kept and only its tags are updated;
    other and unfinished attempts are deleted, except where a registered version came from them: those are
    tagged ``superseded_by``.
    """
    with connected(settings) as client:
        experiment = experiment_id(client, settings)
        digest = record.digest()
        earlier = client.search_runs([experiment], f"tags.kind = '{DAY_RUN}' and tags.day = '{record.day}'")
        for run in earlier:
            is_complete = run.info.status == "FINISHED" and "superseded_by" not in run.data.tags
            if is_complete and run.data.tags.get("record_digest") == digest:
                log_values(client, run.info.run_id, tags=provenance(record))
                return LoggedDay(run.info.run_id, run_address(settings, run), is_new=False)
        parent = client.create_run(
            experiment, run_name=str(record.day), tags={"kind": DAY_RUN, "record_digest": digest}
        )
        _log_parent(client, parent.info.run_id, record)
        for method in record.methods:
            _log_method(client, parent, record, method)
        client.set_terminated(parent.info.run_id)
        for run in earlier:
            _supersede(client, settings, run, by=parent.info.run_id)
        return LoggedDay(parent.info.run_id, run_address(settings, parent), is_new=True)


def provenance(record: DayRecord) -> dict[str, str]:
    """Give the tags that a day's runs and its release share."""
    return {
        "day": str(record.day),
        "verdict": record.verdict,
        "missed_gates": ", ".join(record.missed_gates()),
        "code_version": record.code_version,
        "config_digest": record.config_digest,
        "dag_run_id": record.dag_run_id or "",
        "is_backfill": str(record.is_backfill).lower(),
        "data_docs": record.data_docs or "",
    }


def _log_parent(client: MlflowClient, run_id: str, record: DayRecord) -> None:
    tags = provenance(record) | {DATA_DIGEST + name: value for name, value in record.data_digests.items()}
    tags["mlflow.note.content"] = describe_day(record)
    log_values(client, run_id, tags=tags, params=record.params, metrics=record.figures.items())
    client.log_text(run_id, gate_table(record) + "\n", "gates.md")
    client.log_dict(run_id, {"verdict": record.verdict, "gates": record.gates.to_pylist()}, "gates.json")
    client.log_dict(run_id, dict(record.made_with), MADE_WITH)
    if record.report:
        client.log_text(run_id, record.report, REPORT)
    if figure := hit_rate_figure(record):
        client.log_figure(run_id, figure, "hit_rate.png")


def _log_method(client: MlflowClient, parent: Run, record: DayRecord, method: MethodRecord) -> None:
    run = client.create_run(
        parent.info.experiment_id,
        run_name=method.name,
        tags={"kind": _METHOD_RUN, "method": method.name, "mlflow.parentRunId": parent.info.run_id},
    )
    run_id = run.info.run_id
    metrics = [figure for row in method.metrics.to_pylist() for figure in _figures(row)]
    log_values(client, run_id, tags=provenance(record), params=method.params, metrics=metrics)
    losses = {term: list(values) for term, values in method.losses.items() if len(values)}
    for term, values in losses.items():
        log_values(client, run_id, metrics=[(f"loss/{term}", value) for value in values], is_series=True)
    if losses:
        client.log_figure(run_id, loss_figure(method.name, losses), "loss.png")
    client.set_terminated(run_id)


def _figures(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Name a row's figures for MLflow: ``[<cohort>/]<metric>_at_<k>``, and with ``_low`` and ``_high``."""
    name = f"{row['metric']}_at_{row['k']}" if row["k"] else row["metric"]
    if row["cohort"] != ALL:
        name = f"{row['cohort']}/{name}"
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-. :/") else "_" for c in name)
    for suffix, column in (("", "value"), ("_low", "low"), ("_high", "high")):
        if row[column] is not None and math.isfinite(row[column]):
            yield name + suffix, row[column]


def log_values(
    client: MlflowClient,
    run_id: str,
    *,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, object] | None = None,
    metrics: Iterable[tuple[str, float]] = (),
    is_series: bool = False,
) -> None:
    """Log in batches; of a series, each value is a step."""
    now = int(time.time() * 1000)
    rows = [
        *(RunTag(name, value) for name, value in (tags or {}).items()),
        *(Param(name, str(value)) for name, value in _flat(params or {})),
        *(Metric(name, float(value), now, i if is_series else 0) for i, (name, value) in enumerate(metrics)),
    ]
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        of_kind = [[row for row in batch if isinstance(row, kind)] for kind in (Metric, Param, RunTag)]
        client.log_batch(run_id, *of_kind)


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _supersede(client: MlflowClient, settings: Settings, run: Run, *, by: str) -> None:
    if client.search_model_versions(f"name = '{settings.model_name}' and run_id = '{run.info.run_id}'"):
        client.set_tag(run.info.run_id, "superseded_by", by)
        return
    delete_with_children(client, run)


def delete_with_children(client: MlflowClient, run: Run) -> None:
    """Delete a run and those nested in it."""
    children = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    for child in client.search_runs([run.info.experiment_id], children):
        client.delete_run(child.info.run_id)
    client.delete_run(run.info.run_id)


def run_address(settings: Settings, run: Run) -> str:
    """Give the run's page: absolute on a server, else as the local UI links it."""
    base = settings.tracking_uri.rstrip("/") + "/" if settings.tracking_uri.startswith("http") else ""
    return f"{base}#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
