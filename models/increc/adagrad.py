"""
How do gradients become new weights? AdaGrad (Duchi et al., JMLR 2011), on the rows of the batch only.

``optimizer_state = "row_wise"`` keeps one sum per row of an embedding table, of the mean squared gradient,
as production systems with large tables do: less memory and smaller checkpoints.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from models.increc import kernels

EPSILON = 1e-10


class AdaGrad:
    """
    The sums of squared gradients of named parameters, and the step.

    ``sums``: by parameter name, of the parameter's shape, or [r, 1] for a table in row-wise state.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, Tensor]], learning_rate: float, row_wise: frozenset[str]
    ) -> None:
        """Start from sums of zero; ``row_wise`` names the tables with one sum per row."""
        self.parameters, self.learning_rate = dict(parameters), learning_rate
        self.sums = {
            name: torch.zeros(
                (len(value), 1) if name in row_wise else value.shape, dtype=value.dtype, device=value.device
            )
            for name, value in self.parameters.items()
        }

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Add each gradient's square to its sum, and move against the gradient over the sum's root."""
        for name, parameter in self.parameters.items():
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                self._step_rows(parameter, self.sums[name], gradient._indices()[0], gradient._values())
            else:
                total = self.sums[name].addcmul_(gradient, gradient)
                parameter.addcdiv_(gradient, total.sqrt().add_(EPSILON), value=-self.learning_rate)

    def _step_rows(self, table: Tensor, sums: Tensor, rows: Tensor, gradient: Tensor) -> None:
        if table.device.type != "cpu":
            self._step_rows_by_torch(table, sums, rows, gradient)
            return
        kernel = kernels.step_elements if sums.shape == table.shape else kernels.step_rows
        arrays = (part.detach().numpy() for part in (table, sums, rows, gradient.contiguous()))
        kernel(*arrays, np.float32(self.learning_rate), np.float32(EPSILON))

    def _step_rows_by_torch(self, table: Tensor, sums: Tensor, rows: Tensor, gradient: Tensor) -> None:
        square = gradient.square()
        total = sums[rows] + (square if sums.shape == table.shape else square.mean(dim=1, keepdim=True))
        sums[rows] = total
        table[rows] -= self.learning_rate * gradient / (total.sqrt() + EPSILON)
