"""The scorer: Eq. 8-12 by hand, fast scoring against the plain pass, and a planted world that it learns."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.increc.vocabulary import build_vocabulary
from models.increc.weights import CorruptModel
from models.pi2i import batches as batches_module
from models.pi2i import training as training_module
from models.pi2i.batches import Batches, NoSamples, Part, read_samples, share_of_triggers
from models.pi2i.candidates import N_CROSS
from models.pi2i.config import PI2IConfig
from models.pi2i.model import TrainedScorer
from models.pi2i.network import Normalised, Scorer, UserBlock, drop_inputs, sampled_loss
from models.pi2i.sampling import draw_samples
from models.pi2i.scoring import Candidates
from models.pi2i.training import NonFiniteLoss, differentiate, scored_block, train
from models.pi2i.trigger_index import COUNTS, N_STATISTICS, trigger_index

SMALL = {"dim": 16, "hidden_dim": 16, "n_heads": 2, "batch_size": 64, "epochs": 6, "learning_rate": 0.01}
ABLATIONS = [{}, {"triggers": "single"}, {"triggers": "none"}, {"attention": "self"}]
N_ITEMS = 60
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def config(**values) -> PI2IConfig:
    return PI2IConfig(**{**SMALL, **values})


def i2i_table() -> pa.Table:
    """Every item leads to the 20 after it, in a circle."""
    trigger = np.repeat(np.arange(N_ITEMS), 20)
    rank = np.tile(np.arange(1, 21), N_ITEMS)
    return pa.table(
        {
            "trigger_item_id": pa.array(trigger, pa.int64()),
            "target_item_id": pa.array((trigger + rank) % N_ITEMS, pa.int64()),
            "score": pa.array(np.full(len(rank), 0.5)),
            "rank": pa.array(np.tile(np.random.default_rng(1).permutation(20) + 1, N_ITEMS), pa.int32()),
            "n_common_users": pa.array(np.full(len(rank), 3), pa.int32()),
        }
    )


def items() -> pa.Table:
    ids = np.arange(N_ITEMS)
    return pa.table(
        {
            "item_id": pa.array(ids, pa.int64()),
            "item_index": pa.array(ids + 1, pa.int32()),
            "category_id": pa.array(ids % 7, pa.int64()),
            "author_id": pa.array(ids % 11, pa.int64()),
            "brand_id": pa.array([None] * N_ITEMS, pa.int64()),
            "price": pa.array([None] * N_ITEMS, pa.float32()),
        }
    )


def counts() -> pa.Table:
    ids = np.arange(N_ITEMS)
    return pa.table({"item_id": ids, **{name: ids % (n + 3) for n, name in enumerate(COUNTS)}})


def users(n: int) -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array(range(n), pa.int64()),
            "profile": pa.array([[f"side={user % 2}"] for user in range(n)], pa.list_(pa.string())),
        }
    )


def clicks(n: int, *, is_planted: bool, seed: int = 2) -> pa.Table:
    """
    Histories of four items. Planted: the next click is 3 behind the newest item, or 5 behind it on side 1.

    Else any item that the newest one leads to.
    """
    generator = np.random.default_rng(seed)
    histories = [generator.choice(N_ITEMS, 4, replace=False).tolist() for _ in range(n)]
    step = 3 + 2 * (np.arange(n) % 2) if is_planted else generator.integers(1, 21, n)
    item = [(history[-1] + int(by)) % N_ITEMS for history, by in zip(histories, step, strict=True)]
    return pa.table(
        {
            "user_id": pa.array(range(n), pa.int64()),
            "event_time": pa.array(range(n), pa.timestamp("us")),
            "item_id": pa.array(item, pa.int64()),
            "history_item_ids": pa.array(histories, pa.list_(pa.int64())),
        }
    )


def trained(cfg: PI2IConfig, *, is_planted: bool = True, n: int = 1500, device: str = "cpu") -> TrainedScorer:
    samples, _ = draw_samples(clicks(n, is_planted=is_planted), trigger_index(i2i_table()), cfg, seed=1)
    return train(samples, items(), users(n), cfg, device=device)[0]


def hit_rate(scorer: TrainedScorer, k: int, *, is_planted: bool = True) -> float:
    """Hit@k of users that training did not see (their profiles are alike)."""
    told = clicks(400, is_planted=is_planted, seed=9)
    found = scorer.retrieve(
        trigger_index(i2i_table()),
        items(),
        told["history_item_ids"],
        users(400)["profile"].combine_chunks(),
        k,
    )
    wanted, history = told["item_id"].to_numpy(), told["history_item_ids"].to_pylist()
    is_new = [item not in before for item, before in zip(wanted, history, strict=True)]
    return (found == wanted[:, None]).any(axis=1)[is_new].mean()


@pytest.fixture(scope="module")
def scorer() -> TrainedScorer:
    return trained(config())


@pytest.mark.parametrize("device", DEVICES)
def test_scorer_learns_what_follows_whom(device):
    assert hit_rate(trained(config(), device=device), 5) > 0.6
    assert hit_rate(trained(config(), is_planted=False, device=device), 5, is_planted=False) < 0.35


def test_fewer_triggers_lose_where_samples_are_few():
    hits = {
        triggers: np.mean(
            [hit_rate(trained(config(triggers=triggers, seed=seed), n=400), 3) for seed in range(3)]
        )
        for triggers in ("multiple", "single", "none")
    }
    assert hits["multiple"] > max(hits["single"], hits["none"]) + 0.03


@pytest.mark.parametrize("values", ABLATIONS)
def test_fast_scoring_equals_the_plain_pass(values):
    cfg = config(**values, sampling="sparse", epochs=1, batch_size=8)
    index = trigger_index(i2i_table(), item_statistics=counts())
    told = clicks(8, is_planted=True)
    samples, _ = draw_samples(told, index, cfg, seed=1)
    scorer, _ = train(samples, items(), users(8), cfg, device="cpu")
    batches = Batches(read_samples(samples, users(8), scorer.vocabulary, cfg), scorer.vocabulary, cfg)
    fast = scorer.catalogue_scorer(index, items(), np.arange(N_ITEMS))
    rows = samples.to_pylist()
    for place, row in enumerate(rows):
        one = Batches(_one(batches.samples, place), scorer.vocabulary, cfg).batch(
            Part(np.zeros(1, np.int64), seed=0)
        )
        with torch.inference_mode():
            plain = scorer.network(scored_block(scorer.network, one))[0]
        profile = fast.embed_profiles(batches.samples.profile.take(np.array([place])))[0]
        masks = np.array(row["trigger_masks"], np.uint64).reshape(-1, 2)
        cross = np.array(row["cross"], np.float32).reshape(len(masks), -1)
        codes = np.array(row["item_ids"], np.int32)
        triggers = np.array(row["trigger_item_ids"], np.int32)
        candidates = Candidates(codes, masks, cross)
        logits = fast.logits(profile, triggers, candidates)
        torch.testing.assert_close(torch.from_numpy(logits), plain, rtol=1e-4, atol=1e-4)
        assert np.array_equal(fast.logits(profile, triggers, candidates, n_threads=2), logits)


def _one(samples, place: int):
    at = slice(samples.items.offsets[place], samples.items.offsets[place + 1])
    rows = np.array([place])
    return type(samples)(
        samples.triggers.take(rows),
        samples.items.take(rows),
        samples.masks[at],
        samples.cross[at],
        samples.statistics[at],
        samples.log_q[at],
        samples.profile.take(rows),
    )


def test_logit_is_that_of_the_mlp_and_the_inner_product_after_the_softmax_of_the_scaled_product():
    torch.manual_seed(0)
    network = Scorer(config(n_heads=1), 5).eval()
    b, c, length, d = 1, 3, 2, 16
    block = UserBlock(
        torch.randn(b, length, d),
        torch.ones(b, length, dtype=torch.bool),
        torch.randn(b, d),
        torch.randn(b, c, d),
        torch.full((b, c, length), 0.5),
        torch.randn(b, c, N_CROSS),
        torch.randn(b, c, N_STATISTICS),
    )
    triggers = block.reached_by @ block.triggers
    pair = torch.cat([triggers, block.targets, block.statistics, block.cross], dim=-1)
    sequence = block.triggers + network.place.weight[:length]
    query, key, value = network.query(pair), network.key(sequence), network.value(sequence)
    attended = torch.softmax(query @ key.transpose(1, 2) / d**0.5, dim=-1) @ value
    profile = block.profile[:, None].expand(-1, c, -1)
    logits = network.logit(torch.cat([attended, profile, pair], dim=-1)).squeeze(-1)
    inner = torch.einsum(
        "bcd,bcd->bc", network.inner(torch.cat([attended, profile, triggers], -1)), block.targets
    )
    torch.testing.assert_close(network(block), logits + inner)


def test_features_are_normalised_and_what_never_varies_says_nothing():
    layer = Normalised(2)
    layer.fit(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    torch.testing.assert_close(layer(torch.tensor([[4.0, 9.0]])), torch.tensor([[2.0, 0.0]]))


def test_loss_is_the_corrected_softmax_of_the_positive():
    logits = torch.tensor([[1.0, 2.0, 9.0]])
    log_q = torch.log(torch.tensor([[0.5, 0.25, 1.0]]))
    loss = sampled_loss(logits, log_q, torch.tensor([[True, True, False]]))
    scores = np.array([np.e / 0.5, np.e**2 / 0.25])
    assert loss.item() == pytest.approx(-np.log(scores[0] / scores.sum()), rel=1e-6)


def test_single_trigger_has_one_of_those_that_reach():
    masks = np.array([[0b1011, 0], [0b100, 0]], np.uint64)
    shares = share_of_triggers(masks, 4, config(triggers="single"), np.random.default_rng(1))
    assert (shares.sum(axis=1) == 1).all()
    assert (shares.max(axis=1) == 1).all()
    assert shares[1].tolist() == [0, 0, 1, 0]
    assert shares[0, 2] == 0
    every = share_of_triggers(masks, 4, config(), np.random.default_rng(1))
    np.testing.assert_allclose(every, [[1 / 3, 1 / 3, 0, 1 / 3], [0, 0, 1, 0]])


def test_the_same_inputs_give_the_same_bytes(scorer):
    again = trained(config())
    assert again.to_bytes() == scorer.to_bytes()
    assert trained(config(seed=1)).to_bytes() != scorer.to_bytes()


@pytest.mark.parametrize("values", ABLATIONS)
def test_threads_do_not_change_what_is_learned(values, monkeypatch):
    monkeypatch.setattr(batches_module, "PART", 20)
    one, three = (
        trained(config(**values, epochs=2, n_threads=n), n=300).network.state_dict() for n in (1, 3)
    )
    assert all(torch.equal(one[name], three[name]) for name in one)
    # Scorers of earlier releases have these names.
    assert one.keys() >= {"logit.1.weight", "logit.4.weight", "inner.1.weight"}


@pytest.mark.parametrize("values", [{}, {"triggers": "none"}, {"attention": "self"}])
def test_a_step_has_the_gradient_of_its_mean_loss_however_it_is_cut(values, monkeypatch):
    cfg = config(**values, dropout=0.0, batch_size=300)
    index = trigger_index(i2i_table(), item_statistics=counts())
    told = clicks(300, is_planted=True)
    lengths = np.random.default_rng(3).integers(1, 5, 300)
    histories = [each[-n:] for each, n in zip(told["history_item_ids"].to_pylist(), lengths, strict=True)]
    told = told.set_column(3, "history_item_ids", pa.array(histories, pa.list_(pa.int64())))
    samples, _ = draw_samples(told, index, cfg, seed=1)
    network, vocabulary = trained(cfg, n=300).network, build_vocabulary(items(), cfg)
    batches = Batches(read_samples(samples, users(300), vocabulary, cfg), vocabulary, cfg)
    gradients, losses = {}, {}
    for part in (300, 7):
        monkeypatch.setattr(batches_module, "PART", part)
        (parts,) = batches.epoch(1)
        n_triggers = [n for each in parts for n in batches.batch(each).is_trigger.sum(1).tolist()]
        assert n_triggers == sorted(n_triggers, reverse=True)
        assert len(set(n_triggers)) == 4
        losses[part] = differentiate(network, batches, parts, torch.device("cpu"))
        gradients[part] = {
            name: value.grad.to_dense()
            for name, value in network.named_parameters()
            if value.grad is not None
        }
    batch = batches.batch(Part(np.arange(len(samples)), seed=0))
    loss = sampled_loss(network(scored_block(network, batch)), batch.log_q, batch.is_item)
    assert losses == pytest.approx({300: loss.item(), 7: loss.item()}, rel=1e-5)
    assert gradients[7].keys() == gradients[300].keys() >= {"item_embedding.id.weight", "logit.1.weight"}
    for name, gradient in gradients[7].items():
        torch.testing.assert_close(gradient, gradients[300][name], rtol=1e-3, atol=1e-6)


def test_dropout_drops_its_share_and_keeps_the_mean():
    x = torch.ones(20_000, 8)
    first, again, other = (drop_inputs(x, 0.25, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert sorted(first.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    assert len(first.unique(dim=0)) > 100
    assert drop_inputs(x, 0.25, None) is x
    assert drop_inputs(x, 0.0, torch.Generator()) is x


def test_bytes_give_the_same_model_and_damaged_ones_are_refused(scorer):
    content = scorer.to_bytes()
    assert TrainedScorer.from_bytes(content).to_bytes() == content
    with pytest.raises(CorruptModel):
        TrainedScorer.from_bytes(content[:-8] + bytes(8))
    with pytest.raises(CorruptModel, match="no pi2i model"):
        TrainedScorer.from_bytes(b"x" * 100)


def test_lists_are_equal_whatever_the_threads_and_hold_no_history(scorer):
    told = clicks(50, is_planted=True, seed=4)
    arguments = (trigger_index(i2i_table()), items(), told["history_item_ids"], None, 30)
    one, two = (scorer.retrieve(*arguments, n_threads=n) for n in (1, 2))
    assert (one == two).all()
    for found, history in zip(one, told["history_item_ids"].to_pylist(), strict=True):
        assert not set(found) & set(history)
        kept = found[found >= 0]
        assert len(set(kept)) == len(kept)


def test_user_without_history_gets_nothing_and_a_new_item_can_be_retrieved(scorer):
    histories = pa.array([[], [0]], pa.list_(pa.int64()))
    table = i2i_table()
    new = pa.table({**{name: table[name] for name in table.column_names}}).slice(0, 1)
    new = new.set_column(1, "target_item_id", pa.array([999], pa.int64()))
    row = items().slice(0, 1).set_column(0, "item_id", pa.array([999], pa.int64()))
    found = scorer.retrieve(trigger_index(new), pa.concat_tables([items(), row]), histories, None, 3)
    assert found.tolist() == [[-1, -1, -1], [999, -1, -1]]


def test_trigger_that_is_not_available_any_more_keeps_what_was_learned_of_it(scorer):
    ids = np.array([5, 6])
    whole, left = (
        scorer.catalogue_scorer(trigger_index(i2i_table()), table, ids).triggers
        for table in (items(), items().filter(pa.array(np.arange(N_ITEMS) != 5)))
    )
    assert torch.equal(left, whole)


def test_nothing_to_learn_from_is_refused():
    samples, _ = draw_samples(clicks(5, is_planted=True), trigger_index(i2i_table()), config(), seed=1)
    with pytest.raises(NoSamples, match="no click of the window"):
        train(samples.slice(0, 0), items(), users(5), config(), device="cpu")


@pytest.mark.filterwarnings("ignore:invalid value")
def test_diverging_training_stops_and_names_the_step():
    samples, _ = draw_samples(clicks(200, is_planted=True), trigger_index(i2i_table()), config(), seed=1)
    cross = samples.schema.get_field_index("cross")
    values = samples["cross"].combine_chunks()
    broken = np.array(values.flatten())
    broken[0] = np.inf
    lists = pa.ListArray.from_arrays(values.offsets, pa.array(broken))
    with pytest.raises(NonFiniteLoss, match="epoch 1, step 1 of 3"):
        train(samples.set_column(cross, "cross", lists), items(), users(200), config(), device="cpu")


def test_a_last_step_that_spoils_a_weight_is_refused(monkeypatch):
    def spoil(network, *arguments):
        losses = train_epoch(network, *arguments)
        network.key.weight.data[0, 0] = np.inf
        return losses

    train_epoch = training_module._train_epoch
    monkeypatch.setattr(training_module, "_train_epoch", spoil)
    with pytest.raises(NonFiniteLoss, match="weight is not finite after the last step; lower"):
        trained(config(epochs=1), n=100)
