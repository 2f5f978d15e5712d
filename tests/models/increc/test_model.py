import numpy as np
import pyarrow as pa
import pytest
import torch

from models.increc.config import IncRecConfig
from models.increc.features import MissingColumn
from models.increc.model import BLOCK, CorruptModel, TrainedModel, UnknownTower
from models.increc.training import train

IDS = pa.list_(pa.int64())


@pytest.fixture(scope="module")
def model(world):
    """A model with categories and profiles."""
    config = IncRecConfig(
        variant="IncRec",
        dim=16,
        hidden_dim=32,
        n_negatives=50,
        batch_size=128,
        epochs=6,
        history_length=3,
        n_category_buckets=64,
        n_author_buckets=0,
        n_brand_buckets=0,
        n_profile_buckets=16,
        n_threads=1,
    )
    return train(world.train, world.items, world.users, config)[0]


def test_bytes_round_trip(model, world):
    again = TrainedModel.from_bytes(model.to_bytes())
    assert again.to_bytes() == model.to_bytes()
    assert again.config == model.config
    np.testing.assert_array_equal(again.embed_items(world.items), model.embed_items(world.items))


def test_files_round_trip_and_belong_together(model):
    files = model.to_files()
    assert sorted(files) == ["config.json", "model.safetensors"]
    assert TrainedModel.from_files(files).to_files() == files
    with pytest.raises(CorruptModel, match=r"config.json is not the config"):
        TrainedModel.from_files(files | {"config.json": files["config.json"].replace(b"IncRec", b"TB-ITG")})
    with pytest.raises(CorruptModel, match=r"lacks config.json"):
        TrainedModel.from_files({"model.safetensors": files["model.safetensors"]})


def test_damaged_bytes_are_refused(model):
    content = model.to_bytes()
    flipped = bytearray(content)
    flipped[-5] ^= 1
    for damaged in (b"", b"not a model", content[:-1], content[: len(content) // 2], bytes(flipped)):
        with pytest.raises(CorruptModel):
            TrainedModel.from_bytes(damaged)


def test_model_for_serving_embeds_the_same_without_optimizer_state(model, world):
    serving = model.for_serving()
    assert len(serving.to_bytes()) < 0.6 * len(model.to_bytes())
    again = TrainedModel.from_bytes(serving.to_bytes())
    assert again.accumulators is None
    np.testing.assert_array_equal(again.embed_items(world.items), model.embed_items(world.items))


def test_representations_are_unit_vectors(model, world):
    users = model.embed_users(pa.array([[1000, 1001], [], None], IDS), pa.array([["age=3"], None, []]))
    assert users.shape == (3, 16)
    assert users.dtype == np.float32
    for vectors in (users, model.embed_items(world.items)):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_serving_tower_is_the_incremental_one(model):
    histories = pa.array([[1000, 1001]], IDS)
    by_default = model.embed_users(histories)
    np.testing.assert_array_equal(by_default, model.embed_users(histories, tower="incremental"))
    assert not np.allclose(by_default, model.embed_users(histories, tower="basic"))


def test_tower_that_is_not_there_is_named(world, config):
    basic = train(
        world.train.slice(0, 100), world.items, world.users, config.model_copy(update={"epochs": 1})
    )[0]
    with pytest.raises(UnknownTower, match="TB-Online has no incremental tower; it has basic"):
        basic.embed_users(pa.array([[1000]], IDS), tower="incremental")


def test_unknown_user_has_the_same_defined_representation(model):
    users = model.embed_users(pa.array([[], [999_999], None], IDS))
    np.testing.assert_array_equal(users[0], users[1])
    np.testing.assert_array_equal(users[0], users[2])
    assert np.isfinite(users).all()


def test_only_the_newest_known_items_count(model):
    long = model.embed_users(pa.array([[1100, 1000, 7, 1001, 1002]], IDS))
    np.testing.assert_array_equal(long, model.embed_users(pa.array([[1000, 1001, 1002]], IDS)))


def test_profile_changes_a_user_and_lists_must_be_aligned(model):
    histories = pa.array([[1000], [1000]], IDS)
    users = model.embed_users(histories, pa.array([["age=3"], None]))
    assert not np.array_equal(users[0], users[1])
    with pytest.raises(ValueError, match="2 histories but 1 profiles"):
        model.embed_users(histories, pa.array([["age=3"]]))


def test_new_item_is_retrieved_by_its_side_features(model, world, tables):
    item_table, _ = tables
    new = item_table([5000, 5001], first_index=201, category_ids=[3, 8])
    new_vectors, known = model.embed_items(new), model.embed_items(world.items)
    category = world.items["category_id"].to_numpy()
    nearest = np.argsort(-(new_vectors @ known.T), axis=1)[:, :10]
    assert (category[nearest[0]] == 3).mean() >= 0.8
    assert (category[nearest[1]] == 8).mean() >= 0.8


def test_new_item_in_a_history_counts_by_its_side_features(model, tables):
    item_table, _ = tables
    new = item_table([5000], first_index=201, category_ids=[3])
    histories = pa.array([[5000], [1060, 1061, 1062], [1160, 1161, 1162], []], IDS)
    with_items = model.embed_users(histories, items=new, tower="basic")
    assert with_items[0] @ with_items[1] > with_items[0] @ with_items[2] + 0.3
    without = model.embed_users(histories, tower="basic")
    np.testing.assert_array_equal(without[0], without[3])


def test_new_item_without_features_is_defined(model, tables):
    item_table, _ = tables
    vectors = model.embed_items(item_table([5000, 5001], first_index=201))
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_blocks_do_not_change_a_representation(model):
    histories = pa.array([[1000 + i % 200, 1001] for i in range(BLOCK + 3)], IDS)
    users = model.embed_users(histories)
    np.testing.assert_allclose(users[-3:], model.embed_users(histories.slice(BLOCK)), rtol=1e-5, atol=1e-6)
    assert model.embed_users(histories.slice(0, 0)).shape == (0, 16)


def test_missing_column_of_items_is_named(model, world):
    with pytest.raises(MissingColumn, match="category_id"):
        model.embed_items(world.items.drop_columns("category_id"))


def test_multi_interest_users_keep_their_interests(model, monkeypatch):
    tower = model.network.user_towers["basic"]
    monkeypatch.setattr(
        tower, "forward", lambda history, profile: torch.stack([history.mean, profile], dim=1)
    )
    assert model.embed_users(pa.array([[1000], []], IDS), tower="basic").shape == (2, 2, 16)
