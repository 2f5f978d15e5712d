"""
DSSM (Huang et al., CIKM 2013): an MLP on either side.

Each MLP's output is added to its main input, which is ours: a user starts near the items of the history, so
that a thin log need not first teach both MLPs the identity.

Shapes: n users or items, d dim.
"""

import torch
from torch import Tensor, nn

from models.increc.config import IncRecConfig
from models.increc.item_tower import History

READS_SEQUENCE = False


def _mlp(n_in: int, config: IncRecConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, config.hidden_dim), nn.ReLU(), nn.Linear(config.hidden_dim, config.dim)
    )


class ItemTower(nn.Module):
    """An MLP over the item's input embedding."""

    def __init__(self, config: IncRecConfig) -> None:
        """Build the two layers."""
        super().__init__()
        self.mlp = _mlp(config.dim, config)

    def forward(self, embedded: Tensor) -> Tensor:
        """[n, d] -> [n, d]."""
        return embedded + self.mlp(embedded)


class UserTower(nn.Module):
    """An MLP over the mean of the history and the profile."""

    def __init__(self, config: IncRecConfig) -> None:
        """Build the two layers."""
        super().__init__()
        self.mlp = _mlp(2 * config.dim, config)

    def forward(self, history: History, profile: Tensor) -> Tensor:
        """[n, l] items and [n, d] profiles -> [n, 1, d]."""
        users = history.mean + self.mlp(torch.cat([history.mean, profile], dim=1))
        return users.unsqueeze(1)
