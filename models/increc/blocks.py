"""
Of which parts are the backbones made? Masked attention, its block, the way to user vectors, a plain tower.

Shapes: n users, l places of the padded history, q of them asked for, h heads, m interests, d dim.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.increc.config import IncRecConfig
from models.increc.item_tower import INITIAL_STD


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al., NeurIPS 2017): softmax(QK^T / sqrt(d / h)) V."""

    def __init__(self, config: IncRecConfig) -> None:
        """Build the projections."""
        super().__init__()
        self.n_heads, self.dropout = config.n_heads, config.dropout
        self.query = nn.Linear(config.dim, config.dim, bias=False)
        self.key_value = nn.Linear(config.dim, 2 * config.dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, asking: Tensor, asked: Tensor, mask: Tensor) -> Tensor:
        """Look from [n, q, d] at [n, l, d] where the mask, bool [n, q, l], is true -> [n, q, d]."""
        key, value = self._heads(self.key_value(asked)).chunk(2, dim=-1)
        found = functional.scaled_dot_product_attention(
            self._heads(self.query(asking)),
            key,
            value,
            attn_mask=mask.unsqueeze(1),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(found.transpose(1, 2).flatten(2))

    def _heads(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention and a feed-forward network, each behind a norm and added to its input."""

    def __init__(
        self, config: IncRecConfig, norm: Callable[[int], nn.Module], feed_forward: nn.Module
    ) -> None:
        """Take the norm's class, built here for the width, and the network [.., d] -> [.., d]."""
        super().__init__()
        self.attention, self.feed_forward = Attention(config), feed_forward
        self.attention_norm, self.feed_forward_norm = norm(config.dim), norm(config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, sequence: Tensor, mask: Tensor, n_last: int | None = None) -> Tensor:
        """
        [n, l, d] and bool [n, l, l] -> [n, q, d]: the last q = ``n_last`` places, all without it.

        Places that nobody asks for are only looked at, which costs a last block next to nothing.
        """
        last = slice(-(n_last or sequence.shape[1]), None)
        normed = self.attention_norm(sequence)
        found = self.attention(normed[:, last], normed, mask[:, last])
        attended = sequence[:, last] + self.dropout(found)
        return attended + self.dropout(self.feed_forward(self.feed_forward_norm(attended)))


def causal_mask(is_item: Tensor) -> Tensor:
    """
    Let each place look at the items up to itself: bool [n, l] -> bool [n, l, l].

    A place always sees itself, padding too: an empty softmax would be no number.
    """
    past = torch.ones(is_item.shape[1], is_item.shape[1], dtype=torch.bool, device=is_item.device).tril()
    return (past & is_item.unsqueeze(1)) | torch.eye(len(past), dtype=torch.bool, device=is_item.device)


def last_norm(norm: nn.LayerNorm | nn.RMSNorm) -> nn.Module:
    """
    Let the norm behind the blocks start at the scale of the item embeddings.

    Ours: at scale 1 what the blocks give outweighs the mean of the history many times, and they must learn
    what a user's items are before anything else can.
    """
    nn.init.constant_(norm.weight, INITIAL_STD)
    return norm


class IdentityItemTower(nn.Module):
    """The item's input embedding as it is: id plus side features, which histories are made of, too."""

    def __init__(self, config: IncRecConfig) -> None:
        """Take no parameters of its own."""
        super().__init__()

    def forward(self, embedded: Tensor) -> Tensor:
        """[n, d] -> [n, d]."""
        return embedded


class UserHead(nn.Module):
    """
    From what a backbone found to user vectors: start + MLP(found, profile).

    This is ours, and the same in all sequence backbones: none of their papers adds a profile like this, and
    starting near the items of the history spares a thin log from teaching the MLP the identity.
    """

    def __init__(self, config: IncRecConfig) -> None:
        """Build the two layers."""
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * config.dim, config.hidden_dim),
            nn.ReLU(),
            nn.Linear(config.hidden_dim, config.dim),
        )

    def forward(self, start: Tensor, found: Tensor, profile: Tensor) -> Tensor:
        """[n, 1 or m, d], [n, m, d] and [n, d] -> [n, m, d]."""
        first, relu, last = self.mlp
        of_found, of_profile = first.weight.split(found.shape[-1], dim=1)
        # The first layer of the two side by side is the sum of two layers: a profile is multiplied once.
        hidden = functional.linear(found, of_found, first.bias)
        hidden = hidden + functional.linear(profile, of_profile).unsqueeze(1)
        return start + last(relu(hidden))
