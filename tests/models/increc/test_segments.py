import pytest
import torch

from models.increc import segments
from models.increc.segments import softmax_segments, sum_rows, weigh_rows

OFFSETS = torch.tensor([0, 3, 4, 17, 40])


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def results(function, given, *others):
    """Give what a function gives for tensors, and the gradients of a sum that weighs every number apart."""
    given = [value.clone().requires_grad_() for value in given]
    found = function(*given, *others)
    (found * torch.arange(found.numel()).view_as(found).sin()).sum().backward()
    return [found.detach(), *(value.grad for value in given)]


def test_row_sums_and_their_gradients_are_those_of_embedding_bag(generator):
    index = torch.randint(0, 20, (40,), generator=generator)
    offsets = torch.tensor([0, 3, 3, 17, 40])
    weight = torch.randn(4, 5, generator=generator)
    values = torch.randn(20, 5, generator=generator, requires_grad=True)
    other = values.detach().clone().requires_grad_()
    ours = sum_rows(values, index, offsets)
    theirs = torch.nn.functional.embedding_bag(index, other, offsets, mode="sum", include_last_offset=True)
    (ours * weight).sum().backward(), (theirs * weight).sum().backward()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(values.grad, other.grad)


def test_softmax_by_hand():
    logits = torch.tensor([[0.0, 1000.0], [0.0, 1000.0], [5.0, -5.0]])
    found = softmax_segments(logits, torch.tensor([0, 2, 3]))
    assert found.tolist() == [[0.5, 0.5], [0.5, 0.5], [1, 1]]


def test_weighted_sums_by_hand():
    values, index = torch.tensor([[1.0, 2.0], [10.0, 20.0]]), torch.tensor([0, 1, 1])
    weights = torch.tensor([[1.0, 0.0], [0.5, 2.0], [3.0, 0.0]])
    found = weigh_rows(values, index, torch.tensor([0, 2, 2, 3]), weights)
    assert found.tolist() == [[[6, 12], [20, 40]], [[0, 0], [0, 0]], [[30, 60], [0, 0]]]


def test_softmax_and_its_gradient_are_those_of_each_segment_apart(generator):
    logits = 5 * torch.randn(40, 3, generator=generator)

    def apart(logits):
        return torch.cat([part.softmax(dim=0) for part in logits.split(OFFSETS.diff().tolist())])

    expected = results(apart, [logits])
    for function in (softmax_segments, segments._softmax_by_torch):
        torch.testing.assert_close(results(function, [logits], OFFSETS), expected)


def test_weighted_sums_and_their_gradients_are_those_of_products_of_matrices(generator):
    values, weights = torch.randn(20, 5, generator=generator), torch.randn(40, 3, generator=generator)
    index = torch.randint(0, 20, (40,), generator=generator)

    def apart(values, weights):
        pairs = zip(*(part.split(OFFSETS.diff().tolist()) for part in (weights, index)), strict=True)
        return torch.stack([weight.mT @ values[rows] for weight, rows in pairs])

    expected = results(apart, [values, weights])
    for function in (weigh_rows, segments._weigh_by_torch):
        found = results(lambda v, w, of=function: of(v, index, OFFSETS, w), [values, weights])
        torch.testing.assert_close(found, expected)


def test_gradient_that_is_not_contiguous_is_read_as_it_is_meant(generator):
    logits, weight = (torch.randn(40, 3, generator=generator) for _ in range(2))
    gradients = []
    for turned in (weight, weight.mT.contiguous().mT):
        given = logits.clone().requires_grad_()
        softmax_segments(given, OFFSETS).backward(turned)
        gradients.append(given.grad)
    assert torch.equal(*gradients)
