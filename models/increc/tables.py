"""
How does a step cost what its batch holds? Embedding tables whose gradient names the rows it touches.

Torch's own sparse gradients repeat a row for every use and are sorted and summed in each step; a batch that
lists its distinct rows needs neither, one in parts repeats a row for each part. Shapes: r rows of the table,
n rows of the batch, d dim.
"""

import torch
from torch import Tensor, nn


def zero_table(n_rows: int, dim: int) -> nn.Embedding:
    """Make a table of zeros: memory that nothing writes to is not taken."""
    return nn.Embedding.from_pretrained(torch.zeros(n_rows, dim), freeze=False)


def distinct_rows(table: Tensor, rows: Tensor) -> Tensor:
    """
    Gather distinct rows: [r, d], int64 [n] -> [n, d].

    The table's gradient is sparse, with ``rows`` as its indices in the order given; the same table must not
    be read twice in a step.
    """
    return _DistinctRows.apply(table, rows)


class _DistinctRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return table.index_select(0, rows)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return torch.sparse_coo_tensor(
            rows.unsqueeze(0), gradient, ctx.shape, check_invariants=False, is_coalesced=True
        ), None
