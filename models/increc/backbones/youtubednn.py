"""
YouTubeDNN (Covington et al., RecSys 2016): mean of the history beside the profile, through an MLP.

The MLP's output is added to the mean, which is ours: a user starts near the items of the history, so that
a thin log need not first teach the MLP the identity.

Shapes: n users or items, d dim.
"""

import torch
from torch import Tensor, nn

from models.increc.blocks import IdentityItemTower
from models.increc.config import IncRecConfig
from models.increc.item_tower import History

READS_SEQUENCE = False
ItemTower = IdentityItemTower


class UserTower(nn.Module):
    """An MLP over the mean of the history and the profile, added to that mean."""

    def __init__(self, config: IncRecConfig) -> None:
        """Build the two layers."""
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * config.dim, config.hidden_dim),
            nn.ReLU(),
            nn.Linear(config.hidden_dim, config.dim),
        )

    def forward(self, history: History, profile: Tensor) -> Tensor:
        """[n, l] items and [n, d] profiles -> [n, 1, d]."""
        users = history.mean + self.mlp(torch.cat([history.mean, profile], dim=1))
        return users.unsqueeze(1)
