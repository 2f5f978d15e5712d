"""
What goes into the towers? Item input embeddings (id plus side features) and a user's history of them.

Shapes: n items or users, f side features, d dim, r rows of the vocabulary.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.increc.config import IncRecConfig
from models.increc.features import field_sizes
from models.increc.tables import distinct_rows, sum_rows, zero_table

INITIAL_STD = 0.1


class ItemEmbedding(nn.Module):
    """
    The shared input embedding of an item: its id's row plus the sum of its side features' rows.

    Row 0 of the ids is "no item", the learned stand-in for an empty history. A step costs what its batch
    holds, not what the catalogue holds (``models.increc.tables``).
    """

    def __init__(self, config: IncRecConfig, n_rows: int) -> None:
        """Make all rows zero; ``draw_seen`` draws those that training will see."""
        super().__init__()
        sizes = torch.tensor([0, *field_sizes(config)])
        self.register_buffer("field_starts", sizes.cumsum(0)[:-1], persistent=False)
        self.id = zero_table(n_rows, config.dim)
        self.side = zero_table(int(sizes.sum()), config.dim)

    @torch.no_grad()
    def draw_seen(self, rows: Tensor, side: Tensor) -> None:
        """
        Draw at random what some sample touches; the others stay zero and add nothing rather than noise.

        ``rows`` int64 [n] and ``side`` int64 [n, f] of the items in the samples. Null buckets start from
        zero, too: the absence of a feature says nothing before training.
        """
        starts = self.field_starts[: side.shape[1]]
        seen_side = (side + starts).unique()
        _draw(self.id.weight, torch.cat([rows.new_zeros(1), rows]).unique())
        _draw(self.side.weight, seen_side[~torch.isin(seen_side, starts)])

    def of_batch(self, rows: Tensor, side_rows: Tensor, side_index: Tensor) -> Tensor:
        """
        Embed distinct items for a training step.

        ``rows`` int64 [n], ``side_rows`` int64 [s] the distinct rows of all their side features,
        ``side_index`` int64 [n, f] points into these -> [n, d].
        """
        embedded = distinct_rows(self.id.weight, rows)
        if side_index.shape[1] == 0:
            return embedded
        side = distinct_rows(self.side.weight, side_rows)
        n, f = side_index.shape
        offsets = torch.arange(0, n * f + 1, f, device=rows.device)
        return embedded + sum_rows(side, side_index.flatten(), offsets)

    def forward(self, rows: Tensor, side: Tensor) -> Tensor:
        """Embed known items: rows int64 [n], side int64 [n, f] -> [n, d]."""
        return self.id(rows) + self.embed_side(side)

    def embed_side(self, side: Tensor) -> Tensor:
        """Embed items by their side features alone, as new items are: int64 [n, f] -> [n, d]."""
        if side.shape[1] == 0:
            return torch.zeros(len(side), self.id.weight.shape[1], device=side.device)
        return functional.embedding_bag(side + self.field_starts, self.side.weight, mode="sum")


@dataclass(frozen=True)
class History:
    """
    The histories of n users: user i has items ``index[offsets[i]:offsets[i + 1]]``, oldest first.

    ``embedded`` float32 [r', d] are input embeddings of distinct items, ``index`` int64 points into them,
    ``offsets`` int64 [n + 1]. No history is empty.
    """

    embedded: Tensor
    index: Tensor
    offsets: Tensor

    @cached_property
    def mean(self) -> Tensor:
        """Average of each user's items, computed once for all towers: [n, d]."""
        return sum_rows(self.embedded, self.index, self.offsets) / self.offsets.diff().unsqueeze(1)


def _draw(table: Tensor, rows: Tensor) -> None:
    table[rows] = torch.randn(len(rows), table.shape[1]) * INITIAL_STD
