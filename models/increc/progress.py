"""
How does training go on after its process was killed? From the state that it kept after its last whole epoch.

The state holds everything that the next epoch depends on, so that the end is the same bytes; the order of
samples, the negatives and the random numbers of an epoch follow from the seed and the epoch's number.
"""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.increc.adagrad import AdaGrad
from models.increc.config import IncRecConfig
from models.increc.model import TrainedModel
from models.increc.network import IncRec
from models.increc.ragged import Ragged
from models.increc.samples import Samples
from models.increc.vocabulary import Vocabulary
from models.increc.weights import digest_tensors, with_prefix

log = logging.getLogger(__name__)

NETWORK, SUMS, BEST = "network.", "adagrad.", "best."


class Keeper(Protocol):
    """Where states are kept: the last one replaces the one before, whole or not at all."""

    def load(self) -> tuple[dict[str, Tensor], str] | None:
        """Give what ``save`` was last given; None where there is nothing."""

    def save(self, tensors: dict[str, Tensor], facts: str) -> None:
        """Keep tensors and facts; returns once they are safe."""


@dataclass
class Course:
    """
    How far training has come.

    ``curves``: for each term, the steps' values of each epoch. ``best_epoch`` is the one with the lowest
    held-out loss; the last one where nothing is held out.
    """

    epoch: int = 0
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    held_out_losses: list[float] = field(default_factory=list)
    best_epoch: int = 0

    def add(self, losses: dict[str, list[float]], held_out: float | None) -> None:
        """Note an epoch's losses."""
        self.epoch += 1
        for term, values in losses.items():
            self.curves.setdefault(term, []).append(values)
        if held_out is None or held_out < min(self.held_out_losses, default=np.inf):
            self.best_epoch = self.epoch
        if held_out is not None:
            self.held_out_losses.append(held_out)

    def is_over(self, config: IncRecConfig) -> bool:
        """Tell whether all epochs are done, or the held-out loss has not fallen for ``patience`` of them."""
        return self.epoch == config.epochs or self.epoch - self.best_epoch >= config.patience


@dataclass
class Run:
    """A run between two epochs: ``best`` are the tensors of the best epoch where it is not the last."""

    network: IncRec
    optimizer: AdaGrad
    course: Course = field(default_factory=Course)
    best: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Name the weights and the optimizer's sums as they are now."""
        named = {f"{NETWORK}{name}": value for name, value in self.network.state_dict().items()}
        return named | {f"{SUMS}{name}": value for name, value in self.optimizer.sums.items()}

    def note(self, losses: dict[str, list[float]], held_out: float | None, config: IncRecConfig) -> None:
        """Note an epoch; copy the best one's tensors where a later epoch may be worse."""
        self.course.add(losses, held_out)
        if held_out is None or self.course.best_epoch != self.course.epoch:
            return
        if self.course.epoch < config.epochs:
            self._copy_best()

    def take_best(self) -> None:
        """Go back to the best epoch."""
        if self.course.best_epoch != self.course.epoch:
            self._take(self.best)

    def save(self, keeper: Keeper, identity: dict[str, str]) -> None:
        """Keep the state; the best epoch's tensors only where they are not the last one's."""
        best = self.best if self.course.best_epoch != self.course.epoch else {}
        tensors = self.tensors() | {f"{BEST}{name}": value for name, value in best.items()}
        tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
        facts = {"identity": identity | self._shapes(), "course": asdict(self.course)}
        keeper.save(tensors, json.dumps(facts))

    def resume(self, keeper: Keeper, identity: dict[str, str], config: IncRecConfig) -> None:
        """Take the kept state, if there is one of the same inputs; else say what differs and start anew."""
        kept = keeper.load()
        if kept is None:
            return
        tensors, facts = kept[0], json.loads(kept[1])
        theirs, ours = facts["identity"], identity | self._shapes()
        differ = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        if differ:
            log.warning(
                "the kept training state has another %s: it is not used, training starts anew",
                ", ".join(differ),
            )
            return
        self.course = Course(**facts["course"])
        self._take(tensors)
        device = next(self.network.parameters()).device
        self.best = {name: value.to(device) for name, value in with_prefix(tensors, BEST).items()}
        if not self.best and self.course.held_out_losses:
            self._copy_best()
        log.info("training goes on after epoch %d of %d", self.course.epoch, config.epochs)

    def _shapes(self) -> dict[str, str]:
        return {name: str(tuple(value.shape)) for name, value in self.tensors().items()}

    def _copy_best(self) -> None:
        for name, value in self.tensors().items():
            self.best.setdefault(name, torch.empty_like(value)).copy_(value)

    @torch.no_grad()
    def _take(self, tensors: dict[str, Tensor]) -> None:
        for name, value in self.tensors().items():
            value.copy_(tensors[name])


def identify(
    config: IncRecConfig,
    vocabulary: Vocabulary,
    pool: np.ndarray,
    samples: dict[str, Samples],
    initial: TrainedModel | None,
    device: torch.device,
    n_ranks: int,
) -> dict[str, str]:
    """Name what a run's weights depend on: config field by field, and digests of the inputs."""
    identity = {f"config.{name}": repr(value) for name, value in config.model_dump().items()}
    identity |= {"torch": torch.__version__, "device": device.type, "processes": str(n_ranks)}
    identity["vocabulary"] = _digest(vocabulary.item_ids, vocabulary.side, pool)
    for name, part in samples.items():
        identity[name] = _digest(*chain.from_iterable(_arrays(getattr(part, f.name)) for f in fields(part)))
    if initial:
        sums = {f"{SUMS}{name}": value for name, value in initial.accumulators.items()}
        identity["model carried on from"] = digest_tensors(initial.network.state_dict() | sums)
    return identity


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _arrays(values: Ragged | np.ndarray) -> tuple[np.ndarray, ...]:
    return (values.values, values.offsets) if isinstance(values, Ragged) else (values,)
