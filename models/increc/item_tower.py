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

INITIAL_STD = 0.1


class ItemEmbedding(nn.Module):
    """
    The shared input embedding of an item: its id's row plus the sum of its side features' rows.

    Row 0 of the ids is "no item", the learned stand-in for an empty history. Gradients are sparse: a step
    costs what its batch holds, not what the catalogue holds.
    """

    def __init__(self, config: IncRecConfig, n_rows: int) -> None:
        """Draw all rows at random; ``forget_unseen`` clears those that training will not see."""
        super().__init__()
        sizes = torch.tensor([0, *field_sizes(config)])
        self.register_buffer("field_starts", sizes.cumsum(0)[:-1], persistent=False)
        self.id = nn.Embedding(n_rows, config.dim, sparse=True)
        self.side = nn.Embedding(int(sizes.sum()), config.dim, sparse=True)
        nn.init.normal_(self.id.weight, std=INITIAL_STD)
        nn.init.normal_(self.side.weight, std=INITIAL_STD)

    @torch.no_grad()
    def forget_unseen(self, rows: Tensor, side: Tensor) -> None:
        """
        Zero what no sample touches, so that an untrained row adds nothing rather than noise.

        ``rows`` int64 [n] and ``side`` int64 [n, f] of the items in the samples. Null buckets start from
        zero, too: the absence of a feature says nothing before training.
        """
        is_seen = torch.zeros(len(self.id.weight), 1)
        is_seen[rows] = 1
        is_seen[0] = 1
        self.id.weight.mul_(is_seen)
        is_seen = torch.zeros(len(self.side.weight), 1)
        is_seen[(side + self.field_starts[: side.shape[1]]).flatten()] = 1
        is_seen[self.field_starts[: side.shape[1]]] = 0
        self.side.weight.mul_(is_seen)

    def forward(self, rows: Tensor, side: Tensor) -> Tensor:
        """Embed known items: rows int64 [n], side int64 [n, f] -> [n, d]."""
        return self.id(rows) + self.embed_side(side)

    def embed_side(self, side: Tensor) -> Tensor:
        """Embed items by their side features alone, as new items are: int64 [n, f] -> [n, d]."""
        if side.shape[1] == 0:
            return torch.zeros(len(side), self.id.weight.shape[1], device=side.device)
        return functional.embedding_bag(side + self.field_starts, self.side.weight, mode="sum", sparse=True)


@dataclass(frozen=True)
class History:
    """
    The histories of n users: user i has items ``index[offsets[i]:offsets[i + 1]]``, oldest first.

    ``embedded`` float32 [r', d] are input embeddings of distinct items, ``index`` int64 [v] points into them,
    ``offsets`` int64 [n + 1]. No history is empty. ``context`` float32 [v, d] is what each item carries
    beside itself (``SequenceEmbedding``); only backbones that read sequences get it. Whatever is made of
    these is made once for all towers; padding is at the front, so the newest item is the last column.
    """

    embedded: Tensor
    index: Tensor
    offsets: Tensor
    context: Tensor | None = None

    @cached_property
    def mean(self) -> Tensor:
        """Average of each user's items: [n, d]."""
        return functional.embedding_bag(self.index, self.embedded, self.offsets[:-1], mode="mean")

    @cached_property
    def is_item(self) -> Tensor:
        """Where the padded sequences have an item: bool [n, l]."""
        lengths = self.offsets.diff()
        columns = torch.arange(int(lengths.max()) - 1, -1, -1, device=self.index.device)
        return columns < lengths.unsqueeze(1)

    @cached_property
    def items(self) -> Tensor:
        """Input embeddings of the items, zero on padding: [n, l, d]."""
        return self._pad(self._own)

    @cached_property
    def sequence(self) -> Tensor:
        """Input embeddings of the items plus their context, zero on padding: [n, l, d]."""
        return self._pad(self._own + self.context)

    @cached_property
    def _own(self) -> Tensor:
        return functional.embedding(self.index, self.embedded)

    def _pad(self, values: Tensor) -> Tensor:
        slots = self.is_item.flatten().nonzero().squeeze(1)
        padded = values.new_zeros(self.is_item.numel(), values.shape[1]).index_copy(0, slots, values)
        return padded.view(*self.is_item.shape, -1)
