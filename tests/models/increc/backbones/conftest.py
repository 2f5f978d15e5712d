"""Small histories for the parts of the sequence backbones."""

import pytest
import torch

from models.increc.config import IncRecConfig
from models.increc.item_tower import History


@pytest.fixture
def config() -> IncRecConfig:
    """A small config; tests name the backbone."""
    return IncRecConfig(
        dim=8, hidden_dim=16, n_interests=3, n_heads=2, n_layers=2, n_recent=4, group_size=3, n_positions=30
    )


@pytest.fixture
def history_of():
    """Make histories of rows of a fixed random embedding; the context of a place is fixed, too."""
    generator = torch.Generator().manual_seed(0)
    embedded = torch.randn(50, 8, generator=generator)
    places = torch.randn(50, 8, generator=generator)

    def make(*rows: list[int], with_context: bool = True) -> History:
        lengths = torch.tensor([len(row) for row in rows])
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        carried = torch.cat([torch.arange(len(row)).flip(0) for row in rows]).unsqueeze(1)
        items = torch.tensor([item for row in rows for item in row])
        return History(embedded, items, offsets, places * with_context, carried)

    return make
