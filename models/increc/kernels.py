"""
What do the CPU's row kernels do? Sums of rows picked by index, back and forth, and AdaGrad on rows.

Plain loops in the order of the rows: one thread, one order of additions, the same bits every time. Shapes: v
rows, p places of all segments, n segments, m weights of a place, d dim.
"""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True, error_model="numpy")
def sum_segments(values, index, offsets, sums):
    """Put the sum of rows ``index[offsets[i]:offsets[i + 1]]`` of ``values`` [v, d] into ``sums`` [n, d]."""
    for i in range(len(offsets) - 1):
        if offsets[i] == offsets[i + 1]:
            sums[i] = 0
            continue
        first = index[offsets[i]]
        for k in range(values.shape[1]):
            sums[i, k] = values[first, k]
        for p in range(offsets[i] + 1, offsets[i + 1]):
            row = index[p]
            for k in range(values.shape[1]):
                sums[i, k] += values[row, k]


@njit(nogil=True, cache=True, error_model="numpy")
def spread_segments(gradient, index, offsets, values):
    """Add row i of ``gradient`` [n, d] to each of the rows of ``values`` [v, d] that were summed into it."""
    for i in range(len(offsets) - 1):
        for p in range(offsets[i], offsets[i + 1]):
            row = index[p]
            for k in range(values.shape[1]):
                values[row, k] += gradient[i, k]


@njit(nogil=True, cache=True, error_model="numpy")
def softmax_segments(logits, offsets, weights):
    """Put the softmax over the places of each segment of ``logits`` [p, m] into ``weights`` [p, m]."""
    for i in range(len(offsets) - 1):
        for k in range(logits.shape[1]):
            largest, total = logits[offsets[i], k], np.float32(0)
            for p in range(offsets[i] + 1, offsets[i + 1]):
                largest = max(largest, logits[p, k])
            for p in range(offsets[i], offsets[i + 1]):
                weights[p, k] = np.exp(logits[p, k] - largest)
                total += weights[p, k]
            for p in range(offsets[i], offsets[i + 1]):
                weights[p, k] /= total


@njit(nogil=True, cache=True, error_model="numpy")
def softmax_segments_backward(weights, gradient, offsets, of_logits):
    """Put the gradient of the logits into ``of_logits`` [p, m]: w (g - sum of w g)."""
    for i in range(len(offsets) - 1):
        for k in range(weights.shape[1]):
            mean = np.float32(0)
            for p in range(offsets[i], offsets[i + 1]):
                mean += weights[p, k] * gradient[p, k]
            for p in range(offsets[i], offsets[i + 1]):
                of_logits[p, k] = weights[p, k] * (gradient[p, k] - mean)


@njit(nogil=True, cache=True, error_model="numpy")
def weigh_segments(values, index, offsets, weights, sums):
    """Add rows ``index[p]`` of ``values`` [v, d], times ``weights`` [p, m], into ``sums`` [n, m, d]."""
    for i in range(len(offsets) - 1):
        for p in range(offsets[i], offsets[i + 1]):
            row = index[p]
            for k in range(weights.shape[1]):
                weight = weights[p, k]
                for j in range(values.shape[1]):
                    sums[i, k, j] += weight * values[row, j]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def weigh_segments_backward(gradient, values, index, offsets, weights, of_values, of_weights):
    """Add the gradient of the values into ``of_values`` [v, d], and put that of the weights [p, m]."""
    for i in range(len(offsets) - 1):
        for p in range(offsets[i], offsets[i + 1]):
            row = index[p]
            for k in range(weights.shape[1]):
                weight, product = weights[p, k], np.float32(0)
                for j in range(values.shape[1]):
                    product += gradient[i, k, j] * values[row, j]
                    of_values[row, j] += weight * gradient[i, k, j]
                of_weights[p, k] = product


@njit(nogil=True, cache=True, error_model="numpy")
def step_elements(table, sums, rows, gradient, learning_rate, epsilon):
    """AdaGrad on distinct rows of a table [r, d] with as many sums."""
    for i in range(len(rows)):
        weights, totals, steps = table[rows[i]], sums[rows[i]], gradient[i]
        for k in range(len(steps)):
            totals[k] += steps[k] * steps[k]
            weights[k] -= learning_rate * steps[k] / (np.sqrt(totals[k]) + epsilon)


@njit(nogil=True, cache=True, error_model="numpy")
def step_rows(table, sums, rows, gradient, learning_rate, epsilon):
    """AdaGrad on distinct rows of a table [r, d] with one sum [r, 1] each, of the mean square."""
    for i in range(len(rows)):
        row, square = rows[i], np.float32(0)
        for k in range(table.shape[1]):
            square += gradient[i, k] * gradient[i, k]
        total = sums[row, 0] + square / np.float32(table.shape[1])
        sums[row, 0] = total
        rate = learning_rate / (np.sqrt(total) + epsilon)
        for k in range(table.shape[1]):
            table[row, k] -= rate * gradient[i, k]
