"""
What goes into the towers? Item input embeddings (id plus side features) and a user's history of them.

Shapes: n items or users, f side features, d dim, r rows of the vocabulary, v history items of all users, l
places of the longest history.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.increc.config import IncRecConfig
from models.increc.features import field_sizes
from models.increc.segments import sum_rows
from models.increc.tables import distinct_rows, zero_table

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

    ``embedded`` float32 [r', d] are input embeddings of distinct items, ``index`` int64 [v] points into them,
    ``offsets`` int64 [n + 1]. No history is empty. What each item carries beside itself
    (``SequenceEmbedding``) is the sum of the rows ``carried`` int64 [v, c] of ``tables`` float32 [s, d]; only
    backbones that read sequences get it. Whatever is made of these is made once for all towers. Where
    sequences are padded, padding is at the front, so the newest item is the last column.
    """

    embedded: Tensor
    index: Tensor
    offsets: Tensor
    tables: Tensor | None = None
    carried: Tensor | None = None

    @cached_property
    def mean(self) -> Tensor:
        """Average of each user's items, computed once for all towers: [n, d]."""
        return sum_rows(self.embedded, self.index, self.offsets) / self.offsets.diff().unsqueeze(1)

    def mapped(self, linear: nn.Linear) -> Tensor:
        """
        Map each item with what it carries, not padded: a ``linear`` [d -> h] without bias -> float32 [v, h].

        The map of a sum is the sum of the maps: a row is multiplied once, however many histories hold it.
        """
        return self._add_up(linear(self._rows).float())

    @cached_property
    def is_item(self) -> Tensor:
        """Where the padded sequences have an item: bool [n, l]."""
        lengths = self.offsets.diff()
        columns = torch.arange(int(lengths.max()) - 1, -1, -1, device=self.index.device)
        return columns < lengths.unsqueeze(1)

    @cached_property
    def sequence(self) -> Tensor:
        """Input embeddings of the items with what they carry, zero on padding: [n, l, d]."""
        return self.pad(self._add_up(self._rows))

    def pad(self, values: Tensor) -> Tensor:
        """Lay out what each item has as padded sequences, zero on padding: [v, h] -> [n, l, h]."""
        slots = self.is_item.flatten().nonzero().squeeze(1)
        padded = values.new_zeros(self.is_item.numel(), values.shape[1]).index_copy(0, slots, values)
        return padded.view(*self.is_item.shape, -1)

    @cached_property
    def _rows(self) -> Tensor:
        return torch.cat([self.embedded, self.tables])

    @cached_property
    def _places(self) -> Tensor:
        """Where each item, and what it carries, stand in ``_rows``: int64 [v, 1 + c]."""
        return torch.cat([self.index.unsqueeze(1), self.carried + len(self.embedded)], dim=1)

    def _add_up(self, rows: Tensor) -> Tensor:
        n, c = self._places.shape
        return sum_rows(rows, self._places.flatten(), torch.arange(0, n * c + 1, c, device=rows.device))


def _draw(table: Tensor, rows: Tensor) -> None:
    table[rows] = torch.randn(len(rows), table.shape[1]) * INITIAL_STD
