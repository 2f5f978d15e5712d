"""What holds for every backbone, whatever it does inside."""

import pytest
import torch
from pydantic import ValidationError

from models.increc import backbones
from models.increc.config import IncRecConfig

MULTI_INTEREST = {"comirec", "kuaiformer", "mind"}
LONG = list(range(1, 16))


@pytest.fixture(params=backbones.names())
def name(request) -> str:
    return request.param


def tower(name: str, config) -> torch.nn.Module:
    torch.manual_seed(0)
    return backbones.load(name).UserTower(config.model_copy(update={"backbone": name})).eval()


def test_users_have_one_vector_for_each_interest(name, config, history_of):
    users = tower(name, config)(history_of([1], LONG, [0]), torch.zeros(3, 8))
    assert users.shape == (3, 3 if name in MULTI_INTEREST else 1, 8)
    assert torch.isfinite(users).all()


def test_padding_never_changes_a_result(name, config, history_of):
    rows = [[4, 2, 9], LONG, [7], [1, 2, 3, 4, 5, 6]]
    profile = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    user_tower = tower(name, config)
    together = user_tower(history_of(*rows), profile)
    for row, (items, expected) in enumerate(zip(rows, together, strict=True)):
        alone = user_tower(history_of(items), profile[row : row + 1])[0]
        torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)


def test_order_matters_where_the_sequence_is_read(name, config, history_of):
    user_tower = tower(name, config)
    one, other = user_tower(history_of([1, 2, 3, 4], [2, 1, 3, 4]), torch.zeros(2, 8))
    assert torch.allclose(one, other, atol=1e-5) != backbones.load(name).READS_SEQUENCE


@pytest.mark.parametrize("backbone", ["kuaiformer", "sasrec"])
def test_attention_sees_the_order_by_its_places_alone(backbone, config, history_of):
    # The newest item is the same, so causality tells nothing apart; n_layers = 1 keeps it that way.
    user_tower = tower(backbone, config.model_copy(update={"n_layers": 1}))
    history = history_of([1, 2, 3, 4], [2, 1, 3, 4], with_context=False)
    one, other = user_tower(history, torch.zeros(2, 8))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_profile_counts(name, config, history_of):
    users = tower(name, config)(history_of([1, 2], [1, 2]), torch.eye(2, 8))
    assert not torch.allclose(users[0], users[1], atol=1e-4)


def test_every_parameter_learns(name, config, history_of):
    user_tower = tower(name, config)
    rows = [LONG, LONG[::-1], LONG[3:]]
    users = user_tower(history_of(*rows), torch.ones(3, 8))
    (users * torch.randn(users.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for parameter_name, parameter in user_tower.named_parameters():
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_every_config_that_is_accepted_can_be_built(name, history_of):
    try:
        config = IncRecConfig(backbone=name, dim=8, n_heads=3)
    except ValidationError:
        assert name in backbones.WITH_HEADS
    else:
        assert tower(name, config)(history_of([1, 2]), torch.zeros(1, 8)).shape[-1] == 8


@pytest.mark.parametrize("backbone", ["kuaiformer", "sasrec"])
def test_dropout_acts_in_training_only_and_follows_the_seed(backbone, config, history_of):
    user_tower = tower(backbone, config.model_copy(update={"dropout": 0.5}))
    history, profile = history_of(LONG, LONG), torch.zeros(2, 8)
    first, second = user_tower(history, profile)
    torch.testing.assert_close(first, second)
    user_tower.train()
    torch.manual_seed(3)
    dropped = user_tower(history, profile)
    assert not torch.allclose(dropped[0], dropped[1])
    torch.manual_seed(3)
    assert torch.equal(user_tower(history, profile), dropped)
