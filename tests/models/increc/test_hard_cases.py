"""What is defined where a group is empty, a pool is one item, a precision is lower, a state is smaller."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.increc import weights
from models.increc.batches import Batches
from models.increc.config import TOWERS
from models.increc.model import TrainedModel
from models.increc.objective import loss_terms, most_similar_of_day
from models.increc.samples import NoSamples, read_samples
from models.increc.start import CannotCarryOn, first_network
from models.increc.training import train
from models.increc.vocabulary import build_vocabulary
from models.increc.weights import CorruptModel

HISTORY, EMPTY = [[1], [2, 3], []], [[], [], []]
GROUPS = {"rtg": [[2], [], [4]], "itg": [[3], [4], [5]], "etg": [[5, 6], [1], []]}


@pytest.fixture
def batch_of(tables, config):
    """One batch of three samples, its network and its config: ``(variant, rtg, itg, etg)``."""
    item_table, sample_table = tables
    users = pa.table({"user_id": pa.array([], pa.int64()), "profile": pa.array([], pa.list_(pa.string()))})

    def make(variant, rtg, itg, etg, **changes):
        changed = config.model_copy(update={"variant": variant, "n_negatives": 4} | changes)
        vocabulary = build_vocabulary(item_table(range(1, 13)), changed)
        samples, _ = read_samples(sample_table(HISTORY, rtg, itg, etg), users, vocabulary, changed)
        torch.manual_seed(0)
        network = first_network(vocabulary, samples, changed, None)
        (batch,) = Batches(samples, vocabulary, np.arange(1, 13), changed).epoch(1)
        return network, batch, changed

    return make


@pytest.mark.parametrize("negatives", ["uniform", "in_batch", "mixed"])
@pytest.mark.parametrize("variant", ["TB-Online", "TB-boost", "IncRec-NA", "IncRec-ori", "IncRec"])
@pytest.mark.parametrize("absent", ["rtg", "etg"])
def test_batch_without_a_group_has_finite_terms_and_gradients(batch_of, variant, absent, negatives):
    network, batch, config = batch_of(
        variant, **(GROUPS | {absent: EMPTY}), negatives=negatives, n_category_buckets=8
    )
    terms = loss_terms(network, batch, config)
    assert all(torch.isfinite(term) for term in terms.values())
    if absent == "etg" and "alignment" in terms:
        assert terms["alignment"].item() == 0
    sum(terms.values()).backward()
    for parameter in network.parameters():
        values = parameter.grad._values() if parameter.grad.is_sparse else parameter.grad
        assert torch.isfinite(values).all()


def test_batch_without_itg_has_no_incremental_loss(batch_of):
    # IncRec refuses a window without ITG, but a batch of one may well have none.
    network, batch, config = batch_of("TB-Online", GROUPS["rtg"], EMPTY, GROUPS["etg"])
    assert len(batch.itg.item) == 0
    network, _, config = batch_of("IncRec", **GROUPS)
    terms = loss_terms(network, batch, config)
    assert terms["incremental"].item() == 0
    assert terms["basic"].item() > 0


@pytest.mark.parametrize("variant", [name for name, towers in TOWERS.items() if len(towers) > 1] + ["TB-ITG"])
def test_window_without_itg_is_refused_where_the_serving_tower_learns_from_it(batch_of, variant):
    with pytest.raises(NoSamples, match=f"{variant} has nothing to learn from"):
        batch_of(variant, GROUPS["rtg"], EMPTY, GROUPS["etg"])


@pytest.mark.parametrize("pool", ["batch", "day"])
def test_day_without_itg_is_learned_from_among_others(world, config, pool):
    lists = pa.array([[]] * 300, pa.list_(pa.int64()))
    none = world.train.slice(0, 300).set_column(5, "itg_item_ids", lists)
    assert none.column_names == world.train.column_names
    rest = world.train.slice(300, 300)
    days = [pa.array(["2026-01-02", "2026-01-03"][n] for n in (day,) * 300) for day in (0, 1)]
    both = pa.concat_tables(
        part.append_column("ds", day.cast(pa.date32())) for part, day in zip((none, rest), days, strict=True)
    )
    config = config.model_copy(update={"variant": "IncRec", "etg_pool": pool, "epochs": 3})
    _, report = train(both, world.items, world.users, config)
    assert report.n_itg == 300
    assert report.epoch_losses["incremental"][-1] < report.epoch_losses["incremental"][0]


def test_exposed_group_of_one_that_is_the_target_itself_leaves_alpha_at_one(batch_of):
    network, batch, config = batch_of("IncRec", EMPTY, [[3], [3], [3]], [[3], [], []])
    with_alpha = loss_terms(network, batch, config)
    without = loss_terms(network, batch, config.model_copy(update={"variant": "IncRec-NA"}))
    assert with_alpha["incremental"].item() == pytest.approx(without["incremental"].item(), rel=1e-6)
    network, batch, config = batch_of("IncRec", EMPTY, [[3], [3], [4]], [[3], [], []])
    alphas = loss_terms(network, batch, config)["incremental"].item()
    without = loss_terms(network, batch, config.model_copy(update={"variant": "IncRec-NA"}))
    # Only item 4 has a j; alone, its weight is the mean of one, so again 1.
    assert alphas == pytest.approx(without["incremental"].item(), rel=1e-6)


def test_days_pool_represents_the_items_of_the_samples_alone(batch_of, tables, config):
    item_table, sample_table = tables
    vocabulary = build_vocabulary(item_table(range(1, 10_001)), config)
    users = pa.table({"user_id": pa.array([], pa.int64()), "profile": pa.array([], pa.list_(pa.string()))})
    config = config.model_copy(update={"variant": "IncRec"})
    samples, _ = read_samples(sample_table(HISTORY, **GROUPS), users, vocabulary, config)
    asked = []
    most_similar_of_day(lambda rows: asked.extend(rows) or torch.zeros(len(rows), 2), samples)
    assert set(map(int, asked)) == {1, 3, 4, 5, 6}


@pytest.mark.parametrize("variant", ["TB-Online", "IncRec"])
def test_a_step_touches_the_rows_of_its_batch_alone(batch_of, variant):
    network, batch, config = batch_of(variant, **GROUPS, n_category_buckets=5000)
    sum(loss_terms(network, batch, config).values()).backward()
    for table, rows in (
        (network.item_embedding.id, batch.rows),
        (network.item_embedding.side, batch.side_rows),
        (network.profile_embedding, batch.profile_rows),
    ):
        assert table.weight.grad.is_sparse
        assert table.weight.grad._indices()[0].tolist() == rows.tolist()
        assert len(rows.unique()) == len(rows)


def test_bfloat16_learns_the_planted_world_with_float32_weights_and_sums(world, config, hit_rate_of):
    config = config.model_copy(update={"variant": "IncRec", "backbone": "dssm", "precision": "bfloat16"})
    model, report = train(world.train, world.items, world.users, config)
    assert hit_rate_of(model, "itg", 20) > 0.8
    kept = [*model.network.state_dict().values(), *model.accumulators.values()]
    assert {value.dtype for value in kept} == {torch.float32}
    assert train(world.train, world.items, world.users, config)[0].to_bytes() == model.to_bytes()
    full = config.model_copy(update={"precision": "float32"})
    other = train(world.train, world.items, world.users, full)[1].epoch_losses["total"]
    assert other != report.epoch_losses["total"]
    assert report.epoch_losses["total"] == pytest.approx(other, rel=0.05)


def test_row_wise_sums_learn_the_planted_world_and_take_a_row_each(world, config, hit_rate_of):
    config = config.model_copy(update={"optimizer_state": "row_wise"})
    model, _ = train(world.train, world.items, world.users, config)
    assert hit_rate_of(model, "rtg", 40) > 0.9
    assert model.accumulators["item_embedding.id.weight"].shape == (201, 1)
    again = TrainedModel.from_bytes(model.to_bytes())
    carry_on = config.model_copy(update={"start": "carry_on", "epochs": 1})
    carried, _ = train(world.train, world.items, world.users, carry_on, initial=again)
    sums = [m.accumulators["item_embedding.id.weight"] for m in (model, carried)]
    assert (sums[1] >= sums[0]).all()
    other = carry_on.model_copy(update={"optimizer_state": "element_wise"})
    with pytest.raises(CannotCarryOn, match="another optimizer_state row_wise -> element_wise"):
        train(world.train, world.items, world.users, other, initial=again)


def test_model_of_another_shape_names_each_tensor(world, config):
    model, _ = train(
        world.train.slice(0, 50), world.items, world.users, config.model_copy(update={"epochs": 1})
    )
    tensors, _ = weights.unpack(model.to_bytes())
    wider = weights.pack(tensors, config.model_copy(update={"hidden_dim": 64}))
    with pytest.raises(CorruptModel) as raised:
        TrainedModel.from_bytes(wider)
    assert str(raised.value) == (
        "the model's tensors do not fit its config: "
        "user_towers.basic.mlp.0.bias (32,) where it needs (64,); "
        "user_towers.basic.mlp.0.weight (32, 32) where it needs (64, 32); "
        "user_towers.basic.mlp.2.weight (16, 32) where it needs (16, 64); train it again"
    )
