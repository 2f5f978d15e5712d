"""
How is PI2I's scorer trained? Adam over the sampled softmax of Eq. 12; of the tables the batch's rows.

Training sees the samples, items and users it is given and nothing else.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np
import pyarrow as pa
import torch

from models.increc.reproducible import repeatable
from models.increc.start import find_device
from models.increc.vocabulary import build_vocabulary
from models.increc.weights import not_finite
from models.pi2i.batches import Batch, Batches, Part, Samples, read_samples
from models.pi2i.config import PI2IConfig
from models.pi2i.model import TrainedScorer
from models.pi2i.network import Scorer, UserBlock, sampled_loss
from models.threads import iterate_in_threads

log = logging.getLogger(__name__)


class NonFiniteLoss(ValueError):
    """A loss, or a weight after the last step, became infinite or not a number."""


@dataclass(frozen=True)
class TrainingReport:
    """
    What a training run did; ``step_losses`` per sample, in order.

    ``seconds`` is the only figure that differs between equal runs.
    """

    device: str
    n_samples: int
    n_candidates: int
    n_items: int
    n_steps: int
    epoch_losses: list[float]
    step_losses: list[float]
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
    config: PI2IConfig,
    *,
    device: str = "auto",
    on_epoch: Callable[[int, float, TrainedScorer], None] | None = None,
) -> tuple[TrainedScorer, TrainingReport]:
    """
    Train the scorer on the samples of some days.

    Args:
        samples: rows of ``sampling.SCHEMA``.
        items: ``item_id``, ``item_index`` and the side features of the config.
        users: ``user_id`` and ``profile``; users may be missing.
        config: the method.
        device: "auto" (cuda where there is one), "cpu" or "cuda".
        on_epoch: called after each epoch with its 1-based number, its mean loss and the scorer as it is.

    Raises:
        NoSamples: nothing to learn from.
        MissingColumn: a table lacks a column.
        NoSuchDevice: ``device`` is unknown or not there.
        NonFiniteLoss: training diverged, at its last step even, which no loss tells of.
    """
    started = perf_counter()
    where = find_device(device)
    vocabulary = build_vocabulary(items, config)
    read = read_samples(samples, users, vocabulary, config)
    batches = Batches(read, vocabulary, config)
    losses: list[list[float]] = []
    with repeatable(config.seed, 1, where):
        network = _first_network(read, batches, config).to(where)
        optimizers = _optimizers(network, config)
        for epoch in range(1, config.epochs + 1):
            losses.append(_train_epoch(network, optimizers, batches, epoch, where))
            mean = float(np.mean(losses[-1]))
            log.info("PI2I epoch %d/%d: loss %.4f", epoch, config.epochs, mean)
            if on_epoch:
                on_epoch(epoch, mean, TrainedScorer(config, vocabulary, network.eval()))
        _check_weights(network, config)
    report = TrainingReport(
        where.type,
        len(read),
        len(read.items.values),
        len(vocabulary.known_item_ids),
        batches.n_steps * config.epochs,
        [float(np.mean(steps)) for steps in losses],
        [loss for steps in losses for loss in steps],
        perf_counter() - started,
    )
    return TrainedScorer(config, vocabulary, network.cpu().eval()), report


def differentiate(network: Scorer, batches: Batches, parts: list[Part], device: torch.device) -> float:
    """
    Give a step's mean loss, and every parameter its gradient.

    Parts are scored side by side and added up in their order: threads do not change the result.
    """
    parameters = list(network.parameters())
    n_samples = sum(len(part.samples) for part in parts)

    def of_part(part: Part) -> tuple[float, tuple[torch.Tensor | None, ...]]:
        batch = batches.batch(part)
        moved = batch if device.type == "cpu" else batch.to(device)
        generator = torch.Generator(device).manual_seed(part.seed)
        log_q = moved.log_q if batches.config.logq else torch.zeros_like(moved.log_q)
        logits = network(scored_block(network, moved), generator)
        loss = sampled_loss(logits, log_q, moved.is_item) * (len(part.samples) / n_samples)
        return loss.item(), torch.autograd.grad(loss, parameters, allow_unused=True)

    for parameter in parameters:
        parameter.grad = None
    n_threads = batches.config.n_threads if device.type == "cpu" else 1
    total = 0.0
    for loss, gradients in iterate_in_threads(of_part, parts, n_threads=n_threads):
        total += loss
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    return total


def scored_block(network: Scorer, batch: Batch) -> UserBlock:
    """Embed a batch for the network."""
    embedded = network.item_embedding.of_batch(batch.rows, batch.side_rows, batch.side_index)
    return UserBlock(
        torch.nn.functional.embedding(batch.triggers, embedded),
        batch.is_trigger,
        network.embed_profiles(batch.profile_buckets, batch.profile_offsets),
        torch.nn.functional.embedding(batch.items, embedded),
        batch.reached_by,
        batch.cross,
        batch.statistics,
    )


@torch.no_grad()
def _first_network(samples: Samples, batches: Batches, config: PI2IConfig) -> Scorer:
    """Give the network before the first step, its features normalised over the samples."""
    network = Scorer(config, len(batches.vocabulary))
    rows = np.unique(np.concatenate([samples.triggers.values, samples.items.values]))
    network.item_embedding.draw_seen(torch.from_numpy(rows), torch.from_numpy(batches.vocabulary.side[rows]))
    network.cross.fit(torch.tensor(samples.cross))
    network.statistics.fit(torch.tensor(samples.statistics))
    return network


def _optimizers(network: Scorer, config: PI2IConfig) -> list[torch.optim.Optimizer]:
    tables = [network.item_embedding.id.weight, network.item_embedding.side.weight]
    others = [value for value in network.parameters() if all(value is not table for table in tables)]
    return [
        torch.optim.SparseAdam(tables, lr=config.learning_rate),
        torch.optim.Adam(others, lr=config.learning_rate),
    ]


def _train_epoch(
    network: Scorer,
    optimizers: list[torch.optim.Optimizer],
    batches: Batches,
    epoch: int,
    device: torch.device,
) -> list[float]:
    losses = []
    for parts in batches.epoch(epoch):
        losses.append(differentiate(network, batches, parts, device))
        for optimizer in optimizers:
            optimizer.step()
        if not np.isfinite(losses[-1]):
            raise NonFiniteLoss(
                f"PI2I: the loss is {losses[-1]} at epoch {epoch}, step {len(losses)} of {batches.n_steps}; "
                f"lower learning_rate ({batches.config.learning_rate})"
            )
    return losses


def _check_weights(network: Scorer, config: PI2IConfig) -> None:
    """Check what training ends with: a loss is computed before its step, so none tells of the last."""
    if name := not_finite(network.state_dict()):
        raise NonFiniteLoss(
            f"PI2I: {name} is not finite after the last step; lower learning_rate ({config.learning_rate})"
        )
