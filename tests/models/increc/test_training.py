import json
import re

import numpy as np
import pyarrow as pa
import pytest

from models.increc import backbones
from models.increc.config import TOWERS
from models.increc.epochs import NonFiniteLoss
from models.increc.model import TrainedModel
from models.increc.samples import NoSamples
from models.increc.start import CannotCarryOn, NoSuchDevice, find_device
from models.increc.training import train
from models.increc.vocabulary import VocabularyChanged


@pytest.mark.parametrize("backbone", backbones.names())
def test_base_tower_learns_the_planted_clusters(world, config, hit_rate_of, backbone):
    changed = config.model_copy(update={"backbone": backbone, "epochs": 12})
    model, _ = train(world.train, world.items, world.users, changed)
    # Retrieving the user's own and the next cluster by heart finds every target at K = 40 of 200.
    assert hit_rate_of(model, "rtg", 40) > 0.9
    assert hit_rate_of(model, "itg", 40) > 0.9


def test_shuffled_targets_leave_it_at_chance(world, config, hit_rate_of):
    order = np.random.default_rng(1).permutation(len(world.train))
    shuffled = world.train
    for name in ("rtg_item_ids", "itg_item_ids", "etg_item_ids"):
        at = shuffled.column_names.index(name)
        shuffled = shuffled.set_column(at, name, world.train[name].take(order))
    model, _ = train(shuffled, world.items, world.users, config)
    assert hit_rate_of(model, "itg", 40) < 0.3


@pytest.mark.parametrize("variant", ["IncRec-NA", "IncRec-ori", "IncRec"])
def test_incremental_tower_finds_more_incremental_targets_than_the_basic_one(
    world, config, hit_rate_of, variant
):
    model, _ = train(world.train, world.items, world.users, config.model_copy(update={"variant": variant}))
    assert hit_rate_of(model, "itg", 20) > hit_rate_of(model, "itg", 20, tower="basic") + 0.2
    assert hit_rate_of(model, "itg", 20) > 0.8


@pytest.mark.parametrize("variant", list(TOWERS))
def test_every_variant_reports_its_terms_going_down(world, config, variant):
    seen = []
    _, report = train(
        world.train, world.items, world.users, config.model_copy(update={"variant": variant, "epochs": 3}),
        on_epoch=lambda epoch, means: seen.append((epoch, means)),
    )  # fmt: skip
    assert set(report.epoch_losses) == {*TOWERS[variant], "total"}
    assert all(losses[0] > losses[-1] for losses in report.epoch_losses.values())
    assert len(report.step_losses["total"]) == report.n_steps == 3 * 12
    assert seen[2] == (3, {term: losses[2] for term, losses in report.epoch_losses.items()})
    parts = sum(np.array(report.step_losses[tower]) for tower in TOWERS[variant])
    np.testing.assert_allclose(report.step_losses["total"], parts, rtol=1e-5)


def test_day_pool_trains_too(world, config, hit_rate_of):
    changed = config.model_copy(update={"variant": "IncRec", "etg_pool": "day"})
    model, _ = train(world.train, world.items, world.users, changed)
    assert hit_rate_of(model, "itg", 20) > 0.8


@pytest.mark.parametrize("negatives", ["in_batch", "mixed"])
def test_log_q_corrected_negatives_learn_as_well(world, config, hit_rate_of, negatives):
    model, _ = train(
        world.train, world.items, world.users, config.model_copy(update={"negatives": negatives})
    )
    assert hit_rate_of(model, "rtg", 40) > 0.9


@pytest.mark.parametrize(
    ("backbone", "n_threads"), [*((name, 1) for name in backbones.names()), ("youtubednn", 2)]
)
def test_same_seed_gives_the_same_bytes(world, config, backbone, n_threads):
    config = config.model_copy(
        update={"variant": "IncRec", "backbone": backbone, "epochs": 2, "n_threads": n_threads, "n_recent": 3}
    )
    inputs = world.train.slice(0, 500), world.items, world.users
    # Not on cuda, where sums may differ in the last bits.
    first, first_report = train(*inputs, config, device="cpu")
    again, report = train(*inputs, config, device="cpu")
    assert first.to_bytes() == again.to_bytes()
    assert first_report.to_json() == report.to_json()
    other, _ = train(*inputs, config.model_copy(update={"seed": 1}), device="cpu")
    assert other.to_bytes() != first.to_bytes()


def test_only_the_declared_columns_are_read(world, config):
    config = config.model_copy(update={"epochs": 1})
    later = world.train.append_column("later_click_item_ids", world.train["itg_item_ids"])
    items = world.items.append_column("clicks_of_the_next_day", pa.array(range(len(world.items))))
    plain, _ = train(world.train, world.items, world.users, config)
    assert train(later, items, world.users, config)[0].to_bytes() == plain.to_bytes()


def test_carrying_on_keeps_old_rows_and_appends_new_ones(world, config, tables):
    item_table, _ = tables
    config = config.model_copy(
        update={"epochs": 2, "n_category_buckets": 16, "n_negatives": 5, "batch_size": 4}
    )
    first, _ = train(world.train, world.items, world.users, config)
    new = item_table([7000, 7001], first_index=201, category_ids=[0, 1])
    config = config.model_copy(update={"start": "carry_on", "epochs": 1})
    few = world.train.slice(0, 4)
    second, report = train(few, pa.concat_tables([world.items, new]), world.users, config, initial=first)
    before, after = (model.network.item_embedding.id.weight.detach().numpy() for model in (first, second))
    assert (len(before), len(after)) == (201, 203)
    assert second.known_item_ids[-2:].tolist() == [7000, 7001]
    assert (report.started_from, report.n_new_items) == ("carry_on", 2)
    is_kept = (before == after[:201]).all(axis=1)
    assert 0.6 < is_kept.mean() < 1
    sums = [model.accumulators["item_embedding.id.weight"].numpy() for model in (first, second)]
    assert (sums[1][:201] >= sums[0]).all()
    np.testing.assert_array_equal(sums[1][:201][is_kept], sums[0][is_kept])


def test_new_rows_that_no_sample_touched_start_from_zero(world, config, tables):
    item_table, _ = tables
    many = item_table(range(7000, 8000), first_index=201)
    config = config.model_copy(update={"epochs": 1, "n_negatives": 1})
    model, _ = train(world.train.slice(0, 10), pa.concat_tables([world.items, many]), world.users, config)
    weight = model.network.item_embedding.id.weight.detach().numpy()
    assert (weight[201:] == 0).all(axis=1).sum() >= 999


def test_items_of_which_nothing_is_known_do_not_stall_learning(world, config):
    # Uniform negatives that no sample has start from zero; a step on them must not swell AdaGrad's sums.
    config = config.model_copy(update={"epochs": 1, "n_negatives": 200})
    model, _ = train(world.train.slice(0, 10), world.items, world.users, config)
    assert model.accumulators["item_embedding.id.weight"].max() < 1e4


@pytest.mark.parametrize("backbone", backbones.names())
def test_carrying_on_goes_on_from_where_it_was(world, config, backbone):
    config = config.model_copy(update={"backbone": backbone})
    first, report = train(world.train, world.items, world.users, config)
    config = config.model_copy(update={"start": "carry_on", "epochs": 1})
    kept = TrainedModel.from_bytes(first.to_bytes())
    _, carried = train(world.train, world.items, world.users, config, initial=kept)
    assert carried.epoch_losses["total"][0] < 1.05 * report.epoch_losses["total"][-1]


def test_model_that_does_not_fit_is_not_carried_on(world, config):
    first, _ = train(
        world.train.slice(0, 50), world.items, world.users, config.model_copy(update={"epochs": 1})
    )
    carry_on = config.model_copy(update={"start": "carry_on"})
    for changed, message in (
        (config, "start is 'scratch'"),
        (carry_on.model_copy(update={"dim": 8}), "another dim 16 -> 8"),
        (carry_on.model_copy(update={"variant": "IncRec"}), "another variant TB-Online -> IncRec"),
        (carry_on.model_copy(update={"backbone": "mind"}), "another backbone youtubednn -> mind"),
        (carry_on.model_copy(update={"n_interests": 3}), "another n_interests 4 -> 3"),
    ):
        with pytest.raises(CannotCarryOn, match=message):
            train(world.train, world.items, world.users, changed, initial=first)
    with pytest.raises(CannotCarryOn, match="for serving"):
        train(world.train, world.items, world.users, carry_on, initial=first.for_serving())
    moved = (
        world.items.slice(1)
        .append_column("row", world.items["item_index"].slice(0, 199))
        .drop_columns("item_index")
    )
    with pytest.raises(VocabularyChanged):
        train(world.train, moved.rename_columns({"row": "item_index"}), world.users, carry_on, initial=first)


def test_no_samples_is_said_clearly(world, config):
    with pytest.raises(NoSamples, match="TB-Online has nothing to learn from"):
        train(world.train.slice(0, 0), world.items, world.users, config)
    with pytest.raises(NoSamples):
        train(world.train, world.items.slice(0, 0), world.users, config)


def test_absent_device_is_refused(world, config):
    with pytest.raises(NoSuchDevice, match="unknown device 'tpu'; known: auto, cpu, cuda"):
        train(world.train, world.items, world.users, config, device="tpu")


def test_diverged_training_names_term_epoch_and_step(world, config):
    config = config.model_copy(update={"start": "carry_on", "epochs": 1})
    first, _ = train(world.train.slice(0, 50), world.items, world.users, config)
    first.network.user_towers["basic"].mlp[0].weight.data[0] = float("nan")
    message = r"loss basic is nan at epoch 1, step 1 of 12, a batch of 128 requests: ([\d, ]+), \.\.\.; lower"
    with pytest.raises(NonFiniteLoss, match=message) as raised:
        train(world.train, world.items, world.users, config, initial=first)
    named = re.search(message, str(raised.value))[1].split(", ")
    order = np.random.default_rng([config.seed, 1]).permutation(len(world.train))
    assert [int(number) for number in named] == order[:5].tolist()


def test_weights_that_the_very_last_step_spoils_are_refused(world, config):
    config = config.model_copy(update={"start": "carry_on", "epochs": 1})
    few = world.train.slice(0, 50)
    first, _ = train(few, world.items, world.users, config)
    # The loss of the one step is finite; the root of a sum of squares below zero is not.
    first.accumulators["user_towers.basic.mlp.0.weight"].fill_(-1e9)
    message = r"user_towers.basic.mlp.0.weight is not finite after the last step; lower learning_rate \(0"
    with pytest.raises(NonFiniteLoss, match=message):
        train(few, world.items, world.users, config, initial=first)


def test_report_is_json_without_wall_clock(world, config):
    _, report = train(
        world.train.slice(0, 50), world.items, world.users, config.model_copy(update={"epochs": 1})
    )
    facts = json.loads(report.to_json())
    assert "seconds" not in facts
    assert (facts["n_samples"], facts["n_rtg"], facts["n_itg"]) == (50, 50, 50)
    assert facts["device"] == find_device("auto").type
