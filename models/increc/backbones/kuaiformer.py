"""
KuaiFormer (Liu et al., 2024): query tokens read m interests off a history whose older part is compressed.

As in the paper: the newest ``n_recent`` items stay apart; the older ones are grouped, and a bidirectional
layer over each group with a mean behind it makes one token of it (adaptive item compression). m learned query
tokens stand behind the sequence; causal blocks of the Llama kind (RMS norm, SwiGLU) run over all; what the
query tokens hold are the interests, and the score is the largest over them. Different: one group size, where
the paper groups 64 and 16 of 256 items; its log-Q corrected in-batch softmax is IncRec's choice of negatives,
its label smoothing is left out. Ours: the mean of the history is added to the interests, which then go
through a ``UserHead`` with the profile: without the mean, attention must learn to average first.

Shapes: n users or items, l places, g groups of s places, m interests, d dim.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.increc.blocks import Block, IdentityItemTower, UserHead, causal_mask, last_norm
from models.increc.config import IncRecConfig
from models.increc.item_tower import INITIAL_STD, History

READS_SEQUENCE = True
ItemTower = IdentityItemTower


class SwiGLU(nn.Module):
    """The feed-forward network of Llama: (SiLU(x W) * x V) O (Shazeer, 2020)."""

    def __init__(self, config: IncRecConfig) -> None:
        """Build the three maps."""
        super().__init__()
        self.gate_value = nn.Linear(config.dim, 2 * config.hidden_dim, bias=False)
        self.out = nn.Linear(config.hidden_dim, config.dim, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """[.., d] -> [.., d]."""
        gate, value = self.gate_value(hidden).chunk(2, dim=-1)
        return self.out(functional.silu(gate) * value)


class UserTower(nn.Module):
    """Compression of the older items, then causal blocks that end in the query tokens."""

    def __init__(self, config: IncRecConfig) -> None:
        """Build the compressing layer, the query tokens, the blocks and the head."""
        super().__init__()
        self.n_recent, self.group_size = config.n_recent, config.group_size
        self.dropout = nn.Dropout(config.dropout)
        self.compressor = Block(config, nn.RMSNorm, SwiGLU(config))
        self.queries = nn.Parameter(torch.randn(config.n_interests, config.dim) * INITIAL_STD)
        self.blocks = nn.ModuleList(Block(config, nn.RMSNorm, SwiGLU(config)) for _ in range(config.n_layers))
        self.norm = last_norm(nn.RMSNorm(config.dim))
        self.head = UserHead(config)

    def forward(self, history: History, profile: Tensor) -> Tensor:
        """Histories and profiles [n, d] -> [n, m, d]."""
        tokens, is_token = self.compress(self.dropout(history.sequence), history.is_item)
        queries = self.queries.expand(len(tokens), -1, -1)
        hidden = torch.cat([tokens, queries], dim=1)
        mask = causal_mask(functional.pad(is_token, (0, len(self.queries)), value=True))
        for block in self.blocks[:-1]:
            hidden = block(hidden, mask)
        interests = self.norm(self.blocks[-1](hidden, mask, n_last=len(self.queries)))
        mean = history.mean.unsqueeze(1)
        return self.head(mean, mean + interests, profile)

    def compress(self, sequence: Tensor, is_item: Tensor) -> tuple[Tensor, Tensor]:
        """
        Make one token of each group of older items, counted from the newest of them back.

        [n, l, d], bool [n, l] -> [n, g + recent, d] with the recent items as they are, and which are there.
        """
        n_older = sequence.shape[1] - self.n_recent
        if n_older <= 0:
            return sequence, is_item
        n_groups = -(-n_older // self.group_size)
        n_missing = n_groups * self.group_size - n_older
        older = functional.pad(sequence[:, :n_older], (0, 0, n_missing, 0))
        is_older = functional.pad(is_item[:, :n_older], (n_missing, 0))
        groups = older.reshape(-1, self.group_size, older.shape[-1])
        is_member = is_older.reshape(-1, self.group_size)
        mask = is_member.unsqueeze(1) | torch.eye(self.group_size, dtype=torch.bool, device=groups.device)
        mixed = self.compressor(groups, mask) * is_member.unsqueeze(-1)
        means = mixed.sum(dim=1) / is_member.sum(dim=1, keepdim=True).clamp(min=1)
        tokens = torch.cat([means.view(len(sequence), n_groups, -1), sequence[:, n_older:]], dim=1)
        is_group = is_member.any(dim=1).view(len(sequence), n_groups)
        return tokens, torch.cat([is_group, is_item[:, n_older:]], dim=1)
