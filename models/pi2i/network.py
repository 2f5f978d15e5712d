"""
What is PI2I's scorer? Eq. 8-11: multi-value triggers, target attention, cross features, profile.

Shapes: b users, c candidates each, l triggers each (newest first), d dim, h heads. Eq. 9 divides by
sqrt(d_K) after the softmax; this is the standard softmax(Q K^T / sqrt(d_K)) V. Three additions are ours,
since thin logs need them: the triggers' places (0 the newest) have an embedding of their own; E_target
holds statistics of the target beside its embedding (how many triggers reach it, how much it was clicked and
shown lately); and the MLP of Eq. 11, which learns products badly, is helped by the inner product of the
target's embedding with a linear map of attention, profile and E_trigger.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.increc.item_tower import INITIAL_STD, ItemEmbedding
from models.pi2i.candidates import N_CROSS
from models.pi2i.config import MOST_TRIGGERS, PI2IConfig
from models.pi2i.trigger_index import N_STATISTICS

LEAST_DEVIATION = 1e-6
N_MASKS = 512


@dataclass(frozen=True)
class UserBlock:
    """
    What is known of b users and their candidates.

    ``triggers`` [b, l, d] input embeddings, ``is_trigger`` bool [b, l]; ``profile`` [b, d]; ``targets``
    [b, c, d]; ``reached_by`` float [b, c, l]: rows of the trigger masks, each divided by its number of
    triggers; ``cross`` [b, c, N_CROSS]; ``statistics`` [b, c, N_STATISTICS].
    """

    triggers: Tensor
    is_trigger: Tensor
    profile: Tensor
    targets: Tensor
    reached_by: Tensor
    cross: Tensor
    statistics: Tensor


class Normalised(nn.Module):
    """Features by their mean and deviation in the samples; one that never varies becomes 0."""

    def __init__(self, n: int) -> None:
        """Change nothing until it is fitted."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("scale", torch.ones(n))

    @torch.no_grad()
    def fit(self, values: Tensor) -> None:
        """Take mean and deviation of ``values`` [n, features]."""
        deviation = values.std(dim=0, correction=0)
        self.mean.copy_(values.mean(dim=0))
        self.scale.copy_(torch.where(deviation > LEAST_DEVIATION, 1 / deviation, 0.0))

    def forward(self, values: Tensor) -> Tensor:
        """[..., features] -> [..., features]."""
        return (values - self.mean) * self.scale


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
        self.cross = Normalised(N_CROSS)
        self.statistics = Normalised(N_STATISTICS)
        pair = 2 * d + N_STATISTICS + N_CROSS
        self.query = nn.Sequential(nn.Linear(pair, width), nn.ReLU(), nn.Linear(width, d))
        self.key, self.value = nn.Linear(d, d), nn.Linear(d, d)
        self.own_query = nn.Linear(d, d) if config.attention == "self" else None
        # Scorers that were kept before have these names.
        self.logit = nn.Sequential(
            OrderedDict({"1": nn.Linear(2 * d + pair, width), "2": nn.ReLU(), "4": nn.Linear(width, 1)})
        )
        self.inner = nn.Sequential(OrderedDict({"1": nn.Linear(3 * d, d)}))

    def forward(self, block: UserBlock, generator: torch.Generator | None = None) -> Tensor:
        """Give the logits [b, c]; a training step names the ``generator`` that draws what it drops."""
        triggers = block.reached_by @ block.triggers
        if self.config.triggers == "none":
            triggers = torch.zeros_like(triggers)
        parts = [triggers, block.targets, self.statistics(block.statistics), self.cross(block.cross)]
        pair = torch.cat(parts, dim=-1)
        attended = self._attend(pair, block)
        profile = block.profile.unsqueeze(1).expand(-1, pair.shape[1], -1)
        drop = partial(drop_inputs, share=self.config.dropout, generator=generator)
        inputs = drop(torch.cat([attended, profile, pair], dim=-1).flatten(0, 1))
        logits = self.logit[2](drop(self.logit[:2](inputs))).squeeze(-1)
        inner = self.inner(inputs[:, : 3 * self.config.dim]) * block.targets.flatten(0, 1)
        return (logits + inner.sum(dim=-1)).view(pair.shape[:2])

    def embed_profiles(self, buckets: Tensor, offsets: Tensor) -> Tensor:
        """Average each user's profile features: int64 [v] cut at int64 [b + 1] -> [b, d]."""
        return functional.embedding_bag(buckets, self.profile_embedding.weight, offsets[:-1], mode="mean")

    def _attend(self, pair: Tensor, block: UserBlock) -> Tensor:
        """Eq. 8-10: [b, c, 2 d + N_STATISTICS + N_CROSS] -> [b, c, d]."""
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


def drop_inputs(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    """
    Dropout of each candidate's inputs by one of ``N_MASKS`` masks, drawn anew: [v, n] -> [v, n].

    A mask of its own for each would take a third of a training step. The inner product drops what the MLP
    drops.
    """
    if generator is None or share == 0:
        return x
    is_kept = torch.bernoulli(x.new_full((N_MASKS, x.shape[-1]), 1 - share), generator=generator)
    drawn = torch.randint(N_MASKS, x.shape[:1], generator=generator, device=x.device)
    return x * functional.embedding(drawn, is_kept / (1 - share))


def sampled_loss(logits: Tensor, log_q: Tensor, is_candidate: Tensor) -> Tensor:
    """
    Give the mean of Eq. 12 over the samples; column 0 is the positive.

    The logits are corrected by - log q (0 where switched off), because Algorithm 1 draws popular targets far
    more often. [b, c], [b, c], bool [b, c] -> [].
    """
    corrected = (logits - log_q).masked_fill(~is_candidate, float("-inf"))
    return -corrected.log_softmax(dim=1)[:, 0].mean()
