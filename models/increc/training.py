"""
How is IncRec trained? AdaGrad over the sum of the towers' losses (Eq. 8), from scratch or carried on.

Training sees the samples, items and users it is given and nothing else: what may not be known yet must not
be in them.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from time import perf_counter

import numpy as np
import pyarrow as pa

from models.increc.batches import Batches
from models.increc.config import IncRecConfig
from models.increc.epochs import check_weights, held_out_loss, train_epoch
from models.increc.held_out import read_held_out, split_users
from models.increc.model import TrainedModel
from models.increc.progress import Keeper, Run, identify
from models.increc.ranks import ALONE, Ranks
from models.increc.reproducible import repeatable
from models.increc.samples import read_samples
from models.increc.start import check_start, find_device, first_network, first_optimizer
from models.increc.vocabulary import build_vocabulary

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingReport:
    """
    What a training run did.

    ``epoch_losses`` and ``step_losses``: for each term (basic, incremental, alignment, total) its value per
    sample, the mean of an epoch or of one step. ``held_out_losses``: the serving tower's after each epoch,
    per held-out sample, empty where none is held out; the model is that of ``best_epoch``.
    ``n_unknown_items``: target and exposed items that the item table lacks, left out. ``seconds`` is the only
    figure that differs between equal runs.
    """

    started_from: str
    device: str
    n_samples: int
    n_dropped_samples: int
    n_held_out_samples: int
    n_rtg: int
    n_itg: int
    n_etg: int
    n_unknown_items: int
    n_items: int
    n_new_items: int
    n_steps: int
    epoch_losses: dict[str, list[float]]
    step_losses: dict[str, list[float]]
    held_out_losses: list[float]
    best_epoch: int
    seconds: float

    def to_json(self) -> bytes:
        """Write the report without ``seconds``: equal runs give equal bytes."""
        facts = asdict(self)
        del facts["seconds"]
        return (json.dumps(facts, indent=2) + "\n").encode()


def train(
    samples: pa.Table,
    items: pa.Table,
    users: pa.Table,
    config: IncRecConfig,
    *,
    initial: TrainedModel | None = None,
    device: str = "auto",
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    keeper: Keeper | None = None,
    ranks: Ranks = ALONE,
) -> tuple[TrainedModel, TrainingReport]:
    """
    Train one variant on the samples of some days.

    Args:
        samples: rows of ``increc_sample``, optionally with their day in ``ds``.
        items: the candidate pool: ``item_id``, ``item_index`` and the side features of the config.
        users: ``user_id`` and ``profile``; users may be missing.
        config: the method.
        initial: the model of the day before; only with ``config.start = "carry_on"``. Without it training
            starts from scratch, as on a deployment's first day.
        device: "auto" (cuda where there is one), "cpu" or "cuda".
        on_epoch: called after each epoch with its 1-based number and mean losses, once its state is kept.
        keeper: where the state is kept after each epoch. A run of equal inputs goes on from there and ends in
            the bytes of one that was not interrupted; a state of other inputs is left alone, with a warning.
        ranks: this process among those that train together; all get the same inputs, the first one keeps
            the state.

    Raises:
        NoSamples: nothing to learn from.
        CannotCarryOn: ``initial`` does not fit the config.
        VocabularyChanged: ``items`` contradicts the rows of ``initial``.
        MissingColumn: a table lacks a column.
        NoSuchDevice: ``device`` is unknown or not there.
        NonFiniteLoss: training diverged, at its last step even, which no loss tells of.
        RanksDiffer: the processes that train together were given different inputs.
    """
    started = perf_counter()
    check_start(config, initial)
    where = find_device(device)
    vocabulary = build_vocabulary(items, config, before=initial.vocabulary if initial else None)
    learned, held_out = split_users(samples, config)
    read, n_unknown = read_samples(learned, users, vocabulary, config)
    pool = vocabulary.rows(items["item_id"].to_numpy())
    batches, left_out, held_out_batches = Batches(read, vocabulary, pool, config, ranks), None, None
    if held_out is not None:
        left_out = read_held_out(held_out, users, vocabulary, config)
        held_out_batches = Batches(left_out, vocabulary, pool, config, ranks)
    with repeatable(config.seed, config.n_threads, where):
        network = first_network(vocabulary, read, config, initial).to(where)
        run = Run(network, first_optimizer(network, config, initial))
        identity = {}
        if keeper or ranks.n > 1:
            parts = {"samples": read} | ({"held-out samples": left_out} if left_out else {})
            identity = identify(config, vocabulary, pool, parts, initial, where, ranks.n)
        if keeper:
            run.resume(keeper, identity, config)
        ranks.require_equal(identity | {"kept epochs": str(run.course.epoch)})
        while not run.course.is_over(config):
            epoch = run.course.epoch + 1
            losses = train_epoch(network, run.optimizer, batches, epoch, where)
            run.note(
                losses, held_out_loss(network, held_out_batches, where) if held_out_batches else None, config
            )
            if keeper and ranks.rank == 0:
                run.save(keeper, identity)
            means = {term: float(np.mean(values)) for term, values in losses.items()}
            log.info("%s epoch %d/%d: %s", config.variant, epoch, config.epochs, means)
            if on_epoch:
                on_epoch(epoch, means)
        run.take_best()
        check_weights(run.tensors(), config)
    curves, n_items = run.course.curves, len(vocabulary.known_item_ids)
    report = TrainingReport(
        started_from="carry_on" if initial else "scratch",
        device=where.type,
        n_samples=len(read),
        n_dropped_samples=len(learned) - len(read),
        n_held_out_samples=len(left_out) if left_out else 0,
        n_rtg=len(read.rtg.values),
        n_itg=len(read.itg.values),
        n_etg=len(read.etg.values),
        n_unknown_items=n_unknown,
        n_items=n_items,
        n_new_items=n_items - (len(initial.known_item_ids) if initial else 0),
        n_steps=batches.n_steps * run.course.epoch,
        epoch_losses={term: [float(np.mean(values)) for values in epochs] for term, epochs in curves.items()},
        step_losses={term: list(chain.from_iterable(epochs)) for term, epochs in curves.items()},
        held_out_losses=run.course.held_out_losses,
        best_epoch=run.course.best_epoch,
        seconds=perf_counter() - started,
    )
    sums = {name: total.cpu() for name, total in run.optimizer.sums.items()}
    return TrainedModel(config, vocabulary, network.cpu().eval(), sums), report
