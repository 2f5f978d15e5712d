import pytest
import torch

from models.increc.backbones.mind import UserTower, squash

ROWS = ([1], [1, 2, 3, 4], list(range(1, 12)))


@pytest.fixture
def tower(config):
    torch.manual_seed(0)
    return UserTower(config.model_copy(update={"backbone": "mind"}))


def test_squash_keeps_the_direction_and_bounds_the_length():
    capsules = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [3e4, 4e4]])
    squashed = squash(capsules)
    torch.testing.assert_close(squashed[0], torch.tensor([0.6, 0.8]) * 25 / 26)
    torch.testing.assert_close(squashed[1], torch.tensor([0.6, 0.8]) * 0.25 / 1.25)
    assert squashed[2].tolist() == [0, 0]
    assert (squashed.norm(dim=-1) <= 1).all()


def test_an_item_s_coefficients_sum_to_one_over_the_user_s_interests(tower, history_of):
    history = history_of(*ROWS)
    weights = tower.coefficients(tower.bilinear(history.sequence), history.is_item)
    sums = weights.sum(dim=1)
    torch.testing.assert_close(sums, history.is_item.float())
    is_used = tower.is_used(history.is_item)
    assert (weights.sum(dim=2)[~is_used] == 0).all()
    assert (weights.sum(dim=2)[is_used] > 0).all()


def test_number_of_interests_follows_the_length_of_the_history(tower, history_of):
    history = history_of([1], [1, 2, 3], [1, 2, 3, 4], list(range(8)), list(range(40)))
    assert tower.is_used(history.is_item).sum(dim=1).tolist() == [1, 1, 2, 3, 3]


def test_user_with_fewer_interests_repeats_the_first(tower, history_of):
    users = tower(history_of([1, 2, 3], list(range(8))), torch.zeros(2, 8))
    assert torch.equal(users[0], users[0, :1].expand(3, 8))
    assert not torch.allclose(users[1, 0], users[1, 1])


def test_one_round_weighs_by_the_first_logits_alone(config, history_of):
    torch.manual_seed(0)
    tower = UserTower(config.model_copy(update={"backbone": "mind", "n_routing_rounds": 1}))
    history = history_of(list(range(8)))
    weights = tower.coefficients(history.sequence, history.is_item)
    # The draw's column 0 is the newest item's.
    torch.testing.assert_close(weights[0].flip(1), tower.first_logits[:, :8].softmax(dim=0))


def test_a_further_round_adds_how_well_item_and_interest_agree(config, history_of):
    torch.manual_seed(0)
    tower = UserTower(config.model_copy(update={"backbone": "mind", "n_routing_rounds": 2}))
    history = history_of(list(range(8)))
    mapped = history.sequence
    logits = tower.first_logits[:, :8].flip(1)
    agreement = squash(logits.softmax(dim=0) @ mapped[0]) @ mapped[0].T
    expected = (logits + agreement).softmax(dim=0)
    torch.testing.assert_close(tower.coefficients(mapped, history.is_item)[0], expected)


def test_routing_finds_two_groups_of_items(tower):
    # Four items at one place and four at the opposite one: no interest mixes them half and half.
    direction = torch.nn.functional.normalize(torch.ones(8), dim=0) * 3
    mapped = torch.stack([direction] * 4 + [-direction] * 4).unsqueeze(0)
    tower.n_rounds = 5
    weights = tower.coefficients(mapped, torch.ones(1, 8, dtype=torch.bool))[0]
    best = weights.argmax(dim=0)
    assert len(set(best[:4].tolist()) & set(best[4:].tolist())) == 0


def test_first_draw_is_part_of_the_model(tower):
    assert "first_logits" in tower.state_dict()
