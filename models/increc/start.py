"""Where does training start? The first network and the optimizer's first state, on the device asked for."""

import numpy as np
import torch

from models.increc.adagrad import AdaGrad
from models.increc.config import STRUCTURE, IncRecConfig
from models.increc.model import TrainedModel
from models.increc.network import IncRec
from models.increc.samples import Samples
from models.increc.vocabulary import Vocabulary

TABLES = frozenset({"item_embedding.id.weight", "item_embedding.side.weight", "profile_embedding.weight"})


class CannotCarryOn(ValueError):
    """The model to carry on from does not fit the config, or was not asked for."""


class NoSuchDevice(ValueError):
    """The device is unknown, or not there."""


def check_start(config: IncRecConfig, initial: TrainedModel | None) -> None:
    """
    Check that the model to carry on from, if any, fits the config.

    Raises:
        CannotCarryOn: it does not; names each field that differs.
    """
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


def find_device(name: str) -> torch.device:
    """
    Give the device "cpu" or "cuda"; "auto" is cuda where there is one.

    Raises:
        NoSuchDevice: it is unknown or not there.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise NoSuchDevice(f"unknown device {name!r}; known: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise NoSuchDevice("device cuda was asked for, but torch finds none here; use auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@torch.no_grad()
def first_network(
    vocabulary: Vocabulary, samples: Samples, config: IncRecConfig, initial: TrainedModel | None
) -> IncRec:
    """
    Give the network before the first step, from torch's seed or from yesterday's weights.

    A row that nothing trained yet is zero: from scratch that of an item that no sample has, carried on that
    of a new item, which so starts from its side features.
    """
    network = IncRec(config, len(vocabulary))
    if initial is None:
        parts = (samples.history, samples.rtg, samples.itg, samples.etg)
        rows = np.unique(np.concatenate([part.values for part in parts]))
        network.item_embedding.draw_seen(torch.from_numpy(rows), torch.from_numpy(vocabulary.side[rows]))
        return network
    before = initial.network.state_dict()
    for name, value in network.state_dict().items():
        value[: len(before[name])].copy_(before[name])
    return network


def first_optimizer(network: IncRec, config: IncRecConfig, initial: TrainedModel | None) -> AdaGrad:
    """Give AdaGrad with empty sums of squared gradients, or yesterday's where there are some."""
    row_wise = TABLES if config.optimizer_state == "row_wise" else frozenset()
    optimizer = AdaGrad(network.named_parameters(), config.learning_rate, row_wise)
    if initial:
        for name, total in optimizer.sums.items():
            before = initial.accumulators[name]
            total[: len(before)].copy_(before)
    return optimizer
