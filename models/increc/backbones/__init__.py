"""
Which backbones are there? One file each; a file's name is the backbone's name.

A backbone file has ``READS_SEQUENCE`` and two ``torch.nn.Module`` classes:

- ``READS_SEQUENCE``: whether it looks at the order, time gap and scenario of the history's items; if not,
  these are neither read nor embedded;
- ``ItemTower(config)``: item input embeddings [n, d] -> item representations [n, d];
- ``UserTower(config)``: (``history``, ``profile`` [n, d]) -> user representations [n, m, d] with m interests,
  where ``history`` is a ``models.increc.item_tower.History``: its ``mean`` [n, d], or its padded sequences
  [n, l, d]. An empty history arrives as one learned "no item", so none is empty.

Representations need no normalisation: the network does it. A user's score for an item is the largest
over the m interests; one interest is m = 1. This file loads no torch.
"""

import pkgutil
from importlib import import_module
from types import ModuleType

# Backbones that cut dim into heads: what a config must fit before torch is loaded.
WITH_HEADS = ("kuaiformer", "sasrec")


def names() -> tuple[str, ...]:
    """List the known backbones in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> ModuleType:
    """Import the backbone ``name``, one of ``names()``."""
    return import_module(f"{__name__}.{name}")
