"""
How does a step cost what its batch holds? Embedding tables whose gradient names the rows it touches.

Torch's own sparse gradients repeat a row for every use and are sorted and summed in each step; a batch that
lists its distinct rows needs neither. Shapes: r rows of the table, n rows of the batch, d dim.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.increc import kernels


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


def sum_rows(values: Tensor, index: Tensor, offsets: Tensor) -> Tensor:
    """
    Add up rows: row i of the result is the sum of ``values[index[offsets[i]:offsets[i + 1]]]``.

    float32 [v, d], int64 [p], int64 [n + 1] -> [n, d].
    """
    if values.device.type == "cpu":
        return _SumRows.apply(values, index, offsets)
    return functional.embedding_bag(index, values, offsets, mode="sum", include_last_offset=True)


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


class _SumRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, index: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(index, offsets)
        ctx.n_values = len(values)
        sums = values.new_zeros(len(offsets) - 1, values.shape[1])
        arrays = (part.detach().numpy() for part in (values.contiguous(), index, offsets, sums))
        kernels.sum_segments(*arrays)
        return sums

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        index, offsets = ctx.saved_tensors
        values = gradient.new_zeros(ctx.n_values, gradient.shape[1])
        arrays = (part.detach().numpy() for part in (gradient.contiguous(), index, offsets, values))
        kernels.spread_segments(*arrays)
        return values, None, None
