"""R_u by a log and by a release, and lists without it: for which requests it is known, what is refused."""

import shutil
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lakehouse import tables
from lakehouse.releases import open_release
from lakehouse.store import Lakehouse
from models.channels import merge_channels
from models.increc.model import TrainedModel
from models.item_to_item import retrieve_by_items
from models.search import exact_top_k
from tasks import tracking
from tasks.channels import MERGED, Catalogue, read_catalogue, retrieve_channels
from tasks.evaluate import evaluate, read_behaviour
from tasks.release import build_release
from tasks.retrieved import (
    NoRelease,
    NoRetrievalLog,
    as_lists,
    lending_release,
    retrieved_for_filter,
    simulate,
)
from tasks.samples import construct_samples
from tasks.settings import Settings
from tasks.train import read_checkpoint, train
from tests.tasks.small_releases import small_record
from tests.tasks.small_worlds import DAYS, prepare, world_settings

DAY, EVE = DAYS[3], DAYS[2]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Four prepared days, and version 1: a release of the third, whose channel increc leaves R_u out."""
    settings = with_filter(
        world_settings(tmp_path_factory.mktemp("var"), channels={"swing": 20, "increc": 20})
    )
    prepare(settings, DAYS[:4])
    for method in settings.methods:
        train(EVE, method, settings)
    evaluate(EVE, settings)
    staged = build_release(EVE, settings)
    record = small_record(EVE, methods=(), verdict="passed")
    run = tracking.log_day(record, settings)
    assert tracking.register_version(staged.folder, record, run.run_id, settings).version == "1"
    return settings


@pytest.fixture
def settings(released: Settings, tmp_path: Path) -> Settings:
    """The same, with tables of its own."""
    shutil.copytree(released.lakehouse_root, tmp_path / "lakehouse")
    return released.model_copy(update={"lakehouse_root": str(tmp_path / "lakehouse")})


def with_filter(settings: Settings) -> Settings:
    methods = dict(settings.methods)
    methods["increc"] = methods["increc"].model_copy(update={"filter_retrieved": True})
    return settings.model_copy(update={"methods": methods})


def by(settings: Settings, retrieved_by: str, **changes: object) -> Settings:
    samples = settings.samples.model_copy(update={"retrieved_by": retrieved_by, **changes})
    return settings.model_copy(update={"samples": samples})


def log_of(target_group: pa.Table) -> pa.Table:
    """The log that the requests' own R_u would have left, in two channels: every second item of it each."""
    rows = []
    for row in target_group.to_pylist():
        given = {"request_id": row["request_id"], "user_id": row["user_id"], "scenario": "home"}
        given["event_time"] = row["event_time"]
        for channel in (0, 1):
            items = row["retrieved_item_ids"][channel::2]
            rows.append(given | {"channel": f"channel {channel}", "item_ids": items})
    return pa.Table.from_pylist(rows, tables.RETRIEVAL_LOG.schema)


def test_a_log_of_what_was_simulated_gives_the_same_groups_and_the_rest_is_counted(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    simulated = lakehouse.read(tables.TARGET_GROUP, DAY)
    is_logged = pc.equal(pc.bit_wise_and(simulated["user_id"], 1), 0)
    lakehouse.replace(tables.RETRIEVAL_LOG, DAY, log_of(simulated.filter(is_logged)))
    report = construct_samples(DAY, by(settings, "logged"))
    assert lakehouse.read(tables.TARGET_GROUP, DAY).equals(simulated.filter(is_logged))
    n_without = simulated.num_rows - pc.sum(is_logged).as_py()
    assert (report.n_without_retrieval, report.n_requests) == (n_without, pc.sum(is_logged).as_py())
    assert 0 < n_without < simulated.num_rows
    meta = lakehouse.require(tables.TARGET_GROUP, DAY).meta
    assert meta == {"retrieved_by": "logged", "n_without_retrieval": str(n_without)}
    samples = lakehouse.read(tables.INCREC_SAMPLE, DAY)
    assert pc.all(pc.equal(pc.bit_wise_and(samples["user_id"], 1), 0)).as_py()


def test_a_day_whose_log_is_empty_has_no_samples_and_one_without_a_log_is_refused(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    with pytest.raises(NoRetrievalLog, match=f"has no retrieval_log of {DAY}: map it in the source"):
        construct_samples(DAY, by(settings, "logged"))
    n_requests = lakehouse.require(tables.TARGET_GROUP, DAY).n_rows
    lakehouse.replace(tables.RETRIEVAL_LOG, DAY, tables.RETRIEVAL_LOG.schema.empty_table())
    report = construct_samples(DAY, by(settings, "logged"))
    assert (report.n_requests, report.n_without_retrieval, report.n_samples) == (0, n_requests, 0)
    assert (report.n_rtg, report.n_itg, report.n_etg) == (0, 0, 0)


def test_a_release_lends_its_merged_list_for_the_history_before_each_request(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    report = construct_samples(DAY, by(settings, "release", release="1"))
    assert report.retrieved_by == f"release 1 of {EVE}"
    found = lakehouse.read(tables.TARGET_GROUP, DAY)

    release = open_release(tracking.download_release("1", settings.local_root, settings))
    catalogue = read_catalogue(lakehouse, EVE, settings)
    histories = found["history_item_ids"].combine_chunks()
    profile = lakehouse.read(tables.USER_SNAPSHOT, EVE)
    profiles = (
        profile["profile"]
        .combine_chunks()
        .take(pc.index_in(found["user_id"], profile["user_id"]).combine_chunks())
    )
    popular = np.asarray(release.popular_item_ids)
    popular = popular[np.isin(popular, catalogue.item_ids)]
    tower = release.channel("increc")
    model = TrainedModel.from_files({"model.safetensors": tower.weights, "config.json": tower.config})
    items = catalogue.items.filter(pa.array(np.isin(catalogue.item_ids, model.known_item_ids)))
    left_out = as_lists(simulate(release.i2i_table, popular, histories, settings)).to_pylist()
    both = pa.array([a + b for a, b in zip(histories.to_pylist(), left_out, strict=True)], tables.IDS)
    lists = {
        "swing": retrieve_by_items(
            release.i2i_table, histories, 40, n_triggers=100, allowed_item_ids=catalogue.item_ids
        ),
        "increc": exact_top_k(
            model.embed_users(histories, profiles, items=items),
            model.embed_items(items),
            items["item_id"].to_numpy(),
            40,
            exclude=both,
        ),
    }
    expected = merge_channels(lists, {"swing": 20, "increc": 20})
    assert found["retrieved_item_ids"].to_pylist() == as_lists(expected).to_pylist()
    assert max(map(len, found["retrieved_item_ids"].to_pylist())) == 40


def test_a_release_of_the_day_itself_or_a_later_one_is_refused(settings):
    named = by(settings, "release", release="1")
    for day in (EVE, EVE - timedelta(days=1)):
        with pytest.raises(NoRelease, match=f"release 1 is of {EVE} and cannot lend its channels to {day}"):
            construct_samples(day, named)
    assert lending_release(DAY, named) == ("1", EVE)


def test_without_a_name_the_served_release_lends_and_without_one_it_is_refused(settings):
    from lakehouse.serving import Serving, write_serving

    with pytest.raises(NoRelease, match="none serves below"):
        construct_samples(DAY, by(settings, "release"))
    with pytest.raises(tracking.UnknownVersion, match="no version 7"):
        construct_samples(DAY, by(settings, "release", release="7"))
    root = Path(settings.lakehouse_root).parent / "releases"
    write_serving(root, Serving("1", EVE, "digest", "address", "path", "2026-01-04T00:00:00"))
    assert lending_release(DAY, by(settings, "release").model_copy(update={"release_root": root})) == (
        "1",
        EVE,
    )


def test_a_list_that_leaves_r_u_out_is_the_other_list_without_it(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    catalogue = read_catalogue(lakehouse, EVE - timedelta(days=1), settings)
    users = read_behaviour(lakehouse, EVE, catalogue, settings).users
    model = read_checkpoint(lakehouse, EVE, "increc")
    assert model.config.filter_retrieved
    with pytest.raises(ValueError, match="leaves out what the existing channels return"):
        retrieve_channels(["increc"], {"increc": model}, catalogue, users, 30, settings)
    retrieved = retrieved_for_filter({"increc": model}, catalogue, users, settings)
    filtered = retrieve_channels(["increc"], {"increc": model}, catalogue, users, 30, settings, retrieved)
    config = model.config.model_copy(update={"filter_retrieved": False})
    plain = TrainedModel(config, model.vocabulary, model.network, None)
    assert retrieved_for_filter({"plain": plain}, catalogue, users, settings) is None
    whole = retrieve_channels(["plain"], {"plain": plain}, catalogue, users, 30 + 50, settings)["plain"]
    removed = 0
    for row, without, known in zip(whole, filtered["increc"], retrieved.to_pylist(), strict=True):
        expected = [item for item in row.tolist() if item not in set(known)][:30]
        assert without.tolist() == expected
        removed += len(row) - len([item for item in row if item not in set(known)])
    assert removed > 0


def test_what_a_filtering_channel_is_served_for_holds_nothing_of_r_u(released):
    release = open_release(tracking.download_release("1", released.local_root, released))
    candidates = release.candidates(MERGED)
    lakehouse = Lakehouse(released.lakehouse_root)
    catalogue = read_catalogue(lakehouse, EVE, released)
    users = read_behaviour(lakehouse, DAY, catalogue, released).users
    users_served = set(candidates.user_ids.tolist())
    rows = [row for row, user in enumerate(users.ids) if user in users_served]
    served_rows = np.searchsorted(candidates.user_ids, users.ids[rows])
    r_u = simulate(catalogue.i2i_table, catalogue.popular, users.histories, released)[rows]
    swing = retrieve_channels(["swing"], {}, catalogue, users, 20, released)["swing"][rows]
    n_of_increc = 0
    for served, known, by_swing in zip(np.asarray(candidates.item_ids)[served_rows], r_u, swing, strict=True):
        of_increc = set(served[served >= 0]) - set(by_swing)
        assert not of_increc & set(known)
        n_of_increc += len(of_increc)
    assert n_of_increc > 10 * len(swing)


def test_of_a_log_a_filter_knows_the_last_retrieval_of_the_day_before(tmp_path):
    settings = by(world_settings(tmp_path), "logged")
    lakehouse, day = Lakehouse(settings.lakehouse_root), date(2026, 1, 4)
    meta = {"primary_scenario": "home", "timezone": "Asia/Shanghai", "source_first_day": "2026-01-01"}
    lakehouse.replace(tables.EXPOSURE, day, tables.EXPOSURE.schema.empty_table(), meta=meta)
    at = np.datetime64("2026-01-04T15:00:00", "us")  # an hour before the day ends there
    times = pa.array([at, at - np.timedelta64(20, "h"), at + np.timedelta64(59, "m"), at], tables.TIME)
    columns = [
        [None] * 4,
        [1, 2, 1, 3],
        ["home"] * 3 + ["search"],
        times,
        [None] * 4,
        [[5], [6, 7], [8], [9]],
    ]
    lakehouse.replace(tables.RETRIEVAL_LOG, day, pa.table(columns, schema=tables.RETRIEVAL_LOG.schema))
    nothing = tables.ITEM_SNAPSHOT.schema.empty_table()
    catalogue = Catalogue(day, nothing, nothing, np.empty(0, np.int64))
    users = SimpleNamespace(ids=np.array([1, 2, 3]))
    config = settings.methods["base"].model_copy(update={"filter_retrieved": True})
    models = {"it": TrainedModel(config, None, None, None)}
    assert retrieved_for_filter(models, catalogue, users, settings).to_pylist() == [[8], [6, 7], []]
    with pytest.raises(NoRetrievalLog, match="no retrieval_log of 2026-01-03"):
        lakehouse.replace(tables.EXPOSURE, date(2026, 1, 3), tables.EXPOSURE.schema.empty_table(), meta=meta)
        earlier = Catalogue(date(2026, 1, 3), nothing, nothing, catalogue.popular)
        retrieved_for_filter(models, earlier, users, settings)
