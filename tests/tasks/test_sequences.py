"""Times and scenarios of histories on their way: from clicks to samples, evaluation, release and towers."""

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lakehouse import tables
from lakehouse.releases import open_release
from lakehouse.store import Lakehouse
from tasks.channels import embed_users, read_catalogue, with_profiles
from tasks.evaluate import evaluate, read_behaviour
from tasks.histories import build_histories
from tasks.ingest import ingest_logs
from tasks.release import build_release
from tasks.samples import construct_samples
from tasks.settings import Settings
from tasks.swing import rebuild_swing_index
from tasks.train import read_checkpoint, train

FIRST = date(2026, 1, 1)
DAY = FIRST + timedelta(days=2)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three days of a small world; a model of the last that reads sequences, and its release."""
    world = {"n_users": 200, "n_items": 150, "n_days": 4, "n_clusters": 5, "first_day": FIRST}
    tower = {"variant": "TB-Online", "backbone": "comirec", "dim": 16, "epochs": 2, "n_threads": 1}
    settings = Settings(
        var=tmp_path_factory.mktemp("var"),
        source={"preset": "synthetic", "synthetic": world},
        methods={"base": tower},
        channels={"swing": 5, "base": 10},
        evaluation={"ks": [5, 10]},
    )
    for n in range(3):
        for step in (ingest_logs, build_histories, rebuild_swing_index, construct_samples):
            step(FIRST + timedelta(days=n), settings)
    train(DAY, "base", settings)
    evaluate(DAY, settings)
    build_release(DAY, settings)
    return settings


def test_every_history_item_has_a_time_before_the_request_and_a_scenario(settings: Settings) -> None:
    lakehouse = Lakehouse(settings.lakehouse_root)
    for table in (tables.TARGET_GROUP, tables.INCREC_SAMPLE):
        rows = lakehouse.read(table, DAY)
        items, times, scenarios = (
            rows[f"history_{name}"].combine_chunks() for name in ("item_ids", "event_times", "scenarios")
        )
        assert items.offsets.equals(times.offsets)
        assert items.offsets.equals(scenarios.offsets)
        requested = rows["event_time"].take(pc.list_parent_indices(items))
        assert pc.all(pc.less(times.flatten(), requested.combine_chunks())).as_py()
        assert len(scenarios.flatten()) > 0
        in_order = np.diff(times.flatten().to_numpy()) >= np.timedelta64(0)
        within = np.diff(pc.list_parent_indices(items).to_numpy()) == 0
        assert in_order[within].all()


def test_sample_keeps_the_scenario_in_which_an_item_was_last_used(settings: Settings) -> None:
    lakehouse = Lakehouse(settings.lakehouse_root)
    clicks = pa.concat_tables(
        [lakehouse.read(tables.CLICK, FIRST + timedelta(days=n)) for n in range(3)]
    ).to_pylist()
    used = {(c["user_id"], c["item_id"], c["event_time"], c["scenario"]) for c in clicks}
    rows = lakehouse.read(tables.INCREC_SAMPLE, DAY).to_pylist()
    names = [f"history_{name}" for name in ("item_ids", "event_times", "scenarios")]
    found = {
        (row["user_id"], *item) for row in rows for item in zip(*(row[name] for name in names), strict=True)
    }
    brought = {item for item in found if item[3] == ""}
    assert found - brought <= used
    assert len(found - brought) > 50


def test_users_of_a_day_are_seen_from_its_start(settings: Settings) -> None:
    lakehouse = Lakehouse(settings.lakehouse_root)
    catalogue = read_catalogue(lakehouse, DAY - timedelta(days=1), settings)
    users = read_behaviour(lakehouse, DAY, catalogue, settings).users
    assert users.now == datetime(2026, 1, 3)
    stored = lakehouse.read(tables.USER_HISTORY, DAY - timedelta(days=1)).to_pylist()
    expected = {row["user_id"]: (row["event_times"], row["scenarios"]) for row in stored}
    for row, user in enumerate(users.ids.tolist()):
        given = users.event_times[row].as_py(), users.scenarios[row].as_py()
        assert given == expected.get(user, ([], []))


def test_release_embeds_its_users_as_of_the_day_that_it_serves(settings: Settings) -> None:
    lakehouse = Lakehouse(settings.lakehouse_root)
    release = open_release(Path(settings.staged_root) / DAY.isoformat())
    assert release.manifest.served_from == datetime(2026, 1, 4)
    model = read_checkpoint(lakehouse, DAY, "base")
    users = with_profiles(lakehouse, DAY, lakehouse.read(tables.USER_HISTORY, DAY))
    tower = release.channel("base")
    catalogue = read_catalogue(lakehouse, DAY, settings)
    np.testing.assert_array_equal(tower.user_embeddings, embed_users(model, catalogue, users))
    assert tower.user_embeddings.shape == (len(users.ids), 4, 16)
    unaware = model.embed_users(users.histories, users.profiles, items=catalogue.items)
    assert not np.allclose(unaware, tower.user_embeddings, atol=1e-4)
