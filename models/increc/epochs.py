"""What happens in an epoch? A step per batch, or the held-out samples' loss without one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from models.increc.adagrad import AdaGrad
from models.increc.batches import Batch, Batches
from models.increc.config import IncRecConfig
from models.increc.losses import total_loss
from models.increc.network import IncRec
from models.increc.objective import loss_terms, most_similar_of_day
from models.increc.vocabulary import Vocabulary
from models.increc.weights import not_finite

BLOCK = 65_536
STEPS_BETWEEN_CHECKS = 64
NAMED_SAMPLES = 5
HELD_OUT = 0


class NonFiniteLoss(ValueError):
    """A loss became infinite or not a number."""


def train_epoch(
    network: IncRec, optimizer: AdaGrad, batches: Batches, epoch: int, device: torch.device
) -> dict[str, list[float]]:
    """
    Take every step of an epoch (from 1); give each term's value at each step.

    Raises:
        NonFiniteLoss: a term is not finite; names the step and its samples.
    """
    config, ranks = batches.config, batches.ranks
    torch.manual_seed(int(np.random.SeedSequence([config.seed, epoch, ranks.rank]).generate_state(1)[0]))
    network.train()
    terms: list[Tensor] = []
    values: list[list[float]] = []
    for step, batch in enumerate(_batches(network, batches, epoch, device), 1):
        with autocast(config, device):
            losses = loss_terms(network, batch, config, ranks)
        losses["total"] = total_loss(losses)
        optimizer.zero_grad()
        losses["total"].backward()
        ranks.sum_gradients(network.parameters())
        optimizer.step()
        terms.append(torch.stack([loss.detach() for loss in losses.values()]))
        if len(terms) == STEPS_BETWEEN_CHECKS or step == batches.n_steps:
            values += ranks.sum(torch.stack(terms)).tolist()
            terms = []
            _check_finite(list(losses), values, batches, epoch)
    return dict(zip(losses, map(list, zip(*values, strict=True)), strict=True))


@torch.no_grad()
def held_out_loss(network: IncRec, batches: Batches, device: torch.device) -> float:
    """
    Give the serving tower's loss per held-out sample, against the same negatives every time.

    Raises:
        NonFiniteLoss: it is not finite.
    """
    config = batches.config
    network.eval()
    parts = []
    for batch in _batches(network, batches, HELD_OUT, device):
        with autocast(config, device):
            losses = loss_terms(network, batch, config, batches.ranks)
        parts.append(losses[config.serving_tower] * (batch.n_total / len(batches.samples)))
    loss = batches.ranks.sum(torch.stack(parts).sum()).item()
    if not np.isfinite(loss):
        raise NonFiniteLoss(f"{config.variant}: the held-out loss is {loss}; {_remedy(config)}")
    return loss


def check_weights(tensors: dict[str, Tensor], config: IncRecConfig) -> None:
    """
    Check the weights and sums of squared gradients that training ends with.

    Raises:
        NonFiniteLoss: one is not finite: a loss is computed before its step, so none tells of the last.
    """
    if name := not_finite(tensors):
        raise NonFiniteLoss(f"{config.variant}: {name} is not finite after the last step; {_remedy(config)}")


def autocast(config: IncRecConfig, device: torch.device) -> AbstractContextManager:
    """Compute what runs inside in the config's precision."""
    if config.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def represent(network: IncRec, vocabulary: Vocabulary, rows: np.ndarray, device: torch.device) -> Tensor:
    """Represent items by their rows: int64 [n] -> [n, d]."""
    blocks = []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        ids, side = (torch.from_numpy(part).to(device) for part in (block, vocabulary.side[block]))
        blocks.append(network.represent_items(network.item_embedding(ids, side)))
    return torch.cat(blocks)


def _batches(network: IncRec, batches: Batches, epoch: int, device: torch.device) -> Iterator[Batch]:
    similar = None
    if batches.config.alpha_mode == "implicit" and batches.config.etg_pool == "day":
        similar = most_similar_of_day(
            lambda rows: represent(network, batches.vocabulary, rows, device), batches.samples
        )
    for batch in batches.epoch(epoch, similar):
        yield batch.to(device)


def _check_finite(terms: list[str], values: list[list[float]], batches: Batches, epoch: int) -> None:
    is_finite = np.isfinite(values)
    if is_finite.all():
        return
    step = int(is_finite.all(axis=1).argmin())
    term = int(is_finite[step].argmin())
    numbers = batches.samples.number[batches.chosen(epoch, step)]
    named = ", ".join(map(str, numbers[:NAMED_SAMPLES])) + (", ..." if len(numbers) > NAMED_SAMPLES else "")
    raise NonFiniteLoss(
        f"{batches.config.variant}: loss {terms[term]} is {values[step][term]} at epoch {epoch}, step "
        f"{step + 1} of {batches.n_steps}, a batch of {len(numbers)} requests: {named}; "
        f"{_remedy(batches.config)}"
    )


def _remedy(config: IncRecConfig) -> str:
    return f"lower learning_rate ({config.learning_rate}) or raise temperature ({config.temperature})"
