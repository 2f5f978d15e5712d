"""
Training tasks: the samples of the window that ends the day before -> one checkpoint per method.

A model of day D has seen no behaviour of D, so D can evaluate it.
"""

import json
import logging
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from lakehouse import tables
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from models.increc.model import TrainedModel
from models.increc.ranks import ALONE, Ranks
from models.increc.samples import NoSamples
from models.increc.training import train as train_towers
from models.pi2i.model import TrainedScorer
from models.pi2i.training import train as train_scorer
from tasks.checkpoints import read_files, write_files
from tasks.days import ONE_DAY, ingested, source_first_day, window
from tasks.settings import PI2I, Settings
from tasks.spark import spark_session
from tasks.training_state import TrainingState

SCORER, REPORT = "scorer.safetensors", "report.json"

log = logging.getLogger(__name__)


class UnknownMethod(LookupError):
    """A method was asked for that the settings do not name."""


@dataclass(frozen=True)
class TrainReport:
    """
    What one call of ``train`` learned from; ``is_warming_up``: there was nothing to learn from yet.

    ``final_loss`` is None where nothing was learned.
    """

    method: str
    n_samples: int
    seconds: float
    final_loss: float | None
    is_warming_up: bool


def train(day: date, method: str, settings: Settings, ranks: Ranks = ALONE) -> TrainReport:
    """
    Replace ``checkpoint/ds=<day>/method=<method>``, learned from the samples up to the day before.

    A method with ``start = "carry_on"`` goes on from the checkpoint of the day before, gated or not, and
    learns from the samples of that day only: its weights hold the days before. Where no earlier day has a
    checkpoint of the method it starts from scratch, on the whole window; where that day has nothing to learn
    from, its checkpoint is carried on as it is, with a warning.

    A run that was killed goes on after its last whole epoch when it is started again. Of several processes
    that train together (``tasks.train_distributed``) the first one writes.

    PI2I's scorer learns from scratch, also after a run that was killed.

    Raises:
        UnknownMethod: the settings name no such method, or several processes are to train PI2I.
        MissingPartition: a day of the window has no samples, or the checkpoint to carry on from is absent.
    """
    if method not in settings.trained_methods:
        known = ", ".join(settings.trained_methods)
        raise UnknownMethod(f"no method {method!r} in the settings; known: {known}")
    if method == PI2I:
        if ranks.n > 1:
            raise UnknownMethod(
                f"{PI2I} trains in one process; known to torchrun: {', '.join(settings.methods)}"
            )
        return _train_pi2i(day, settings)
    lakehouse = Lakehouse(settings.lakehouse_root)
    config = settings.methods[method]
    days = training_days(lakehouse, day, settings)
    if is_warming_up(lakehouse, day, settings):
        return TrainReport(method, 0, 0.0, None, is_warming_up=True)
    initial = None
    if config.start == "carry_on" and _has_earlier_checkpoint(lakehouse, day, method):
        initial = read_checkpoint(lakehouse, day - ONE_DAY, method)
        days = days[-1:]
    samples = lakehouse.read_days(tables.INCREC_SAMPLE, days)
    state = TrainingState(settings.var, day, method)
    try:
        model, report = train_towers(
            samples,
            read_items(lakehouse, day - ONE_DAY, settings),
            lakehouse.read(tables.USER_SNAPSHOT, day - ONE_DAY),
            config,
            initial=initial,
            device=settings.device,
            keeper=state,
            ranks=ranks,
        )
    except NoSamples as error:
        if initial is None:
            raise
        log.warning("the checkpoint of %s is carried on to %s as it is: %s", day - ONE_DAY, day, error)
        if ranks.rank == 0:
            write_files(lakehouse, day, method, read_files(lakehouse, day - ONE_DAY, method))
        return TrainReport(method, samples.num_rows, 0.0, None, is_warming_up=False)
    if ranks.rank == 0:
        files = {**model.to_files(), REPORT: report.to_json()}
        write_files(lakehouse, day, method, files)
        state.forget()
    return TrainReport(
        method,
        samples.num_rows,
        report.seconds,
        report.epoch_losses["total"][report.best_epoch - 1],
        is_warming_up=False,
    )


def _train_pi2i(day: date, settings: Settings) -> TrainReport:
    """Train PI2I's scorer, from scratch, on the window; a run that was killed starts again."""
    lakehouse = Lakehouse(settings.lakehouse_root)
    if is_warming_up(lakehouse, day, settings):
        return TrainReport(PI2I, 0, 0.0, None, is_warming_up=True)
    scorer, report = train_scorer(
        read_in_one_piece(lakehouse, tables.PI2I_SAMPLE, training_days(lakehouse, day, settings)),
        read_items(lakehouse, day - ONE_DAY, settings),
        lakehouse.read(tables.USER_SNAPSHOT, day - ONE_DAY),
        settings.pi2i,
        device=settings.device,
    )
    write_files(lakehouse, day, PI2I, {SCORER: scorer.to_bytes(), REPORT: report.to_json()})
    return TrainReport(PI2I, report.n_samples, report.seconds, report.epoch_losses[-1], is_warming_up=False)


def read_in_one_piece(lakehouse: Lakehouse, table: tables.Table, days: list[date]) -> pa.Table:
    """Read rows for training to work on views of; what Arrow keeps beside them goes back to the system."""
    pool = pa.default_memory_pool()
    pool.release_unused()
    rows = lakehouse.read_days(table, days).combine_chunks()
    pool.release_unused()
    return rows


def training_days(lakehouse: Lakehouse, day: date, settings: Settings) -> list[date]:
    """List the days whose samples a model of ``day`` may learn from: the window that ends the day before."""
    return window(day - ONE_DAY, settings.window_days, source_first_day(ingested(lakehouse, day)))


def is_warming_up(lakehouse: Lakehouse, day: date, settings: Settings) -> bool:
    """
    Tell whether a method has no samples yet in the window before ``day``: then none is trained.

    Raises:
        MissingPartition: a day of the window has no samples.
    """
    days = training_days(lakehouse, day, settings)
    needed = [tables.INCREC_SAMPLE, *([tables.PI2I_SAMPLE] if settings.pi2i else [])]
    n_rows = [sum(lakehouse.require(table, learned).n_rows for learned in days) for table in needed]
    return 0 in n_rows


def read_checkpoint(lakehouse: Lakehouse, day: date, method: str) -> TrainedModel:
    """
    Load the model that ``train`` wrote for ``day``.

    Raises:
        MissingPartition: there is none.
    """
    return TrainedModel.from_files(read_files(lakehouse, day, method))


def read_scorer(lakehouse: Lakehouse, day: date) -> TrainedScorer:
    """Load PI2I's scorer that ``train`` wrote for ``day``. Raises MissingPartition where there is none."""
    return TrainedScorer.from_bytes(read_files(lakehouse, day, PI2I)[SCORER])


def read_losses(lakehouse: Lakehouse, day: date, method: str) -> dict[str, list[float]]:
    """Read each loss term's mean by epoch. Raises MissingPartition where the method has no checkpoint."""
    losses = json.loads(read_files(lakehouse, day, method)[REPORT])["epoch_losses"]
    return losses if isinstance(losses, dict) else {"total": losses}


def read_items(lakehouse: Lakehouse, day: date, settings: Settings) -> pa.Table:
    """Read the items as of ``day`` with their dense index and side features, ordered by item id."""
    return run_sql(
        "marts/indexed_item",
        {
            "item_index": lakehouse.relation(tables.ITEM_INDEX, [day]),
            "item": lakehouse.relation(tables.ITEM_SNAPSHOT, [day]),
        },
        {"day": day},
        spark=spark_session(settings),
    )


def _has_earlier_checkpoint(lakehouse: Lakehouse, day: date, method: str) -> bool:
    return any(
        earlier < day and lakehouse.commit(tables.CHECKPOINT, earlier, part=method)
        for earlier in lakehouse.days(tables.CHECKPOINT)
    )
