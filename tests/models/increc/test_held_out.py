import numpy as np
import pyarrow as pa
import pytest

from models.increc.held_out import split_users
from models.increc.samples import NoSamples
from models.increc.training import train


def held_out(config, **changes):
    return config.model_copy(update={"validation_share": 0.25, "patience": 2} | changes)


def test_users_are_on_one_side_and_on_the_same_side_every_day(config):
    users = pa.table({"user_id": pa.array(np.repeat(np.arange(2000), 3))})
    learned, kept = split_users(users, held_out(config))
    sides = [set(part["user_id"].to_pylist()) for part in (learned, kept)]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == pytest.approx(500, abs=75)
    _, next_day = split_users(users.slice(0, 900), held_out(config))
    assert set(next_day["user_id"].to_pylist()) == {user for user in sides[1] if user < 300}
    _, reseeded = split_users(users, held_out(config, seed=1))
    assert set(reseeded["user_id"].to_pylist()) != sides[1]
    assert split_users(users, config) == (users, None)


def test_an_empty_side_is_refused(config):
    one = pa.table({"user_id": pa.array([1, 1])})
    with pytest.raises(NoSamples, match=r"validation_share 0.001 holds out 0 of 2 samples; change it"):
        split_users(one, held_out(config, validation_share=0.001))


def test_held_out_samples_without_a_positive_are_one_clear_line(world, config):
    config = held_out(config, variant="TB-Online")
    _, left_out = split_users(world.train, config)
    names = ["rtg_item_ids", "itg_item_ids"]
    is_left_out = np.isin(world.train["user_id"], left_out["user_id"])
    samples = world.train
    for name in names:
        lists = [
            [] if out else items for out, items in zip(is_left_out, samples[name].to_pylist(), strict=True)
        ]
        column = pa.array(lists, samples.schema.field(name).type)
        samples = samples.set_column(samples.column_names.index(name), name, column)
    message = (
        rf"held-out loss on: validation_share 0.25 holds out {len(left_out)} samples, none with a positive"
    )
    with pytest.raises(NoSamples, match=message):
        train(samples, world.items, world.users, config)


def test_training_stops_and_keeps_the_best_epoch(world, config):
    # Few samples and a high rate: the held-out loss soon rises while the training loss goes on falling.
    few = world.train.slice(0, 150)
    config = held_out(config, epochs=40, learning_rate=0.3, batch_size=32)
    model, report = train(few, world.items, world.users, config)
    losses = report.held_out_losses
    assert 1 < len(losses) < 40
    assert report.best_epoch == 1 + int(np.argmin(losses)) == len(losses) - 2
    assert report.n_samples + report.n_held_out_samples == 150
    assert len(report.epoch_losses["total"]) == len(losses)
    assert report.n_steps == len(report.step_losses["total"])
    stopped = config.model_copy(update={"epochs": report.best_epoch})
    best, _ = train(few, world.items, world.users, stopped)
    weights = [m.network.state_dict() for m in (model, best)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert all((model.accumulators[name] == best.accumulators[name]).all() for name in best.accumulators)


@pytest.mark.parametrize("variant", ["TB-Online", "IncRec"])
def test_held_out_loss_falls_on_the_planted_world_and_is_the_serving_towers(world, config, variant):
    config = held_out(config, variant=variant, epochs=4, etg_pool="day")
    _, report = train(world.train, world.items, world.users, config)
    assert report.held_out_losses == sorted(report.held_out_losses, reverse=True)
    last = report.epoch_losses[config.serving_tower][-1]
    assert report.held_out_losses[-1] == pytest.approx(last, rel=0.5)
