"""MNR's daily batch: rankings of a window -> candidates -> the online store; visits where none are logged."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from benchmarks.mnr_load import RedisMissing, own_redis
from lakehouse import tables
from lakehouse.store import Lakehouse, MissingPartition
from models.mnr import MNRConfig, clean_ranking, insert, score
from nearline.mnr_lists import list_name
from nearline.store import open_store
from tasks.ingest import ingest_logs
from tasks.nearline_rankings import has_logs, load_mnr_candidates, rebuild_mnr_candidates
from tasks.rankings import is_stand_in, read_rankings, read_visits
from tasks.settings import Settings
from tests.conftest import skip_or_fail
from tests.tasks.small_worlds import DAYS, world_settings

DAY = DAYS[2]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Three ingested days of a small world."""
    world = {"n_users": 60, "n_items": 200, "n_days": 4, "n_clusters": 6, "first_day": DAYS[0]}
    settings = world_settings(tmp_path, source={"preset": "synthetic", "synthetic": world})
    for day in DAYS[:3]:
        ingest_logs(day, settings)
    return settings


def test_candidates_are_what_the_queues_of_the_window_score(settings):
    report = rebuild_mnr_candidates(DAY, settings)
    lakehouse = Lakehouse(settings.lakehouse_root)
    found = lakehouse.read(tables.MNR_CANDIDATES, DAY)
    log = lakehouse.read_days(tables.RANKING_LOG, DAYS[:3]).to_pylist()
    states: dict[tuple[int, str], bytes] = {}
    for row in log:
        if row["scenario"] != "home":
            time = round((row["event_time"] - datetime(1970, 1, 1)) / timedelta(microseconds=1))
            ranking = (np.array(row[name]) for name in ("item_ids", "category_ids", "scores"))
            visit, _ = clean_ranking(row["request_id"], time, row["scenario"], *ranking, settings.mnr)
            key = (row["user_id"], row["scenario"])
            states[key], _ = insert(states.get(key), visit, settings.mnr)
    assert [(row["user_id"], row["scenario"]) for row in found.to_pylist()] == sorted(states)
    for row in found.to_pylist():
        expected = score(states[row["user_id"], row["scenario"]], settings.mnr)
        assert row["item_ids"] == expected.item_ids.tolist()
        assert row["scores"] == pytest.approx(expected.scores.tolist())
    assert (report.n_lists, report.is_stand_in) == (len(states), False)
    assert report.n_candidates == pc.sum(pc.list_value_length(found["item_ids"])).as_py()


def test_run_again_gives_the_same_digest_and_a_missing_day_writes_nothing(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    rebuild_mnr_candidates(DAY, settings)
    before = lakehouse.require(tables.MNR_CANDIDATES, DAY).digest
    rebuild_mnr_candidates(DAY, settings)
    assert lakehouse.require(tables.MNR_CANDIDATES, DAY).digest == before
    assert has_logs(DAY, settings) and not has_logs(DAYS[3], settings)
    with pytest.raises(MissingPartition, match=f"exposure for {DAYS[3]}"):
        rebuild_mnr_candidates(DAYS[3], settings)
    with pytest.raises(MissingPartition, match=f"mnr_candidates for {DAYS[3]}"):
        load_mnr_candidates(DAYS[3], settings)
    assert lakehouse.days(tables.MNR_CANDIDATES) == [DAY]


def test_store_holds_a_list_per_scenario_and_keeps_what_is_newer(settings):
    rebuild_mnr_candidates(DAY, settings)
    row = Lakehouse(settings.lakehouse_root).read(tables.MNR_CANDIDATES, DAY).to_pylist()[0]
    name, user = list_name(row["scenario"]), row["user_id"]
    report = load_mnr_candidates(DAY, settings)
    assert report.n_written == report.n_lists > 0
    store = open_store(settings.online_store_url)
    try:
        held = store.read(name, user)
        assert held.item_ids.tolist() == row["item_ids"]
        assert (held.release, held.event_time) == (f"batch {DAY}", row["event_time"])
        newer = row["event_time"] + timedelta(seconds=1)
        ids, scores = np.array([[1]]), np.ones((1, 1), np.float32)
        store.write_many(name, np.array([user]), ids, scores, release="mnr", event_times=newer)
        assert load_mnr_candidates(DAY, settings).n_written == report.n_lists - 1
        assert store.read(name, user).item_ids.tolist() == [1]
    finally:
        store.close()


@pytest.fixture(params=["sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/idle/online.db"
        return
    try:
        with own_redis(tmp_path) as (url, _):
            yield url
    except RedisMissing as missing:
        skip_or_fail(str(missing))


@pytest.mark.parametrize(
    ("changes", "first"),
    [({"window_days": 2}, DAYS[1]), ({"mnr": MNRConfig(idle_seconds=86_400)}, DAYS[2])],
)
def test_lists_of_users_who_have_gone_leave_the_store(settings, store_url, changes, first):
    settings = settings.model_copy(update={"online_store_url": store_url, **changes})
    for day in DAYS[:2]:
        rebuild_mnr_candidates(day, settings)
        load_mnr_candidates(day, settings)
    lakehouse = Lakehouse(settings.lakehouse_root)
    before = lakehouse.read_days(tables.MNR_CANDIDATES, DAYS[:2]).to_pylist()
    rebuild_mnr_candidates(DAY, settings)
    after = {
        (row["scenario"], row["user_id"]): row["item_ids"]
        for row in lakehouse.read(tables.MNR_CANDIDATES, DAY).to_pylist()
    }
    gone = sorted({(row["scenario"], row["user_id"]) for row in before} - set(after))
    (scenario, streamed), *others = gone
    begin = datetime.combine(first, time())
    with closing(open_store(store_url)) as store:
        ids, scores = np.array([[1]]), np.ones((1, 1), np.float32)
        for name, when in (
            (list_name(scenario), begin + timedelta(seconds=1)), ("merged", datetime(2000, 1, 1))
        ):  # fmt: skip
            store.write_many(name, np.array([streamed]), ids, scores, release="mnr", event_times=when)
        held = [user for scenario, user in others if store.read(list_name(scenario), user)]
        assert len(held) > 3
        assert load_mnr_candidates(DAY, settings).n_forgotten == len(held)
        assert all(store.read(list_name(scenario), user) is None for scenario, user in others)
        assert store.read(list_name(scenario), streamed).item_ids.tolist() == [1], "the stream's is newer"
        assert store.read("merged", streamed).item_ids.tolist() == [1], "no list of MNR"
        for (scenario, user), items in after.items():
            assert store.read(list_name(scenario), user).item_ids.tolist() == items
        assert load_mnr_candidates(DAY, settings).n_forgotten == 0
        load_mnr_candidates(DAYS[0], settings)  # again, as a backfill does
        assert all(store.read(list_name(scenario), user) is None for scenario, user in others)


def test_visits_stand_in_where_a_day_has_no_rankings(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    for day in DAYS[:3]:
        lakehouse.remove(tables.RANKING_LOG, day)
    assert is_stand_in(lakehouse, DAY)
    rankings = read_rankings(lakehouse, DAYS[:3], settings)
    assert rankings.schema == tables.RANKING_LOG.schema
    assert len(pc.unique(rankings["request_id"])) == rankings.num_rows
    shown = lakehouse.read_days(tables.EXPOSURE, DAYS[:3])
    assert sorted(set(rankings["item_ids"].combine_chunks().flatten().to_pylist())) == sorted(
        set(shown["item_id"].to_pylist())
    )
    assert rebuild_mnr_candidates(DAY, settings).is_stand_in


def test_only_other_scenarios_count_and_own_ones_are_the_primary_scenarios(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    assert "home" not in set(read_visits(lakehouse, DAY, settings).scenarios)
    assert set(read_visits(lakehouse, DAY, settings, own=True).scenarios) == {"home"}
    eve = DAYS[0] - timedelta(days=1)
    assert read_visits(lakehouse, eve, settings).report.n_rankings == 0


def test_scenarios_names_become_names_of_lists():
    assert list_name("search") == "mnr@search"
    assert list_name("a b.c") == "mnr@a.20b.2ec"
