"""
What is PI2I's scorer? Eq. 8-11: multi-value triggers, target attention, cross features, profile.

Shapes: b users, c candidates each, l triggers each (newest first), d dim, h heads. Eq. 9 divides by sqrt(d_K)
after the softmax; this is the standard softmax(Q K^T / sqrt(d_K)) V. The triggers' places (0 the newest) have
an embedding of their own, which is ours: recency is most of what a trigger tells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.increc.item_tower import INITIAL_STD, ItemEmbedding
from models.pi2i.candidates import N_CROSS
from models.pi2i.config import MOST_TRIGGERS, PI2IConfig


@dataclass(frozen=True)
class UserBlock:
    """
    What is known of b users and their candidates.

    ``triggers`` [b, l, d] input embeddings, ``is_trigger`` bool [b, l]; ``profile`` [b, d]; ``targets``
    [b, c, d]; ``reached_by`` float [b, c, l]: rows of the trigger masks, each divided by its number of
    triggers; ``cross`` [b, c, N_CROSS].
    """

    triggers: Tensor
    is_trigger: Tensor
    profile: Tensor
    targets: Tensor
    reached_by: Tensor
    cross: Tensor


class Scorer(nn.Module):
    """Scores each of a user's candidates."""

    def __init__(self, config: PI2IConfig, n_rows: int) -> None:
        """Build it over ``n_rows`` rows of item ids."""
        super().__init__()
        self.config = config
        d, width = config.dim, config.hidden_dim
        self.item_embedding = ItemEmbedding(config, n_rows)
        self.profile_embedding = nn.Embedding(config.n_profile_buckets + 1, d)
        nn.init.normal_(self.profile_embedding.weight, std=INITIAL_STD)
        self.place = nn.Embedding(MOST_TRIGGERS, d)
        nn.init.normal_(self.place.weight, std=INITIAL_STD)
        self.register_buffer("cross_mean", torch.zeros(N_CROSS))
        self.register_buffer("cross_scale", torch.ones(N_CROSS))
        pair = 2 * d + N_CROSS
        self.query = nn.Sequential(nn.Linear(pair, width), nn.ReLU(), nn.Linear(width, d))
        self.key, self.value = nn.Linear(d, d), nn.Linear(d, d)
        self.own_query = nn.Linear(d, d) if config.attention == "self" else None
        self.logit = nn.Sequential(nn.Linear(2 * d + pair, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, block: UserBlock) -> Tensor:
        """Give the logits [b, c]."""
        cross = (block.cross - self.cross_mean) * self.cross_scale
        triggers = block.reached_by @ block.triggers
        if self.config.triggers == "none":
            triggers = torch.zeros_like(triggers)
        pair = torch.cat([triggers, block.targets, cross], dim=-1)
        attended = self._attend(pair, block)
        profile = block.profile.unsqueeze(1).expand(-1, pair.shape[1], -1)
        return self.logit(torch.cat([attended, profile, pair], dim=-1)).squeeze(-1)

    def embed_profiles(self, buckets: Tensor, offsets: Tensor) -> Tensor:
        """Average each user's profile features: int64 [v] cut at int64 [b + 1] -> [b, d]."""
        return functional.embedding_bag(buckets, self.profile_embedding.weight, offsets[:-1], mode="mean")

    def _attend(self, pair: Tensor, block: UserBlock) -> Tensor:
        """Eq. 8-10: [b, c, 2 d + N_CROSS] -> [b, c, d]."""
        sequence = block.triggers + self.place.weight[: block.triggers.shape[1]]
        query = self.query(pair) if self.own_query is None else self.own_query(sequence)
        heads = [self._split(x) for x in (query, self.key(sequence), self.value(sequence))]
        mask = block.is_trigger[:, None, None, :]
        attended = functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        attended = attended.transpose(1, 2).flatten(2)
        if self.own_query is None:
            return attended
        weight = block.is_trigger.unsqueeze(-1) / block.is_trigger.sum(1).clamp(min=1)[:, None, None]
        return (attended * weight).sum(1, keepdim=True).expand(-1, pair.shape[1], -1)

    def _split(self, x: Tensor) -> Tensor:
        """[b, n, d] -> [b, h, n, d / h]."""
        return x.unflatten(-1, (self.config.n_heads, -1)).transpose(1, 2)


def sampled_loss(logits: Tensor, log_q: Tensor, is_candidate: Tensor) -> Tensor:
    """
    Give the mean of Eq. 12 over the samples; column 0 is the positive.

    The logits are corrected by - log q (0 where switched off), because Algorithm 1 draws popular targets far
    more often. [b, c], [b, c], bool [b, c] -> [].
    """
    corrected = (logits - log_q).masked_fill(~is_candidate, float("-inf"))
    return -corrected.log_softmax(dim=1)[:, 0].mean()
