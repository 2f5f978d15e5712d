import numpy as np
import pytest
import torch

from models.increc.adagrad import AdaGrad
from models.increc.tables import distinct_rows, zero_table


def quadratic(table: torch.Tensor, rows: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((distinct_rows(table, rows) - target) ** 2).sum()


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_steps_are_those_of_torch(generator):
    start = torch.randn(50, 8, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    dense_ours, dense_theirs = torch.nn.Parameter(torch.ones(3, 8)), torch.nn.Parameter(torch.ones(3, 8))
    optimizer = AdaGrad([("table", ours), ("dense", dense_ours)], 0.1, frozenset())
    oracle = torch.optim.Adagrad([theirs, dense_theirs], lr=0.1)
    for _ in range(5):
        rows = torch.randperm(50, generator=generator)[:10]
        target = torch.randn(10, 8, generator=generator)
        optimizer.zero_grad(), oracle.zero_grad()
        (quadratic(ours, rows, target) + (dense_ours**3).sum()).backward()
        (((theirs[rows] - target) ** 2).sum() + (dense_theirs**3).sum()).backward()
        optimizer.step(), oracle.step()
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(dense_ours, dense_theirs)
    torch.testing.assert_close(optimizer.sums["table"], oracle.state[theirs]["sum"])


def test_row_wise_state_has_one_sum_of_mean_squares_per_row():
    table = torch.nn.Parameter(torch.zeros(4, 2))
    optimizer = AdaGrad([("table", table)], 0.5, frozenset({"table"}))
    for _ in range(2):
        optimizer.zero_grad()
        (distinct_rows(table, torch.tensor([2, 0])) * torch.tensor([[3.0, 4.0], [1.0, 1.0]])).sum().backward()
        optimizer.step()
    assert optimizer.sums["table"].tolist() == [[2.0], [0.0], [25.0], [0.0]]
    roots = [12.5**0.5, 25**0.5]
    expected = [-0.5 * sum(g / root for root in roots) for g in (3, 4)]
    assert table[2].tolist() == pytest.approx(expected, rel=1e-6)
    assert table[[1, 3]].abs().sum() == 0


@pytest.mark.parametrize("row_wise", [frozenset(), frozenset({"table"})])
def test_kernels_do_what_torch_does_on_other_devices(generator, row_wise):
    start, rows = torch.randn(30, 8, generator=generator), torch.randperm(30, generator=generator)[:9]
    gradient = torch.randn(9, 8, generator=generator)
    results = []
    for step in ("_step_rows", "_step_rows_by_torch"):
        table = start.clone()
        optimizer = AdaGrad([("table", table)], 0.1, row_wise)
        for _ in range(3):
            getattr(optimizer, step)(table, optimizer.sums["table"], rows, gradient)
        results.append((table, optimizer.sums["table"]))
    torch.testing.assert_close(*results)


def test_gradient_of_a_table_names_the_rows_of_the_batch_alone():
    table = zero_table(1000, 4).weight
    rows = torch.tensor([7, 3, 999])
    quadratic(table, rows, torch.ones(3, 4)).backward()
    assert table.grad.is_sparse
    assert table.grad._indices().tolist() == [[7, 3, 999]]
    np.testing.assert_array_equal(table.grad._values(), np.full((3, 4), -2.0))
