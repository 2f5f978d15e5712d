"""
How do several processes train one model? Each takes its part of every batch; gradients are summed.

All processes hold the whole model and draw the same batches. ``torch.distributed`` must be initialised by
the caller where there is more than one; a process that fails or hangs ends the others by its time limit.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed
from torch import Tensor


class RanksDiffer(ValueError):
    """The processes were given different inputs."""


@dataclass(frozen=True)
class Ranks:
    """This process is number ``rank`` of ``n``."""

    rank: int = 0
    n: int = 1

    @staticmethod
    def of_process_group() -> "Ranks":
        """Take both from the initialised process group."""
        return Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())

    def part(self, rows: np.ndarray) -> np.ndarray:
        """Give this process's part of a batch, maybe none of it."""
        return np.array_split(rows, self.n)[self.rank]

    def sum(self, values: Tensor) -> Tensor:
        """Add up the values of all processes; each gets the sum."""
        if self.n > 1:
            torch.distributed.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each parameter's gradient, sparse or dense, by the sum over the processes."""
        if self.n == 1:
            return
        dense = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad.is_sparse:
                parameter.grad = self._sum_rows(parameter.grad)
            else:
                dense.append(parameter.grad)
        if not dense:
            return
        total = self.sum(torch.cat([gradient.flatten() for gradient in dense]))
        for gradient, part in zip(dense, total.split([g.numel() for g in dense]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _sum_rows(self, gradient: Tensor) -> Tensor:
        """Gather the rows that each process touched, then add up by row, in the order of the processes."""
        rows, values = gradient._indices()[0], gradient._values()
        lengths = torch.zeros(self.n, dtype=torch.int64, device=rows.device)
        lengths[self.rank] = len(rows)
        lengths = self.sum(lengths).tolist()
        longest = max(lengths)
        all_rows = rows.new_zeros(self.n, longest)
        all_values = values.new_zeros(self.n, longest, values.shape[1])
        all_rows[self.rank, : len(rows)], all_values[self.rank, : len(rows)] = rows, values
        self.sum(all_rows), self.sum(all_values)
        rows = torch.cat([part[:length] for part, length in zip(all_rows, lengths, strict=True)])
        values = torch.cat([part[:length] for part, length in zip(all_values, lengths, strict=True)])
        distinct, place = rows.unique(return_inverse=True)
        total = values.new_zeros(len(distinct), values.shape[1]).index_add_(0, place, values)
        return torch.sparse_coo_tensor(
            distinct.unsqueeze(0), total, gradient.shape, check_invariants=False, is_coalesced=True
        )

    def require_equal(self, facts: dict[str, str]) -> None:
        """
        Check that all processes were given the same.

        Raises:
            RanksDiffer: they were not; says what differs.
        """
        if self.n == 1:
            return
        gathered: list[dict[str, str]] = [{} for _ in range(self.n)]
        torch.distributed.all_gather_object(gathered, facts)
        for rank, others in enumerate(gathered):
            differ = [name for name, value in facts.items() if others.get(name) != value]
            if differ:
                raise RanksDiffer(
                    f"processes {self.rank} and {rank} have other {', '.join(differ)}; start all of them on "
                    "the same state folder and settings"
                )


ALONE = Ranks()
