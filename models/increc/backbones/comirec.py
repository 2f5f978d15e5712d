"""
ComiRec-SA (Cen et al., KDD 2020): m interests, each a self-attentive average of the history's items.

As in the paper, interest k weighs item j of the history with ``A = softmax(W2 tanh(W1 (H + P)))`` over the
items, and is the average ``A H``: positions P, and here time gap and scenario, steer the weights but are not
part of the interest. Training picks the interest: the paper takes the one that suits the target best; the
score of IncRec is the largest over the interests, of a target as of each negative, which is the same pick
for the target and what retrieval does for the others. Ours: each interest goes through a ``UserHead`` with
the profile, since the paper's own has no way from a history to other items than its own neighbours.

Shapes: n users or items, l places, m interests, d dim.
"""

from torch import Tensor, nn

from models.increc.blocks import UserHead
from models.increc.config import IncRecConfig
from models.increc.item_tower import History

READS_SEQUENCE = True


class ItemTower(nn.Module):
    """The item's input embedding as it is."""

    def __init__(self, config: IncRecConfig) -> None:
        """Take no parameters of its own."""
        super().__init__()

    def forward(self, embedded: Tensor) -> Tensor:
        """[n, d] -> [n, d]."""
        return embedded


class UserTower(nn.Module):
    """Self-attentive pooling into m interests."""

    def __init__(self, config: IncRecConfig) -> None:
        """Build W1, W2 and the head."""
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.n_interests, bias=False)
        self.head = UserHead(config)

    def forward(self, history: History, profile: Tensor) -> Tensor:
        """Histories and profiles [n, d] -> [n, m, d]."""
        interests = self.weights(history) @ history.items
        return self.head(interests, interests, profile)

    def weights(self, history: History) -> Tensor:
        """Give A: the weight of each item in each interest, 0 on padding, [n, m, l]; rows sum to 1."""
        logits = self.w2(self.w1(history.sequence).tanh())
        return logits.masked_fill(~history.is_item.unsqueeze(-1), float("-inf")).softmax(dim=1).mT
