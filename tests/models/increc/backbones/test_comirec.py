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
    assert weights.shape == (2, 3, 4)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 3))
    assert (weights[1, :, :2] == 0).all()
    assert (weights[1, :, 2:] > 0).all()


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
    history = History(embedded, torch.tensor([0, 1]), torch.tensor([0, 2]), torch.zeros(2, 8))
    share = torch.tensor(1.0).tanh().sigmoid().item()
    expected = [[share, 1 - share], [0.5, 0.5], [0.5, 0.5]]
    torch.testing.assert_close(tower.weights(history)[0], torch.tensor(expected))
