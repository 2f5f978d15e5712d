"""
SASRec (Kang & McAuley, ICDM 2018): causal self-attention over the history, read at its newest item.

As in the paper: learned positions, dropout, blocks of attention and a point-wise ReLU network of width d, a
norm before each and a last one behind all (its code norms the queries alone; we norm keys and values, too).
Time gap and scenario are added to the positions. One loss at the request replaces the paper's loss at every
place, so the last block computes the last place alone. Ours: the mean of the history is added to the result,
which then goes through a ``UserHead`` with the profile: without the mean, attention must learn to average
first.

Shapes: n users or items, l places, d dim.
"""

from torch import Tensor, nn

from models.increc.blocks import Block, IdentityItemTower, UserHead, causal_mask, last_norm
from models.increc.config import IncRecConfig
from models.increc.item_tower import History

READS_SEQUENCE = True
ItemTower = IdentityItemTower


class UserTower(nn.Module):
    """Blocks of causal self-attention."""

    def __init__(self, config: IncRecConfig) -> None:
        """Build the blocks, the last norm and the head."""
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config, nn.LayerNorm, _point_wise(config)) for _ in range(config.n_layers)
        )
        self.norm = last_norm(nn.LayerNorm(config.dim))
        self.head = UserHead(config)

    def forward(self, history: History, profile: Tensor) -> Tensor:
        """Histories and profiles [n, d] -> [n, 1, d]."""
        newest = self.encode(history.sequence, history.is_item, n_last=1)
        mean = history.mean.unsqueeze(1)
        return self.head(mean, mean + newest, profile)

    def encode(self, sequence: Tensor, is_item: Tensor, n_last: int | None = None) -> Tensor:
        """Give the last ``n_last`` places (default all), each from the items up to it: [n, l, d] -> same."""
        hidden, mask = self.dropout(sequence), causal_mask(is_item)
        for block in self.blocks[:-1]:
            hidden = block(hidden, mask)
        return self.norm(self.blocks[-1](hidden, mask, n_last))


def _point_wise(config: IncRecConfig) -> nn.Module:
    return nn.Sequential(
        nn.Linear(config.dim, config.dim),
        nn.ReLU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.dim, config.dim),
    )
