"""
What do the items of a history carry beside themselves? Their place, the time gap to now and the scenario.

Shapes: v history items of all users, n users, d dim.
"""

import numpy as np
import torch
from torch import Tensor, nn

from models.increc.config import IncRecConfig


class SequenceEmbedding(nn.Module):
    """
    The sum of three learned embeddings of a history's item, shared by all towers.

    Place: 0 is the newest item; those from ``n_positions`` on share the last embedding. Time gap and
    scenario: the buckets of ``models.increc.features``, 0 = unknown. All start from zero, so that what
    training never sees (an unknown gap, say) adds nothing rather than noise.
    """

    def __init__(self, config: IncRecConfig) -> None:
        """Build one table per kind that is switched on."""
        super().__init__()
        sizes = {"position": config.n_positions}
        if config.n_gap_buckets:
            sizes["gap"] = config.n_gap_buckets + 1
        if config.n_scenario_buckets:
            sizes["scenario"] = config.n_scenario_buckets + 1
        self.tables = nn.ModuleDict({kind: nn.Embedding(size, config.dim) for kind, size in sizes.items()})
        for table in self.tables.values():
            nn.init.zeros_(table.weight)

    def forward(self, context: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """
        Give the c tables behind each other, and the rows of them that each item's embedding is the sum of.

        (gap bucket, scenario bucket) int64 [v, 2] of histories cut at int64 [n + 1] -> [s, d], int64 [v, c].
        """
        n_places = self.tables["position"].num_embeddings
        buckets = {
            "position": places_from_end(offsets, len(context)).clamp(max=n_places - 1),
            "gap": context[:, 0],
            "scenario": context[:, 1],
        }
        starts = np.cumsum([0, *(table.num_embeddings for table in self.tables.values())])
        rows = [buckets[kind] + int(start) for kind, start in zip(self.tables, starts, strict=False)]
        return torch.cat([table.weight for table in self.tables.values()]), torch.stack(rows, dim=1)


def places_from_end(offsets: Tensor, n_values: int) -> Tensor:
    """Give each item's place in its history, 0 = the newest: int64 [n + 1] -> int64 [v]."""
    ends = offsets[1:].repeat_interleave(offsets.diff(), output_size=n_values)
    return ends - 1 - torch.arange(n_values, device=offsets.device)
