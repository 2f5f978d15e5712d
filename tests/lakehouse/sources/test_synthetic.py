from datetime import date, timedelta
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from lakehouse import tables
from lakehouse.sources import SourceConfig, SourceError, open_source
from lakehouse.sources.synthetic import (
    SyntheticConfig,
    SyntheticWorld,
    effects,
    mapping_of_written,
    population,
    write_world,
)
from lakehouse.sources.synthetic.log import Log, read_log

SMALL = {"n_users": 300, "n_items": 400, "n_clusters": 8, "n_days": 4}
MEASURED = {"n_users": 1_500, "n_items": 2_000, "n_clusters": 16, "n_days": 7}
CANONICAL = {name: tables.TABLES[name] for name in ("exposure", "ranking_log", "item", "user")}


@pytest.fixture(scope="module")
def small() -> SyntheticWorld:
    return SyntheticWorld(SyntheticConfig(**SMALL))


@cache
def figure(measurement: str, name: str, **fields: float) -> float:
    return figures(measurement, **fields)[name]


@cache
def figures(measurement: str, **fields: float) -> effects.Figures:
    world, log = logged(**fields) if fields else logged_default()
    return effects.MEASUREMENTS[measurement](world, log)


@cache
def logged_default() -> tuple[SyntheticWorld, Log]:
    return logged()


def logged(**fields: float) -> tuple[SyntheticWorld, Log]:
    world = SyntheticWorld(SyntheticConfig(**MEASURED | fields))
    return world, read_log(world)


# What the rows look like


@pytest.mark.parametrize("name", CANONICAL)
def test_every_table_has_the_canonical_columns_and_a_unique_key(small, name):
    table = CANONICAL[name]
    rows = small.read(name, small.last_day)
    assert rows.schema == table.schema
    assert rows.num_rows > 100
    for column in table.columns:
        assert column.nullable or rows[column.name].null_count == 0
    assert rows.group_by(list(table.key)).aggregate([]).num_rows == rows.num_rows


def test_event_times_lie_in_their_day(small):
    for name in ("exposure", "ranking_log"):
        times = pc.min_max(small.read(name, small.last_day)["event_time"]).as_py()
        assert times["min"].date() == times["max"].date() == small.last_day


def test_request_ids_are_unique_over_the_days(small):
    days = [small.first_day + timedelta(days=n) for n in range(4)]
    ids = pa.concat_tables(small.read("ranking_log", day) for day in days)["request_id"]
    assert len(pc.unique(ids)) == len(ids)


def test_exposures_are_the_first_page_of_their_ranking(small):
    exposure, ranking = (small.read(name, small.last_day) for name in ("exposure", "ranking_log"))
    items = dict(zip(ranking["request_id"].to_pylist(), ranking["item_ids"].to_pylist(), strict=True))
    shown = exposure.group_by("request_id").aggregate([("position", "count")])
    assert shown.num_rows == ranking.num_rows
    assert pc.max(shown["position_count"]).as_py() == small.config.page_size
    assert all(items[row["request_id"]][row["position"]] == row["item_id"] for row in exposure.to_pylist())


def test_rankings_hold_distinct_items_with_their_category_in_falling_order_of_score(small):
    ranking = small.read("ranking_log", small.last_day)
    category = dict(
        zip(
            *(small.read("item", small.last_day)[c].to_pylist() for c in ("item_id", "category_id")),
            strict=True,
        )
    )
    for row in ranking.slice(0, 50).to_pylist():
        assert len(set(row["item_ids"])) == len(row["item_ids"]) <= small.config.ranking_length
        assert row["category_ids"] == [category[item] for item in row["item_ids"]]
        assert row["scores"] == sorted(row["scores"], reverse=True)


def test_an_order_is_a_click(small):
    exposure = small.read("exposure", small.last_day)
    assert pc.sum(exposure["is_order"]).as_py() > 0
    assert not pc.any(pc.and_not(exposure["is_order"], exposure["is_click"])).as_py()


def test_a_user_clicks_an_item_once_a_day(small):
    exposure = small.read("exposure", small.last_day)
    clicks = exposure.filter(exposure["is_click"])
    assert clicks.group_by(["user_id", "item_id"]).aggregate([]).num_rows == clicks.num_rows


def test_unavailable_and_unborn_items_are_neither_shown_nor_ranked(small):
    item = small.read("item", small.first_day)
    available = item.filter(item["is_available"])["item_id"]
    assert 0 < len(available) < item.num_rows
    ranked = pc.list_flatten(small.read("ranking_log", small.first_day)["item_ids"])
    assert pc.all(pc.is_in(ranked, available.combine_chunks())).as_py()


def test_new_items_and_users_appear_every_day(small):
    for name, added in (("item", 40), ("user", 25)):
        before, after = (small.read(name, small.first_day + timedelta(days=n)).num_rows for n in (1, 2))
        assert after - before == added
    users = small.read("exposure", small.last_day)["user_id"].to_numpy()
    assert (users > 300 + 2 * 25).any()


def test_profiles_are_sorted_tokens(small):
    profile = small.read("user", small.first_day)["profile"].to_pylist()[0]
    assert profile == sorted(profile)
    assert all("=" in token for token in profile)


# A day is a pure function of (config, day)


@pytest.mark.parametrize("name", CANONICAL)
def test_a_day_read_alone_equals_the_day_read_in_order(small, name):
    in_order = [small.read(name, small.first_day + timedelta(days=n)) for n in range(4)]
    alone = SyntheticWorld(SyntheticConfig(**SMALL)).read(name, small.last_day)
    assert alone.equals(in_order[-1])


def test_a_longer_log_keeps_the_days_it_had(small):
    longer = SyntheticWorld(SyntheticConfig(**SMALL | {"n_days": 9}))
    assert longer.read("exposure", small.last_day).equals(small.read("exposure", small.last_day))


def test_users_of_other_blocks_change_nothing(monkeypatch):
    monkeypatch.setattr("lakehouse.sources.synthetic.world.BLOCK_USERS", 200)
    monkeypatch.setattr(population, "BLOCK_USERS", 200)
    fewer, more = (
        SyntheticWorld(SyntheticConfig(**SMALL | {"n_users": n, "new_users_per_day": 0})) for n in (200, 500)
    )
    blocks = [list(world.read_blocks(fewer.last_day)) for world in (fewer, more)]
    assert [len(found) for found in blocks] == [1, 3]
    assert blocks[0][0][0].equals(blocks[1][0][0])


def test_another_seed_gives_other_rows(small):
    other = SyntheticWorld(SyntheticConfig(**SMALL, seed=2))
    assert not other.read("exposure", small.last_day).equals(small.read("exposure", small.last_day))
    assert other.fingerprint(small.last_day) != small.fingerprint(small.last_day)


def test_a_world_of_one_scenario_and_one_day_can_be_read():
    world = SyntheticWorld(
        SyntheticConfig(n_users=10, n_items=100, n_days=1, n_scenarios=1, active_share=1, visits_per_day=1)
    )
    assert set(world.read("exposure", world.first_day)["scenario"].to_pylist()) == {"home"}


def test_written_days_come_back_through_the_generic_mapping(small, tmp_path):
    days = [small.first_day, small.last_day]
    n_rows = write_world(small, tmp_path, days)
    source = open_source(
        SourceConfig(preset="generic", data=str(tmp_path), mapping=mapping_of_written(small))
    )
    assert (source.first_day, source.last_day) == (small.first_day, small.last_day)
    assert n_rows == sum(small.read(name, day).num_rows for name in CANONICAL for day in days)
    for name in CANONICAL:
        assert source.read(name, small.last_day).num_rows == small.read(name, small.last_day).num_rows
    read, made = (world.read("ranking_log", small.last_day)["item_ids"] for world in (source, small))
    assert sorted(read.to_pylist()) == sorted(made.to_pylist())


# Mistakes


def test_a_day_outside_the_log_is_refused_with_its_range(small):
    with pytest.raises(SourceError, match=r"2025-12-31.*2026-01-01 to 2026-01-04"):
        small.read("exposure", date(2025, 12, 31))


def test_an_unknown_table_is_refused(small):
    with pytest.raises(SourceError, match="no table clicks"):
        small.read("clicks", small.first_day)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"page_size": 50, "ranking_length": 20}, "page_size 50 is more than ranking_length 20"),
        ({"n_clusters": 90, "n_items": 100}, "n_clusters 90 is too many"),
        ({"leak": 1}, "leak"),
        ({"taste_strength": 1.5}, "taste_strength"),
    ],
)
def test_a_configuration_that_makes_no_world_is_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        SyntheticConfig(**fields)


# What is planted, each signal on and off


def test_volumes_are_plausible():
    volume = figures("volume")
    assert 0.15 < volume["click-through"] < 0.40
    assert volume["repeated clicks"] < 0.04
    assert 0.04 < volume["orders per click"] < 0.15
    assert volume["last day's clicks on items new since the first"] > 0.05
    assert volume["last day's clicks by users new since the first"] > 0.05


def test_popularity_is_below_co_click_which_is_below_what_can_be_known():
    rates = figures("hit rates")
    assert 0.10 < rates["Hit@100 popularity"] < 0.30
    assert rates["Hit@100 co-click"] > 1.4 * rates["Hit@100 popularity"]
    assert rates["Hit@100 oracle of interests"] > 1.3 * rates["Hit@100 co-click"]
    assert rates["Hit@100 oracle of wants"] > 0.75


def test_without_taste_co_click_has_no_edge_over_popularity():
    rates = figures("hit rates", taste_strength=0)
    assert rates["Hit@100 co-click"] < 1.05 * rates["Hit@100 popularity"]


# measurement, figure, field that switches it off, least factor of on over off, chance where it is known
PLANTED = [
    ("communities", "lift of sharing a community within one cluster", "community_strength", 1.4, 1),
    ("leaks", "home clicks on an interest opened elsewhere the day before", "leak_strength", 1.8, None),
    ("leaks", "home clicks on its companion: the user's / the other one", "companion_strength", 3, None),
    ("leaks", "home clicks on it: favoured / unfavoured clusters", "home_preference", 1.6, 1),
    ("triggers", "follow-up of a trigger after 1 day", "trigger_strength", 1.3, None),
    ("triggers", "strongest / weakest third of triggers", "trigger_spread", 1.15, 1),
    ("triggers", "follow-up after 1 day / after 6 days", "recency_strength", 1.3, 1),
    ("triggers", "best / worst suited third of triggers", "personal_strength", 1.2, 1),
    ("rankings", "first / last third of the unexposed ranks", "ranking_skill", 6, 1),
    ("rankings", "share of unclicked items ranked below a clicked one", "ranking_skill", 1.3, 0.5),
    ("rankings", "first / last third of the unexposed ranks", "anticipation", 3, None),
    ("drift", "share of clicks on the top 100", "popularity_skew", 1.5, None),
    ("side features", "lift of sharing a category within a profile group", "profile_strength", 1.2, 1),
    ("side features", "lift of sharing a category within a profile group", "feature_strength", 1.2, 1),
]


@pytest.mark.parametrize(("measurement", "name", "field", "factor", "chance"), PLANTED)
def test_a_planted_signal_shows_and_its_strength_switches_it_off(measurement, name, field, factor, chance):
    off = figure(measurement, name, **{field: 0})
    assert figure(measurement, name) > factor * off
    assert chance is None or off == pytest.approx(chance, rel=0.25)


def test_interests_differ_between_scenarios_only_as_planted():
    name = "sharing a community: inside home / across"
    without = {"trigger_strength": 0, "home_preference": 0}
    off = figure("scenarios", name, **without, scenario_strength=0)
    assert figure("scenarios", name, **without) > 1.1 * off


def test_the_head_of_popularity_moves_only_as_planted():
    name = "share of the first days' top 100 still in it"
    assert figure("drift", name, popularity_drift=1) < figure("drift", name, popularity_drift=0) - 0.15


def test_a_boost_brings_new_items_clicks():
    name = "last day's clicks on items new since the first"
    assert figure("volume", name, new_item_boost=2) > 1.2 * figure("volume", name, new_item_boost=0)


def test_what_was_opened_elsewhere_is_clicked_in_home_the_same_day_only_as_planted():
    name = "same day's home clicks: own / others' openings"
    on, off = figure("sessions", name), figure("sessions", name, session_strength=0)
    assert on > 1.5 * off


def test_without_ranking_skill_pages_hold_fewer_wanted_items():
    rate = "click-through"
    assert figure("volume", rate, ranking_skill=0) < 0.6 * figure("volume", rate)


def test_fresher_rankings_of_other_scenarios_tell_more():
    assert figure("rankings", "first third: next day / after 4 days") > 1.2


def test_unexposed_ranked_items_are_clicked_in_home_far_above_chance():
    assert figure("rankings", "its lift over any user and item") > 4
