"""
What does MLflow hold of a study? One run, in an experiment of its own; of a comparison with a nested run for
each training. A metric's step is T of a truncation study, K of a comparison.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from models.increc.config import IncRecConfig
from tasks.code_version import code_version
from tasks.comparison import Comparison
from tasks.comparison_plan import Unit
from tasks.mnr_tables import MNRStudy
from tasks.pi2i_results import PI2IStudy
from tasks.settings import Settings
from tasks.study import Study
from tasks.tracking.connection import connected, experiment_id
from tasks.tracking.runs import delete_with_children, log_values, run_address

EXPERIMENT = "truncation_study"
MNR = "mnr_study"
COMPARISON = "compare_methods"
PI2I_STUDY = "pi2i_study"
METRICS_PER_CALL = 1000
MOST_NOTE = 8000  # characters that MLflow keeps of a tag


@dataclass(frozen=True)
class LoggedStudy:
    """The study's run; ``is_new`` is false when an equal one was there already."""

    run_id: str
    address: str
    is_new: bool


def log_study(study: Study, figure: Figure, settings: Settings) -> LoggedStudy:
    """Log the study's figures over T, its table and its figure, unless an equal study is there."""
    digest = hashlib.sha256(json.dumps(asdict(study), default=str).encode()).hexdigest()
    settings = settings.model_copy(update={"experiment": EXPERIMENT})
    with connected(settings) as client:
        experiment = experiment_id(client, settings)
        if there := _equal_study(client, experiment, digest, settings):
            return there
        run = client.create_run(experiment, run_name=study.days)
        run_id, now = run.info.run_id, int(time.time() * 1000)
        series = {
            "hit_rate": [step.hit_rate.value for step in study.steps],
            "hit_rate_low": [step.hit_rate.low for step in study.steps],
            "hit_rate_high": [step.hit_rate.high for step in study.steps],
            "mean_candidates": [step.mean_candidates for step in study.steps],
            "share_of_largest": [step.share_of_largest for step in study.steps],
            "gain_of_next": [step.gain for step in study.steps],
        }
        metrics = [
            Metric(name, value, now, step.truncation)
            for name, values in series.items()
            for step, value in zip(study.steps, values, strict=True)
            if value is not None and math.isfinite(value)
        ]
        measured = study.steps[0].hit_rate
        params = {
            "first_day": study.first_day,
            "last_day": study.last_day,
            "source": study.source,
            "n_triggers": study.n_triggers,
            "n_users": measured.n_users,
            "n_targets": measured.n_targets,
            "saturated_at": study.saturated_at,
            **{f"swing.{name}": value for name, value in settings.swing.model_dump().items()},
        }
        tags = {"code_version": code_version(), "mlflow.note.content": study.table()}
        client.log_batch(
            run_id,
            metrics,
            [Param(name, str(value)) for name, value in params.items()],
            [RunTag(name, value) for name, value in tags.items()],
        )
        client.log_text(run_id, study.table() + "\n", "study.md")
        client.log_figure(run_id, figure, "study.png")
        client.set_tag(run_id, "study_digest", digest)
        client.set_terminated(run_id)
    return LoggedStudy(run_id, run_address(settings, run), is_new=True)


def log_pi2i_study(study: PI2IStudy, figure: Figure, settings: Settings) -> LoggedStudy:
    """
    Log every figure of a study of PI2I, its tables and its figure, unless an equal study is there.

    A metric's name is part, row and seed (or "mean", over the seeds); its step is K, T or the trigger index.
    """
    text = study.csv()
    digest = hashlib.sha256(f"{settings.pi2i}\n{text}".encode()).hexdigest()
    settings = settings.model_copy(update={"experiment": PI2I_STUDY})
    with connected(settings) as client:
        experiment = experiment_id(client, settings)
        if there := _equal_study(client, experiment, digest, settings):
            return there
        run = client.create_run(experiment, run_name=study.days, tags={"study_digest": digest})
        run_id, now = run.info.run_id, int(time.time() * 1000)
        params = {
            "first_day": study.first_day,
            "last_day": study.last_day,
            "source": study.source,
            "n_samples": study.n_samples,
            **settings.pi2i.model_dump(),
        }
        tags = {"code_version": code_version(), "mlflow.note.content": study.markdown()[:MOST_NOTE]}
        log_values(client, run_id, tags=tags, params=params)
        metrics = [
            Metric(f"{each.part}/{each.name}/{each.of_seed}{end}", value, now, each.step)
            for each in study.figures()
            for end, value in (("", each.value), ("_low", each.low), ("_high", each.high))
            if math.isfinite(value)
        ]
        for start in range(0, len(metrics), METRICS_PER_CALL):
            client.log_batch(run_id, metrics[start : start + METRICS_PER_CALL])
        client.log_text(run_id, study.markdown() + "\n", "study.md")
        client.log_text(run_id, text, "study.csv")
        client.log_figure(run_id, figure, "study.png")
        client.set_terminated(run_id)
    return LoggedStudy(run_id, run_address(settings, run), is_new=True)


def log_mnr_study(study: MNRStudy, figure: Figure, settings: Settings) -> LoggedStudy:
    """Log a study's figures and differences at K, its tables and its figure, unless an equal one is there."""
    digest = hashlib.sha256((study.summary() + study.csv() + str(settings.mnr)).encode()).hexdigest()
    settings = settings.model_copy(update={"experiment": MNR})
    with connected(settings) as client:
        experiment = experiment_id(client, settings)
        if there := _equal_study(client, experiment, digest, settings):
            return there
        run = client.create_run(experiment, run_name=study.days)
        run_id, now = run.info.run_id, int(time.time() * 1000)
        metrics = [
            Metric(_metric_name(row.table, row.channel, row.variant, name) + suffix, figure_, now, study.k)
            for row in study.rows
            for found, kind in ((row.figures, ""), (row.differences, "_difference"))
            for name, interval in ((name + kind, interval) for name, interval in found.items())
            for suffix, figure_ in (("", interval.value), ("_low", interval.low), ("_high", interval.high))
            if math.isfinite(figure_)
        ]
        tags = {
            "code_version": code_version(),
            "mlflow.note.content": f"{study.summary()}\n\n{study.table('table1')}"[:MOST_NOTE],
        }
        params = {"source": study.source, "is_stand_in": study.is_stand_in, "k": study.k}
        params |= {"first_day": study.first_day, "last_day": study.last_day, "n_requests": study.n_requests}
        params |= {f"mnr.{name}": value for name, value in settings.mnr.model_dump().items()}
        log_values(client, run_id, tags=tags, params=params)
        for start in range(0, len(metrics), METRICS_PER_CALL):
            client.log_batch(run_id, metrics[start : start + METRICS_PER_CALL])
        client.log_text(run_id, study.markdown(), "study.md")
        client.log_text(run_id, study.csv(), "study.csv")
        client.log_figure(run_id, figure, "study.png")
        client.set_tag(run_id, "study_digest", digest)
        client.set_terminated(run_id)
    return LoggedStudy(run_id, run_address(settings, run), is_new=True)


def _equal_study(
    client: MlflowClient, experiment: str, digest: str, settings: Settings
) -> LoggedStudy | None:
    """Find the finished run of an equal study; one that was killed before its end is deleted."""
    for run in client.search_runs([experiment], f"tags.study_digest = '{digest}'"):
        if run.info.status == "FINISHED":
            return LoggedStudy(run.info.run_id, run_address(settings, run), is_new=False)
        delete_with_children(client, run)
    return None


def _metric_name(*parts: str) -> str:
    """Join parts by slashes, with what MLflow allows in a name."""
    return "/".join(re.sub(r"[^A-Za-z0-9_. -]", "_", part.replace(" = ", "_")) for part in parts)


def log_comparison(
    comparison: Comparison,
    trained: Mapping[Unit, tuple[IncRecConfig, Mapping[str, Sequence[float]]]],
    figure: Figure,
    digest: str,
    settings: Settings,
) -> LoggedStudy:
    """
    Log a comparison's tables and figure, and a nested run per training, unless an equal one is there.

    ``trained`` gives hyperparameters and losses per epoch of each training. What a killed attempt left is
    deleted.
    """
    settings = settings.model_copy(update={"experiment": COMPARISON})
    plan = comparison.plan
    with connected(settings) as client:
        experiment = experiment_id(client, settings)
        if there := _equal_study(client, experiment, digest, settings):
            return there
        name = f"{plan.evaluated_days[0]} .. {plan.last_day}"
        parent = client.create_run(experiment, run_name=name, tags={"study_digest": digest})
        run_id = parent.info.run_id
        tags = {
            "code_version": code_version(),
            "mlflow.note.content": f"{comparison.summary()}\n\n{comparison.table('table1')}"[:MOST_NOTE],
        }
        log_values(client, run_id, tags=tags, params={**plan.to_json(), "source": comparison.source})
        client.log_text(run_id, comparison.markdown(), "comparison.md")
        client.log_text(run_id, comparison.csv(), "comparison.csv")
        client.log_figure(run_id, figure, "comparison.png")
        for unit, (config, losses) in trained.items():
            _log_training(client, parent, comparison, unit, config, losses)
        client.set_terminated(run_id)
    return LoggedStudy(run_id, run_address(settings, parent), is_new=True)


def _log_training(
    client: MlflowClient,
    parent: Run,
    comparison: Comparison,
    unit: Unit,
    config: IncRecConfig,
    losses: Mapping[str, Sequence[float]],
) -> None:
    """Log one training below the comparison's run: its figures over K, its losses over the epochs."""
    tags = {"method": unit.method, "backbone": unit.backbone, "mlflow.parentRunId": parent.info.run_id}
    run = client.create_run(parent.info.experiment_id, run_name=str(unit), tags=tags)
    now = int(time.time() * 1000)
    metrics = [
        Metric(name + suffix, figure, now, k)
        for name, k, interval in comparison.figures_of(unit)
        for suffix, figure in (("", interval.value), ("_low", interval.low), ("_high", interval.high))
        if math.isfinite(figure)
    ]
    metrics += [
        Metric(f"loss/{term}", value, now, step)
        for term, values in losses.items()
        for step, value in enumerate(values)
    ]
    log_values(client, run.info.run_id, params=config.model_dump())
    for start in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run.info.run_id, metrics[start : start + METRICS_PER_CALL])
    client.set_terminated(run.info.run_id)
