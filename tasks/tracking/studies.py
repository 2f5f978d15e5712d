"""What does MLflow hold of a truncation study? One run, in an experiment of its own; a metric's step is T."""

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass

from matplotlib.figure import Figure
from mlflow.entities import Metric, Param, RunTag

from tasks.code_version import code_version
from tasks.settings import Settings
from tasks.study import Study
from tasks.tracking.connection import connected, experiment_id
from tasks.tracking.runs import run_address

EXPERIMENT = "truncation_study"


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
        for run in client.search_runs([experiment], f"tags.study_digest = '{digest}'"):
            if run.info.status == "FINISHED":
                return LoggedStudy(run.info.run_id, run_address(settings, run), is_new=False)
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
