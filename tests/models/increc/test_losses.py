import math

import pytest
import torch

from models.increc import losses

NO_HITS = torch.zeros(0, dtype=torch.int64)


def log_negatives(scores, hits=((), ()), log_weight=None):
    scores = torch.tensor(scores)
    weight = torch.zeros(scores.shape[1]) if log_weight is None else torch.tensor(log_weight)
    bias = losses.negative_bias(len(scores), weight, torch.tensor(hits, dtype=torch.int64))
    return losses.log_negatives(scores, bias)


def test_basic_loss_is_equation_2_by_hand():
    # sim(u, i) = 2; negatives have sim 1 and 5: -log(2 / (2 + 6)) = log 4
    log_sum = log_negatives([[math.log(1.0), math.log(5.0)]])
    loss = losses.basic_loss(torch.tensor([math.log(2.0)]), log_sum, torch.ones(1))
    assert loss.item() == pytest.approx(math.log(4))


def test_boosted_positive_counts_as_often_as_its_weight():
    log_sum = log_negatives([[0.0]]).expand(2)
    loss = losses.basic_loss(torch.tensor([0.0, 0.0]), log_sum, torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx(4 * math.log(2))


def test_incremental_loss_is_equation_4_by_hand():
    # negatives N sum to 1 + 2, the sample's RTG item adds 4: -0.5 * log(1 / (1 + 7))
    log_sum = log_negatives([[math.log(1.0), math.log(2.0)]])
    log_sum = losses.add_retrieved(log_sum, torch.tensor([math.log(4.0)]), torch.tensor([0]))
    loss = losses.incremental_loss(torch.tensor([0.0]), log_sum, torch.tensor([0.5]))
    assert loss.item() == pytest.approx(0.5 * math.log(8))


def test_retrieved_items_count_only_for_their_own_sample():
    log_sum = torch.tensor([0.0, 0.0, 0.0])
    added = losses.add_retrieved(log_sum, torch.tensor([0.0, math.log(2.0)]), torch.tensor([2, 2]))
    assert added.exp().tolist() == pytest.approx([1, 1, 4])


def test_samples_without_retrieved_items_keep_their_sum():
    log_sum = torch.tensor([0.3, -40.0])
    assert losses.add_retrieved(log_sum, torch.zeros(0), NO_HITS).tolist() == pytest.approx([0.3, -40.0])


def test_large_scores_neither_overflow_nor_lose_the_gradient():
    log_sum = torch.tensor([90.0], requires_grad=True)
    added = losses.add_retrieved(log_sum, torch.tensor([95.0]), torch.tensor([0]))
    added.backward()
    assert added.item() == pytest.approx(95 + math.log1p(math.exp(-5)), abs=1e-4)
    assert log_sum.grad.item() == pytest.approx(1 / (1 + math.exp(5)), rel=1e-3)


def test_alignment_loss_is_equation_6_by_hand():
    log_sum = log_negatives([[0.0, 0.0, 0.0]]).expand(2)
    loss = losses.alignment_loss(torch.tensor([0.0, math.log(3.0)]), log_sum)
    assert loss.item() == pytest.approx(math.log(4) + math.log(2))


def test_accidental_hit_is_left_out_of_its_own_sample_only():
    log_sum = log_negatives([[0.0, 1.0], [0.0, 1.0]], hits=((0,), (1,)))
    assert log_sum.tolist() == pytest.approx([0.0, math.log(1 + math.e)])


def test_sample_whose_negatives_are_all_hits_has_no_loss_and_no_nan_gradient():
    scores = torch.zeros(1, 2, requires_grad=True)
    bias = losses.negative_bias(1, torch.zeros(2), torch.tensor([[0, 0], [0, 1]]))
    log_sum = losses.log_negatives(scores, bias)
    loss = losses.basic_loss(torch.zeros(1), log_sum, torch.ones(1))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.tolist() == [[0, 0]]


def test_log_weight_multiplies_a_negative():
    assert log_negatives([[0.0, 0.0]], log_weight=[math.log(3.0), 0.0]).exp().item() == pytest.approx(4)


def test_score_is_the_best_interest_over_temperature():
    users = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    items = torch.tensor([[0.2, 0.7], [0.9, 0.1]])
    assert losses.all_scores(users, items, 0.1).tolist() == [pytest.approx([7, 9])]
    pairs = losses.pair_scores(users, torch.tensor([0, 0]), items, 0.1)
    assert pairs.tolist() == pytest.approx([7, 9])


def test_most_similar_exposed_item_is_never_the_item_itself():
    exposed = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    j, is_defined = losses.most_similar_exposed(exposed[[0, 0, 2]], exposed, torch.tensor([0, -1, 2]))
    assert j.tolist() == [1, 0, 1]
    assert is_defined.tolist() == [True, True, True]


@pytest.mark.parametrize("n_exposed", [0, 1])
def test_item_with_nothing_else_exposed_has_no_most_similar_one(n_exposed):
    items = torch.ones(1, 2)
    own = torch.tensor([n_exposed - 1])
    _, is_defined = losses.most_similar_exposed(items, items[:n_exposed], own)
    assert is_defined.tolist() == [False]


def test_consistency_weight_is_softplus_with_mean_one():
    score = torch.tensor([0.0, 2.0], requires_grad=True)
    alpha = losses.consistency_weight(score, torch.tensor([True, True]))
    low, high = math.log(2), math.log1p(math.exp(2))
    assert alpha.tolist() == pytest.approx([2 * low / (low + high), 2 * high / (low + high)])
    assert not alpha.requires_grad


def test_consistency_weight_is_one_where_it_is_not_defined():
    alpha = losses.consistency_weight(torch.tensor([5.0, 1.0, 1.0]), torch.tensor([False, True, True]))
    assert alpha.tolist() == pytest.approx([1, 1, 1])
    alone = losses.consistency_weight(torch.tensor([5.0]), torch.tensor([False]))
    assert alone.tolist() == [1]


def test_total_loss_is_the_sum_of_the_terms():
    terms = {"basic": torch.tensor(1.0), "incremental": torch.tensor(2.0), "alignment": torch.tensor(4.0)}
    assert losses.total_loss(terms).item() == 7
