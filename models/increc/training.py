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
import torch
from torch import Tensor

from models.increc.batches import Batches
from models.increc.config import STRUCTURE, IncRecConfig
from models.increc.losses import total_loss
from models.increc.model import TrainedModel
from models.increc.network import IncRec
from models.increc.objective import loss_terms, most_similar_of_day
from models.increc.reproducible import repeatable
from models.increc.samples import Samples, read_samples
from models.increc.vocabulary import Vocabulary, build_vocabulary

log = logging.getLogger(__name__)

BLOCK = 65_536


class CannotCarryOn(ValueError):
    """The model to carry on from does not fit the config, or was not asked for."""


class NoSuchDevice(ValueError):
    """The device is unknown, or not there."""


class NonFiniteLoss(ValueError):
    """A loss became infinite or not a number."""


@dataclass(frozen=True)
class TrainingReport:
    """
    What a training run did.

    ``epoch_losses`` and ``step_losses``: for each term (basic, incremental, alignment, total) its value per
    sample, the mean of an epoch or of one step. ``n_unknown_items``: target and exposed items that the item
    table lacks, left out. ``seconds`` is the only figure that differs between equal runs.
    """

    started_from: str
    device: str
    n_samples: int
    n_dropped_samples: int
    n_rtg: int
    n_itg: int
    n_etg: int
    n_unknown_items: int
    n_items: int
    n_new_items: int
    n_steps: int
    epoch_losses: dict[str, list[float]]
    step_losses: dict[str, list[float]]
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
        on_epoch: called after each epoch with its 1-based number and mean losses.

    Raises:
        NoSamples: nothing to learn from.
        CannotCarryOn: ``initial`` does not fit the config.
        VocabularyChanged: ``items`` contradicts the rows of ``initial``.
        MissingColumn: a table lacks a column.
        NoSuchDevice: ``device`` is unknown or not there.
        NonFiniteLoss: training diverged.
    """
    started = perf_counter()
    _check_start(config, initial)
    where = _device(device)
    vocabulary = build_vocabulary(items, config, before=initial.vocabulary if initial else None)
    read, n_unknown = read_samples(samples, users, vocabulary, config)
    batches = Batches(read, vocabulary, vocabulary.rows(items["item_id"].to_numpy()), config)
    curves: dict[str, list[list[float]]] = {}
    with repeatable(config.seed, config.n_threads, where):
        network = _first_network(vocabulary, read, config, initial).to(where)
        optimizer = _first_optimizer(network, config, initial)
        for epoch in range(1, config.epochs + 1):
            losses = _train_epoch(network, optimizer, batches, epoch, where)
            for term, values in losses.items():
                curves.setdefault(term, []).append(values)
            means = {term: float(np.mean(values)) for term, values in losses.items()}
            log.info("%s epoch %d/%d: %s", config.variant, epoch, config.epochs, means)
            if on_epoch:
                on_epoch(epoch, means)
    sums = {name: optimizer.state[parameter]["sum"].cpu() for name, parameter in network.named_parameters()}
    n_items = len(vocabulary.known_item_ids)
    report = TrainingReport(
        started_from="carry_on" if initial else "scratch",
        device=where.type,
        n_samples=len(read),
        n_dropped_samples=len(samples) - len(read),
        n_rtg=len(read.rtg.values),
        n_itg=len(read.itg.values),
        n_etg=len(read.etg.values),
        n_unknown_items=n_unknown,
        n_items=n_items,
        n_new_items=n_items - (len(initial.known_item_ids) if initial else 0),
        n_steps=batches.n_steps * config.epochs,
        epoch_losses={term: [float(np.mean(values)) for values in epochs] for term, epochs in curves.items()},
        step_losses={term: list(chain.from_iterable(epochs)) for term, epochs in curves.items()},
        seconds=perf_counter() - started,
    )
    return TrainedModel(config, vocabulary, network.cpu().eval(), sums), report


def _check_start(config: IncRecConfig, initial: TrainedModel | None) -> None:
    if initial is None:
        return
    if config.start != "carry_on":
        raise CannotCarryOn(f"start is {config.start!r} but a model to carry on from was given; set start")
    changed = [name for name in STRUCTURE if getattr(config, name) != getattr(initial.config, name)]
    if changed:
        pairs = [f"{name} {getattr(initial.config, name)} -> {getattr(config, name)}" for name in changed]
        raise CannotCarryOn(f"the model to carry on from has another {'; '.join(pairs)}; train from scratch")
    if initial.accumulators is None:
        raise CannotCarryOn("the model to carry on from is one for serving, without AdaGrad's state")


def _device(name: str) -> torch.device:
    if name not in ("auto", "cpu", "cuda"):
        raise NoSuchDevice(f"unknown device {name!r}; known: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise NoSuchDevice("device cuda was asked for, but torch finds none here; use auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _first_network(
    vocabulary: Vocabulary, samples: Samples, config: IncRecConfig, initial: TrainedModel | None
) -> IncRec:
    """
    Give the network before the first step, from the seed or from yesterday's weights.

    A row that nothing trained yet is zero: from scratch that of an item that no sample has, carried on that
    of a new item, which so starts from its side features.
    """
    network = IncRec(config, len(vocabulary))
    if initial is None:
        parts = (samples.history, samples.rtg, samples.itg, samples.etg)
        rows = np.unique(np.concatenate([part.values for part in parts]))
        network.item_embedding.forget_unseen(torch.from_numpy(rows), torch.from_numpy(vocabulary.side[rows]))
        return network
    before = initial.network.state_dict()
    for name, value in network.state_dict().items():
        value.zero_()[: len(before[name])].copy_(before[name])
    return network


def _first_optimizer(
    network: IncRec, config: IncRecConfig, initial: TrainedModel | None
) -> torch.optim.Adagrad:
    """Give AdaGrad with empty sums of squared gradients, or yesterday's where there are some."""
    optimizer = torch.optim.Adagrad(network.parameters(), lr=config.learning_rate)
    if initial:
        for name, parameter in network.named_parameters():
            before = initial.accumulators[name]
            optimizer.state[parameter]["sum"][: len(before)].copy_(before)
    return optimizer


def _train_epoch(
    network: IncRec, optimizer: torch.optim.Adagrad, batches: Batches, epoch: int, device: torch.device
) -> dict[str, list[float]]:
    """
    Take every step of an epoch; give each term's value at each step.

    Raises:
        NonFiniteLoss: a term is not finite.
    """
    config = batches.config
    network.train()
    torch.manual_seed(np.random.SeedSequence([config.seed, epoch]).generate_state(1)[0].item())  # dropout
    similar = None
    if config.alpha_mode == "implicit" and config.etg_pool == "day":
        similar = most_similar_of_day(_all_items(network, batches.vocabulary, device), batches.samples)
    losses: dict[str, list[Tensor]] = {}
    for batch in batches.epoch(epoch, similar):
        terms = loss_terms(network, batch.to(device), config)
        terms["total"] = total_loss(terms)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        for term, value in terms.items():
            losses.setdefault(term, []).append(value.detach())
    values = {term: torch.stack(steps).tolist() for term, steps in losses.items()}
    for term, steps in values.items():
        is_finite = np.isfinite(steps)
        if not is_finite.all():
            at = int(is_finite.argmin())
            raise NonFiniteLoss(
                f"{config.variant}: loss {term} is {steps[at]} at epoch {epoch}, step {at + 1} of "
                f"{batches.n_steps}; lower learning_rate ({config.learning_rate}) or raise temperature "
                f"({config.temperature})"
            )
    return values


@torch.no_grad()
def _all_items(network: IncRec, vocabulary: Vocabulary, device: torch.device) -> Tensor:
    """Represent every row of the vocabulary: [r, d]."""
    blocks = []
    for start in range(0, len(vocabulary), BLOCK):
        rows = torch.arange(start, min(start + BLOCK, len(vocabulary)), device=device)
        side = torch.from_numpy(vocabulary.side[start : start + BLOCK]).to(device)
        blocks.append(network.represent_items(network.item_embedding(rows, side)))
    return torch.cat(blocks)
