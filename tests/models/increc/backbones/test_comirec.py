import pytest
import torch

from models.increc.backbones.comirec import UserTower
from models.increc.item_tower import History


@pytest.fixture
def tower(config):
    torch.manual_seed(0)
    return UserTower(config.model_copy(update={"backbone": "comirec"}))


def test_weights_are_shares_of_the_items_of_each_interest(tower, history_of):
    weights = tower.weights(history_of([1, 2, 3, 4], [5, 6]))
    assert weights.shape == (6, 3)
    assert (weights > 0).all()
    torch.testing.assert_close(weights[:4].sum(dim=0), torch.ones(3))
    torch.testing.assert_close(weights[4:].sum(dim=0), torch.ones(3))


def test_users_and_gradients_are_those_of_padded_histories(tower, history_of):
    profile, results = torch.randn(3, 8), []
    for forward in (tower, lambda history, profile: padded(tower, history, profile)):
        history = history_of([1, 2, 2, 4], [5], [6, 1, 3])
        sources = [history.embedded, history.tables]
        sources = [source.detach().clone().requires_grad_() for source in sources]
        history = History(sources[0], history.index, history.offsets, sources[1], history.carried)
        tower.zero_grad()
        users = forward(history, profile)
        users.sin().sum().backward()
        gradients = [value.grad.clone() for value in (*sources, *tower.parameters())]
        results.append((users.detach(), *gradients))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def padded(tower, history, profile):
    """Do as the paper writes it: A = softmax(W2 tanh(W1 (H + P))), A H, over padded histories."""
    logits = tower.w2(tower.w1(history.sequence).tanh())
    weights = logits.masked_fill(~history.is_item.unsqueeze(-1), float("-inf")).softmax(dim=1).mT
    interests = weights @ history.pad(history.embedded[history.index])
    found = torch.cat([interests, profile.unsqueeze(1).expand_as(interests)], dim=-1)
    return interests + tower.head.mlp(found)


def test_interests_are_averages_of_items_without_their_places(tower, history_of):
    # With a head that adds nothing, users are A H: items that are all the same give just that item.
    torch.nn.init.zeros_(tower.head.mlp[-1].weight)
    torch.nn.init.zeros_(tower.head.mlp[-1].bias)
    history = history_of([7, 7, 7], [1, 2, 3])
    users = tower(history, torch.zeros(2, 8))
    torch.testing.assert_close(users[0], history.embedded[[7, 7, 7]])
    corners = history.embedded[[1, 2, 3]]
    assert (users[1] <= corners.amax(dim=0) + 1e-6).all()
    assert (users[1] >= corners.amin(dim=0) - 1e-6).all()


def test_pooling_by_hand(tower):
    # W1 = W2 = a single path: the logit of item x in interest 0 is tanh(x_0), in the others 0.
    with torch.no_grad():
        tower.w1.weight.zero_()
        tower.w2.weight.zero_()
        tower.w1.weight[0, 0] = tower.w2.weight[0, 0] = 1
    embedded = torch.zeros(2, 8)
    embedded[0, 0] = 1
    nothing = torch.zeros(1, 8), torch.zeros(2, 1, dtype=torch.int64)
    history = History(embedded, torch.tensor([0, 1]), torch.tensor([0, 2]), *nothing)
    share = torch.tensor(1.0).tanh().sigmoid().item()
    expected = [[share, 1 - share], [0.5, 0.5], [0.5, 0.5]]
    torch.testing.assert_close(tower.weights(history).mT, torch.tensor(expected))
