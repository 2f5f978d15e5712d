"""
ComiRec-SA (Cen et al., KDD 2020): m interests, each a self-attentive average of the history's items.

As in the paper, interest k weighs item j of the history with ``A = softmax(W2 tanh(W1 (H + P)))`` over the
items, and is the average ``A H``: positions P, and here time gap and scenario, steer the weights but are not
part of the interest. Training picks the interest: the paper takes the one that suits the target best; the
score of IncRec is the largest over the interests, of a target as of each negative, which is the same pick
for the target and what retrieval does for the others. Ours: each interest goes through a ``UserHead`` with
the profile, since the paper's own has no way from a history to other items than its own neighbours.

Shapes: n users or items, v history items of all users, m interests, d dim.
"""

from torch import Tensor, nn

from models.increc.blocks import IdentityItemTower, UserHead
from models.increc.config import IncRecConfig
from models.increc.item_tower import History
from models.increc.segments import softmax_segments, weigh_rows

READS_SEQUENCE = True
ItemTower = IdentityItemTower


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
        interests = weigh_rows(history.embedded, history.index, history.offsets, self.weights(history))
        return self.head(interests, interests, profile)

    def weights(self, history: History) -> Tensor:
        """Give A: the weight of each item in each interest, [v, m]; a history's sum to 1."""
        logits = self.w2(history.mapped(self.w1).tanh_())
        return softmax_segments(logits.float(), history.offsets)
