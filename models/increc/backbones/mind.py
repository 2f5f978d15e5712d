"""
MIND (Li et al., CIKM 2019): m interests as capsules that dynamic routing (B2I) finds in the history.

As in the paper: one bilinear map S for all pairs, routing logits that start from a fixed Gaussian draw, a
softmax over the interests, squash, and ``max(1, min(m, log2 of the history's length))`` interests a user.
Different: label-aware attention weighs the interests by the power p of their score for the target; IncRec's
score is the largest over the interests, that attention at p = infinity, which serving uses in the paper, too.
Routing itself passes no gradient but in its last round (as in the code of ComiRec, which compares with it).
The draw has one row per place from the end, so that it is a part of the model, not of a run. A user with
fewer interests repeats the first, which changes no largest score. Ours: S starts from the identity, position,
time gap and scenario are added to the items, and each capsule is added to its ReLU network (``UserHead``).

Shapes: n users or items, l places, m interests, d dim.
"""

import torch
from torch import Tensor, nn

from models.increc.blocks import IdentityItemTower, UserHead
from models.increc.config import IncRecConfig
from models.increc.item_tower import History
from models.increc.segments import weigh_rows

READS_SEQUENCE = True
ItemTower = IdentityItemTower


class UserTower(nn.Module):
    """Behaviour-to-interest dynamic routing."""

    def __init__(self, config: IncRecConfig) -> None:
        """Build S and the head; draw the first logits."""
        super().__init__()
        self.n_rounds = config.n_routing_rounds
        self.bilinear = nn.Linear(config.dim, config.dim, bias=False)
        nn.init.eye_(self.bilinear.weight)
        self.register_buffer("first_logits", torch.randn(config.n_interests, config.n_positions))
        self.head = UserHead(config)

    def forward(self, history: History, profile: Tensor) -> Tensor:
        """Histories and profiles [n, d] -> [n, m, d]."""
        mapped = history.mapped(self.bilinear)
        weights = self.coefficients(history.pad(mapped.detach()), history.is_item).mT[history.is_item]
        items = torch.arange(len(mapped), device=mapped.device)
        capsules = squash(weigh_rows(mapped, items, history.offsets, weights.float()))
        users = self.head(capsules, capsules, profile)
        return torch.where(self.is_used(history.is_item).unsqueeze(-1), users, users[:, :1])

    def is_used(self, is_item: Tensor) -> Tensor:
        """Tell which interests a user has, by the length of the history: bool [n, l] -> bool [n, m]."""
        n_interests = len(self.first_logits)
        wanted = is_item.sum(dim=1).log2().floor().clamp(min=1)
        return torch.arange(n_interests, device=is_item.device) < wanted.unsqueeze(1)

    @torch.no_grad()
    def coefficients(self, mapped: Tensor, is_item: Tensor) -> Tensor:
        """
        Route: the weight of each item in each interest, from all rounds but the last's squash, [n, m, l].

        An item's weights sum to 1 over the interests the user has; padding and unused interests have 0.
        """
        places = torch.arange(is_item.shape[1] - 1, -1, -1, device=is_item.device)
        first = self.first_logits[:, places.clamp(max=self.first_logits.shape[1] - 1)]
        unused = ~self.is_used(is_item).unsqueeze(-1)
        logits = first.expand(len(is_item), -1, -1)
        for last in [False] * (self.n_rounds - 1) + [True]:
            weights = logits.masked_fill(unused, float("-inf")).softmax(dim=1) * is_item.unsqueeze(1)
            if not last:
                logits = logits + squash(weights @ mapped) @ mapped.mT
        return weights


def squash(capsules: Tensor) -> Tensor:
    """Keep the direction and bring the length below 1: |z|^2 / (1 + |z|^2) z / |z|, [.., d] -> [.., d]."""
    square = capsules.square().sum(dim=-1, keepdim=True)
    return capsules * square / (1 + square) / (square + 1e-9).sqrt()
