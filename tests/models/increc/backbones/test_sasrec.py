import math

import pytest
import torch

from models.increc.backbones.sasrec import UserTower
from models.increc.blocks import Attention, causal_mask


@pytest.fixture
def tower(config):
    torch.manual_seed(0)
    return UserTower(config.model_copy(update={"backbone": "sasrec"})).eval()


def test_later_item_never_changes_an_earlier_place(tower, history_of):
    one, other = history_of([1, 2, 3, 4, 5]), history_of([1, 2, 3, 9, 8])
    before = tower.encode(one.sequence, one.is_item)
    after = tower.encode(other.sequence, other.is_item)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.isclose(before[:, 3:], after[:, 3:]).all(dim=-1).any()


def test_earlier_item_changes_every_later_place(tower, history_of):
    one, other = history_of([1, 2, 3, 4, 5]), history_of([1, 9, 3, 4, 5])
    before, after = (tower.encode(history.sequence, history.is_item) for history in (one, other))
    assert torch.isclose(before, after).all(dim=-1).tolist() == [[True, False, False, False, False]]


def test_last_place_alone_is_what_the_whole_sequence_gives_there(tower, history_of):
    history = history_of([1, 2, 3, 4, 5], [6, 7])
    whole = tower.encode(history.sequence, history.is_item)
    last = tower.encode(history.sequence, history.is_item, n_last=1)
    torch.testing.assert_close(last, whole[:, -1:])


@torch.no_grad()
def test_attention_is_the_scaled_softmax_of_its_heads(config):
    torch.manual_seed(0)
    attention = Attention(config).eval()
    sequence = torch.randn(1, 3, 8)
    found = attention(sequence, sequence, torch.ones(1, 3, 3, dtype=torch.bool).tril())
    # By hand: the newest place of two heads of width 4; a head's keys and values lie side by side.
    query, keys_values = attention.query(sequence)[0, 2], attention.key_value(sequence)[0]
    expected = []
    for head in range(2):
        keys, values = keys_values[:, 8 * head : 8 * head + 8].split(4, dim=-1)
        scores = [float(query[4 * head : 4 * head + 4] @ keys[place]) / 2 for place in range(3)]
        weights = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
        expected.append(sum(weight * row for weight, row in zip(weights, values, strict=True)))
    torch.testing.assert_close(found[0, 2], attention.out(torch.cat(expected)), rtol=1e-4, atol=1e-5)


def test_places_see_the_items_up_to_themselves_and_padding_itself():
    is_item = torch.tensor([[False, True, True]])
    assert causal_mask(is_item)[0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
