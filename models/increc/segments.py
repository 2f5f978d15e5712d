"""
How are rows of different length summed, averaged and weighed without padding them?

Row i of n is a segment, ``offsets[i]:offsets[i + 1]``, of flat values. On the CPU compiled kernels do it, on
other devices torch. Shapes: v rows of values, p places of all segments, n segments, m weights of a place, d
dim.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.increc import kernels


def sum_rows(values: Tensor, index: Tensor, offsets: Tensor) -> Tensor:
    """
    Add up rows: row i of the result is the sum of ``values[index[offsets[i]:offsets[i + 1]]]``.

    float32 [v, d], int64 [p], int64 [n + 1] -> [n, d].
    """
    if values.device.type == "cpu":
        return _SumRows.apply(values, index, offsets)
    return functional.embedding_bag(index, values, offsets, mode="sum", include_last_offset=True)


def softmax_segments(logits: Tensor, offsets: Tensor) -> Tensor:
    """Softmax over the places of each segment, none empty: float32 [p, m], int64 [n + 1] -> [p, m]."""
    if logits.device.type == "cpu":
        return _SoftmaxSegments.apply(logits, offsets)
    return _softmax_by_torch(logits, offsets)


def weigh_rows(values: Tensor, index: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """
    Add up weighted rows: sum m of segment i is of ``weights[j, m] * values[index[j]]`` over its places j.

    float32 [v, d], int64 [p], int64 [n + 1], float32 [p, m] -> [n, m, d].
    """
    if values.device.type == "cpu":
        return _WeighRows.apply(values, index, offsets, weights)
    return _weigh_by_torch(values, index, offsets, weights)


def _softmax_by_torch(logits: Tensor, offsets: Tensor) -> Tensor:
    owners = _owners(offsets, len(logits))
    lowest = logits.new_full((len(offsets) - 1, logits.shape[1]), -torch.inf)
    largest = lowest.scatter_reduce(0, owners.unsqueeze(1).expand_as(logits), logits.detach(), "amax")
    raw = (logits - largest[owners]).exp()
    sums = torch.zeros_like(largest).index_add(0, owners, raw)
    return raw / sums[owners]


def _weigh_by_torch(values: Tensor, index: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    weighed = weights.unsqueeze(2) * functional.embedding(index, values).unsqueeze(1)
    sums = weighed.new_zeros(len(offsets) - 1, *weighed.shape[1:])
    return sums.index_add(0, _owners(offsets, len(index)), weighed)


def _owners(offsets: Tensor, n_places: int) -> Tensor:
    segments = torch.arange(len(offsets) - 1, device=offsets.device)
    return segments.repeat_interleave(offsets.diff(), output_size=n_places)


class _SumRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, index: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(index, offsets)
        ctx.n_values = len(values)
        sums = values.new_empty(len(offsets) - 1, values.shape[1])
        kernels.sum_segments(*_arrays(values, index, offsets, sums))
        return sums

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        index, offsets = ctx.saved_tensors
        values = gradient.new_zeros(ctx.n_values, gradient.shape[1])
        kernels.spread_segments(*_arrays(gradient, index, offsets, values))
        return values, None, None


class _SoftmaxSegments(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, offsets: Tensor) -> Tensor:
        weights = torch.empty_like(logits, memory_format=torch.contiguous_format)
        kernels.softmax_segments(*_arrays(logits, offsets, weights))
        ctx.save_for_backward(weights, offsets)
        return weights

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        weights, offsets = ctx.saved_tensors
        of_logits = torch.empty_like(weights)
        kernels.softmax_segments_backward(*_arrays(weights, gradient, offsets, of_logits))
        return of_logits, None


class _WeighRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, index: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, index, offsets, weights)
        sums = values.new_zeros(len(offsets) - 1, weights.shape[1], values.shape[1])
        kernels.weigh_segments(*_arrays(values, index, offsets, weights, sums))
        return sums

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, Tensor]:
        values, index, offsets, weights = ctx.saved_tensors
        of_values, of_weights = torch.zeros_like(values), torch.empty_like(weights)
        given = _arrays(gradient, values, index, offsets, weights, of_values, of_weights)
        kernels.weigh_segments_backward(*given)
        return of_values, None, None, of_weights


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    """View tensors as arrays; one that a kernel writes to is contiguous already, so that it is no copy."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
