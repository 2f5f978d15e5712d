import pytest
import torch

from models.increc.backbones.kuaiformer import SwiGLU, UserTower


@pytest.fixture
def tower(config):
    """Four recent items apart, older ones in groups of three."""
    torch.manual_seed(0)
    return UserTower(config.model_copy(update={"backbone": "kuaiformer"})).eval()


def test_recent_items_stay_apart_and_older_ones_become_a_token_a_group(tower, history_of):
    history = history_of(list(range(1, 13)))
    tokens, is_token = tower.compress(history.sequence, history.is_item)
    # 8 older items: groups of 3, 3 and, the oldest, 2.
    assert tokens.shape == (1, 3 + 4, 8)
    assert is_token.all()
    assert torch.equal(tokens[:, 3:], history.sequence[:, -4:])


def test_short_history_is_not_compressed(tower, history_of):
    history = history_of([1, 2, 3, 4], [5])
    tokens, is_token = tower.compress(history.sequence, history.is_item)
    assert torch.equal(tokens, history.sequence)
    assert torch.equal(is_token, history.is_item)


def test_groups_without_items_are_no_tokens(tower, history_of):
    history = history_of(list(range(1, 13)), [1, 2, 3, 4, 5])
    _, is_token = tower.compress(history.sequence, history.is_item)
    assert is_token[1].tolist() == [False, False, True, True, True, True, True]


def test_a_token_is_made_of_its_own_group(tower, history_of):
    one, other = history_of(list(range(1, 13))), history_of([*range(1, 8), 40, *range(9, 13)])
    before, after = (tower.compress(history.sequence, history.is_item)[0] for history in (one, other))
    is_same = torch.isclose(before, after, atol=1e-6).all(dim=-1)[0]
    assert is_same.tolist() == [True, True, False, True, True, True, True]


def test_a_token_is_the_mean_of_what_the_layer_gives_for_the_group(tower, history_of):
    history = history_of(list(range(1, 13)))
    tokens, _ = tower.compress(history.sequence, history.is_item)
    group = history.sequence[:, 5:8]
    expected = tower.compressor(group, torch.ones(1, 3, 3, dtype=torch.bool)).mean(dim=1)
    torch.testing.assert_close(tokens[:, 2], expected)


def test_query_tokens_give_different_interests_that_all_see_the_whole_history(tower, history_of):
    users = tower(history_of(list(range(1, 13)), [30, *range(2, 13)]), torch.zeros(2, 8))
    for interest in range(3):
        assert not torch.allclose(users[0, interest], users[1, interest], atol=1e-5)
    assert not torch.allclose(users[0, 0], users[0, 1], atol=1e-4)


def test_feed_forward_is_swiglu(config):
    torch.manual_seed(0)
    network, hidden = SwiGLU(config), torch.randn(2, 8)
    gate, value = network.gate_value.weight.split(16)
    expected = (
        torch.sigmoid(hidden @ gate.T) * (hidden @ gate.T) * (hidden @ value.T)
    ) @ network.out.weight.T
    torch.testing.assert_close(network(hidden), expected)
