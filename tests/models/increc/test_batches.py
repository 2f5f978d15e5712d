import numpy as np
import pyarrow as pa
import pytest

from models.increc.batches import Batches
from models.increc.samples import read_samples
from models.increc.vocabulary import build_vocabulary

NO_USERS = pa.table({"user_id": pa.array([], pa.int64()), "profile": pa.array([], pa.list_(pa.string()))})


@pytest.fixture
def batches_of(tables, config):
    item_table, sample_table = tables

    def make(*columns, n_items: int = 6, **changes) -> Batches:
        changed = config.model_copy(update={"variant": "IncRec", "batch_size": 2, "n_negatives": 3} | changes)
        vocabulary = build_vocabulary(item_table(range(1, n_items + 1)), changed)
        samples, _ = read_samples(sample_table(*columns), NO_USERS, vocabulary, changed)
        return Batches(samples, vocabulary, np.arange(1, n_items + 1), changed)

    return make


COLUMNS = ([[1], [2, 3], []], [[2], [], [4]], [[3], [4], [5]], [[5, 6], [1], []])


def test_an_epoch_has_every_sample_once(batches_of):
    found = []
    for batch in batches_of(*COLUMNS).epoch(1):
        found += batch.rows[batch.itg.item].tolist()
    assert sorted(found) == [3, 4, 5]


def test_batch_points_into_its_distinct_items(batches_of):
    batches = batches_of(*COLUMNS, batch_size=3)
    (batch,) = batches.epoch(1)
    rows = batch.rows.numpy()
    assert len(set(rows.tolist())) == len(rows)
    history = np.split(rows[batch.history_index.numpy()], batch.history_offsets.numpy()[1:-1])
    groups = [
        [rows[group.item.numpy()[group.owner.numpy() == sample]].tolist() for sample in range(3)]
        for group in (batch.rtg, batch.itg, batch.etg)
    ]
    got = sorted(zip([part.tolist() for part in history], *groups, strict=True))
    assert got == sorted([([1], [2], [3], [5, 6]), ([2, 3], [], [4], [1]), ([0], [4], [5], [])])


def test_negatives_are_distinct_candidates_and_hits_are_found(batches_of):
    batches = batches_of(*COLUMNS, batch_size=3, n_negatives=100)
    (batch,) = batches.epoch(1)
    rows = batch.rows.numpy()
    negatives = rows[batch.negatives.numpy()]
    assert sorted(negatives.tolist()) == [1, 2, 3, 4, 5, 6]
    positives = {
        (int(owner), int(rows[item]))
        for group in (batch.rtg, batch.itg)
        for owner, item in zip(group.owner, group.item, strict=True)
    }
    hits = {(int(owner), int(negatives[column])) for owner, column in batch.click_hits.T}
    assert hits == positives
    assert batch.exposure_hits.shape == (2, 3)


def test_scored_items_come_first(batches_of):
    for batch in batches_of(*COLUMNS).epoch(1):
        scored = [batch.rtg.item, batch.itg.item, batch.etg.item, batch.negatives]
        assert max(int(item.max()) for item in scored if len(item)) < batch.n_scored


def test_order_and_negatives_follow_from_seed_and_epoch(batches_of):
    def drawn(epoch, **changes):
        batches = batches_of(*COLUMNS, n_items=50, **changes).epoch(epoch)
        return [batch.rows[batch.negatives].tolist() for batch in batches]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(1) != drawn(1, seed=1)


def test_uniform_negatives_have_equal_weight(batches_of):
    (batch, *_) = batches_of(*COLUMNS).epoch(1)
    assert batch.log_weight.tolist() == [0, 0, 0]


@pytest.mark.parametrize("negatives", ["in_batch", "mixed"])
def test_log_q_weights_estimate_what_uniform_negatives_estimate(batches_of, negatives):
    # Item 2 is a target nine times as often as item 3; corrected, each item's total weight over many
    # batches is the same share of the pool.
    n, n_draws = 4000, {"in_batch": 16, "mixed": 4 + 8}[negatives]
    columns = [[1]] * n, [[2 if sample % 10 else 3] for sample in range(n)], [[]] * n, [[]] * n
    changes = {"variant": "TB-Online", "batch_size": 20, "n_negatives": 16, "negatives": negatives}
    batches = batches_of(*columns, n_items=4, **changes)
    totals = np.zeros(5)
    for batch in batches.epoch(1):
        totals[batch.rows[batch.negatives].numpy()] += np.exp(batch.log_weight.numpy())
    per_draw = totals / (batches.n_steps * n_draws)
    assert per_draw[2:4] == pytest.approx([1 / 4, 1 / 4], rel=0.1)


@pytest.mark.parametrize("negatives", ["uniform", "in_batch", "mixed"])
def test_each_items_expected_weight_is_its_share_of_the_pool(batches_of, negatives):
    # Over many batches, sum of the weights of item i / draws -> 1 / I for every i that can be drawn, however
    # popular: by brute force, with popularities of 1 to 32.
    n, pool = 6000, 6
    generator = np.random.default_rng(0)
    share = 2.0 ** np.arange(pool) / (2**pool - 1)
    drawn = generator.choice(pool, (n, 2), p=share) + 1
    columns = [[1]] * n, drawn[:, :1].tolist(), drawn[:, 1:].tolist(), [[]] * n
    changes = {"variant": "TB-Online", "batch_size": 12, "n_negatives": 4, "negatives": negatives}
    batches = batches_of(*columns, n_items=pool, **changes)
    totals = np.zeros((batches.n_steps, pool + 1))
    for step, batch in enumerate(batches.epoch(1)):
        totals[step, batch.rows[batch.negatives].numpy()] = np.exp(batch.log_weight.numpy())
    per_draw = totals[:, 1:].mean(axis=0) / 4
    error = totals[:, 1:].std(axis=0) / 4 / batches.n_steps**0.5
    assert (np.abs(per_draw - 1 / pool) < 4 * error).all()
    assert error.max() < 0.1 / pool or negatives == "in_batch"


@pytest.mark.parametrize(("variant", "drawn"), [("TB-Online", {2, 3, 4, 5}), ("IncRec", {1, 2, 3, 4, 5, 6})])
def test_in_batch_negatives_are_the_positives_of_all_trained_towers(batches_of, variant, drawn):
    changes = {"variant": variant, "batch_size": 3, "n_negatives": 100, "negatives": "in_batch"}
    (batch,) = batches_of(*COLUMNS, **changes).epoch(1)
    assert set(batch.rows[batch.negatives].tolist()) == drawn


def test_similar_items_of_the_day_travel_with_their_targets(batches_of):
    batches = batches_of(*COLUMNS, batch_size=3)
    similar = np.where(batches.samples.itg.values == 4, 0, batches.samples.itg.values + 1)
    (batch,) = batches.epoch(1, similar)
    rows = batch.rows.numpy()
    got = {
        int(rows[item]): int(rows[j]) if j >= 0 else None
        for item, j in zip(batch.itg.item, batch.similar, strict=True)
    }
    assert got == {3: 4, 4: None, 5: 6}
