"""
What does MLflow hold of a study? One run, in an experiment of its own; of a comparison with a nested run for
each training. A metric's step is T of a truncation study, K of a comparison.
"""

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from models.increc.config import IncRecConfig
from models.metrics import Interval
from tasks.code_version import code_version
from tasks.comparison import Comparison
from tasks.comparison_plan import Unit
from tasks.mnr_tables import MNRStudy
from tasks.pi2i_results import Figure as PI2IFigure
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


@dataclass(frozen=True)
class _Content:
    """What a study's run holds: ``texts`` by file's ending, ``figures`` as name, value and step."""

    name: str
    params: Mapping[str, object]
    note: str
    texts: Mapping[str, str]
    figures: Iterable[tuple[str, float | None, int]] = ()
    file: str = "study"
    """The stem of its files."""


def log_study(study: Study, figure: Figure, settings: Settings) -> LoggedStudy:
    """Log the study's figures over T, its table and its figure, unless an equal study is there."""
    digest = hashlib.sha256(json.dumps(asdict(study), default=str).encode()).hexdigest()
    measured, table = study.steps[0].hit_rate, study.table()
    params = _days_of(study) | {
        "n_triggers": study.n_triggers,
        "n_users": measured.n_users,
        "n_targets": measured.n_targets,
        "saturated_at": study.saturated_at,
        "swing": settings.swing.model_dump(),
    }

    def figures() -> Iterator[tuple[str, float | None, int]]:
        for step in study.steps:
            yield from _with_ends("hit_rate", step.hit_rate, step.truncation)
            yield "mean_candidates", step.mean_candidates, step.truncation
            yield "share_of_largest", step.share_of_largest, step.truncation
            yield "gain_of_next", step.gain, step.truncation

    content = _Content(study.days, params, table, {"md": table + "\n"}, figures())
    return _log(EXPERIMENT, content, figure, digest, settings)


def log_pi2i_study(study: PI2IStudy, figure: Figure, settings: Settings) -> LoggedStudy:
    """
    Log every figure of a study of PI2I, its tables and its figure, unless an equal study is there.

    A metric's name is part, row and seed (or "mean", over the seeds); its step is K, T or the trigger index.
    """
    text, told = study.csv(), study.markdown()
    digest = hashlib.sha256(f"{settings.pi2i}\n{text}".encode()).hexdigest()
    params = _days_of(study) | {"n_samples": study.n_samples, **settings.pi2i.model_dump()}
    figures = (
        figure
        for each in study.figures()
        for figure in _with_ends(f"{each.part}/{each.name}/{each.of_seed}", each, each.step)
    )
    texts = {"md": told + "\n", "csv": text}
    return _log(PI2I_STUDY, _Content(study.days, params, told, texts, figures), figure, digest, settings)


def log_mnr_study(study: MNRStudy, figure: Figure, settings: Settings) -> LoggedStudy:
    """Log a study's figures and differences at K, its tables and its figure, unless an equal one is there."""
    digest = hashlib.sha256((study.summary() + study.csv() + str(settings.mnr)).encode()).hexdigest()
    params = _days_of(study) | {
        "is_stand_in": study.is_stand_in,
        "k": study.k,
        "n_requests": study.n_requests,
        "mnr": settings.mnr.model_dump(),
    }
    figures = (
        figure
        for row in study.rows
        for found, kind in ((row.figures, ""), (row.differences, "_difference"))
        for name, interval in found.items()
        for figure in _with_ends(
            _metric_name(row.table, row.channel, row.variant, name + kind), interval, study.k
        )
    )
    note = f"{study.summary()}\n\n{study.table('table1')}"
    texts = {"md": study.markdown(), "csv": study.csv()}
    return _log(MNR, _Content(study.days, params, note, texts, figures), figure, digest, settings)


def log_comparison(
    comparison: Comparison,
    trained: Mapping[Unit, tuple[IncRecConfig, Mapping[str, Sequence[float]]]],
    figure: Figure,
    digest: str,
    settings: Settings,
) -> LoggedStudy:
    """
    Log a comparison's tables and figure, and a nested run per training, unless an equal one is there.

    ``trained`` gives hyperparameters and losses per epoch of each training.
    """
    plan = comparison.plan

    def log_trainings(client: MlflowClient, parent: Run) -> None:
        for unit, (config, losses) in trained.items():
            _log_training(client, parent, comparison, unit, config, losses)

    content = _Content(
        f"{plan.evaluated_days[0]} .. {plan.last_day}",
        {**plan.to_json(), "source": comparison.source},
        f"{comparison.summary()}\n\n{comparison.table('table1')}",
        {"md": comparison.markdown(), "csv": comparison.csv()},
        file="comparison",
    )
    return _log(COMPARISON, content, figure, digest, settings, log_trainings)


def _log(
    experiment_name: str,
    content: _Content,
    figure: Figure,
    digest: str,
    settings: Settings,
    log_nested: Callable[[MlflowClient, Run], None] = lambda client, run: None,
) -> LoggedStudy:
    """Log one run, unless a finished one with this digest is there; what a killed attempt left is deleted."""
    settings = settings.model_copy(update={"experiment": experiment_name})
    with connected(settings) as client:
        experiment = experiment_id(client, settings)
        for run in client.search_runs([experiment], f"tags.study_digest = '{digest}'"):
            if run.info.status == "FINISHED":
                return LoggedStudy(run.info.run_id, run_address(settings, run), is_new=False)
            delete_with_children(client, run)
        run = client.create_run(experiment, run_name=content.name, tags={"study_digest": digest})
        run_id = run.info.run_id
        tags = {"code_version": code_version(), "mlflow.note.content": content.note[:MOST_NOTE]}
        log_values(client, run_id, tags=tags, params=content.params)
        _log_figures(client, run_id, content.figures)
        for ending, text in content.texts.items():
            client.log_text(run_id, text, f"{content.file}.{ending}")
        client.log_figure(run_id, figure, f"{content.file}.png")
        log_nested(client, run)
        client.set_terminated(run_id)
    return LoggedStudy(run_id, run_address(settings, run), is_new=True)


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
    log_values(client, run.info.run_id, params=config.model_dump())
    figures = [
        figure
        for name, k, interval in comparison.figures_of(unit)
        for figure in _with_ends(name, interval, k)
    ]
    figures += [
        (f"loss/{term}", value, step) for term, values in losses.items() for step, value in enumerate(values)
    ]
    _log_figures(client, run.info.run_id, figures)
    client.set_terminated(run.info.run_id)


def _log_figures(client: MlflowClient, run_id: str, figures: Iterable[tuple[str, float | None, int]]) -> None:
    """Log what is a number, some at a time."""
    now = int(time.time() * 1000)
    metrics = [
        Metric(name, value, now, step)
        for name, value, step in figures
        if value is not None and math.isfinite(value)
    ]
    for start in range(0, len(metrics), METRICS_PER_CALL):
        client.log_batch(run_id, metrics[start : start + METRICS_PER_CALL])


def _with_ends(name: str, interval: Interval | PI2IFigure, step: int) -> Iterator[tuple[str, float, int]]:
    """Give a figure and the ends of its interval."""
    for end, value in (("", interval.value), ("_low", interval.low), ("_high", interval.high)):
        yield name + end, value, step


def _days_of(study: Study | PI2IStudy | MNRStudy) -> dict[str, object]:
    return {"first_day": study.first_day, "last_day": study.last_day, "source": study.source}


def _metric_name(*parts: str) -> str:
    """Join parts by slashes, with what MLflow allows in a name."""
    return "/".join(re.sub(r"[^A-Za-z0-9_. -]", "_", part.replace(" = ", "_")) for part in parts)
