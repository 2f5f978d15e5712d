from collections import defaultdict
from math import sqrt

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lakehouse.tables import I2I_TABLE
from models.swing import BadClicks, SwingConfig, build_i2i_table
from tests.models.swing.click_logs import assert_table_is, brute_force, click_table, random_clicks, scores_of

clicks_of_few = st.lists(
    st.tuples(st.integers(-3, 5), st.integers(10, 17), st.integers(0, 4)), min_size=0, max_size=60
)
configs = st.builds(
    SwingConfig,
    alpha=st.sampled_from([0.5, 1.0, 2.5]),
    truncation=st.sampled_from([1, 2, 1250]),
    user_weight=st.sampled_from(["inverse_sqrt", "none"]),
    include_self_pairs=st.booleans(),
    max_items_per_user=st.sampled_from([None, 2, 4]),
    n_threads=st.sampled_from([1, 3]),
)


def test_scores_equal_the_formula_by_hand():
    # users 1 and 2 share items 1, 2; user 2 also clicked 3, as did user 3
    clicks = click_table([(1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 2, 0), (2, 3, 0), (3, 3, 0), (3, 1, 0)])
    table, report = build_i2i_table(clicks, SwingConfig(alpha=1.0))
    w1, w2, w3 = 1 / sqrt(2), 1 / sqrt(3), 1 / sqrt(2)
    expected = {
        (1, 2): (2 * w1 * w2 / (1 + 2), 2),
        (2, 1): (2 * w1 * w2 / (1 + 2), 2),
        (1, 3): (2 * w2 * w3 / (1 + 2), 2),
        (3, 1): (2 * w2 * w3 / (1 + 2), 2),
    }
    assert_table_is(table, expected, 1250)
    assert (report.n_clicks, report.n_users, report.n_items) == (7, 3, 3)
    assert (report.n_triggers, report.n_rows, report.share_clicks_dropped) == (3, 4, 0.0)
    assert report.mean_targets == pytest.approx(4 / 3)


def test_the_table_has_the_declared_columns():
    table, _ = build_i2i_table(click_table([(1, 1, 0), (2, 1, 0), (1, 2, 0), (2, 2, 0)]), SwingConfig())
    assert table.schema == I2I_TABLE.schema


@settings(max_examples=150, deadline=None)
@given(rows=clicks_of_few, config=configs)
def test_every_option_equals_brute_force(rows, config):
    table, report = build_i2i_table(click_table(rows), config)
    assert_table_is(table, brute_force(rows, config), config.truncation)
    assert report.n_rows == table.num_rows


@settings(max_examples=60, deadline=None)
@given(rows=clicks_of_few, seed=st.integers(0, 2**63 - 1))
def test_user_cap_chooses_users_in_one_order_for_all_triggers(rows, seed):
    # an item of its own for every user shows, by self pairs, which users each trigger kept
    rows = rows + [(user, 1000 + user, 0) for user in {user for user, _, _ in rows}]
    config = SwingConfig(max_users_per_item=2, seed=seed, include_self_pairs=True)
    table, report = build_i2i_table(click_table(rows), config)
    users_of = defaultdict(set)
    for user, item, _ in rows:
        users_of[item].add(user)
    kept = {item: set(users) if item > 900 else set() for item, users in users_of.items()}
    for trigger, target in scores_of(table):
        if trigger < 900 and target > 900:
            kept[trigger].add(target - 1000)
    for item, users in users_of.items():
        assert len(kept[item]) == min(2, len(users))
        for other, other_users in users_of.items():
            if other_users <= users:
                assert kept[item] & other_users <= kept[other]
    assert_table_is(table, brute_force(rows, config, kept), config.truncation)
    assert report.n_items_capped == sum(len(users) > 2 for users in users_of.values())


def test_user_cap_limits_the_trigger_only_and_is_reported():
    rows = [(user, item, 0) for user in range(10) for item in (1, 2)] + [(0, 3, 0), (1, 3, 0)]
    exact, _ = build_i2i_table(click_table(rows), SwingConfig())
    capped, report = build_i2i_table(click_table(rows), SwingConfig(max_users_per_item=4))
    assert scores_of(exact)[1, 2][1] == 10
    assert scores_of(capped)[1, 2][1] == 4
    assert scores_of(capped)[3, 1] == scores_of(exact)[3, 1]  # item 3 has two users: its row is exact
    assert report.n_items_capped == 2
    assert report.share_clicks_dropped == pytest.approx(12 / 22)


def test_another_seed_keeps_other_users():
    rows = [(user, 1, 0) for user in range(40)] + [(user, 100 + user, 0) for user in range(40)]
    config = SwingConfig(max_users_per_item=5, include_self_pairs=True)
    tables = [
        build_i2i_table(click_table(rows), config.model_copy(update={"seed": seed}))[0] for seed in (0, 1)
    ]
    assert not tables[0].equals(tables[1])


def test_item_cap_keeps_the_most_recent_and_is_reported():
    rows = [(user, item, item) for user in (1, 2) for item in (1, 2, 3)]
    table, report = build_i2i_table(click_table(rows), SwingConfig(max_items_per_user=2))
    score = 2 * (1 / 3) / (1 + 2)  # w_u of the full three items, intersection of the two kept
    assert scores_of(table) == {(2, 3): (pytest.approx(score), 2), (3, 2): (pytest.approx(score), 2)}
    assert report.n_users_capped == 2
    assert report.share_clicks_dropped == pytest.approx(2 / 6)


def test_one_shared_user_links_items_only_with_self_pairs():
    clicks = click_table([(1, 1, 0), (1, 2, 0)])
    assert build_i2i_table(clicks, SwingConfig())[0].num_rows == 0
    table, _ = build_i2i_table(clicks, SwingConfig(include_self_pairs=True))
    assert scores_of(table)[1, 2] == (pytest.approx(0.5 / (1 + 2)), 1)


@pytest.mark.parametrize("user_weight", ["inverse_sqrt", "none"])
def test_equal_scores_are_ranked_by_target_id(user_weight):
    # each target 5, 3, 9 shares its own two users with trigger 1; the weights differ between the pairs' users
    rows = []
    for target, (u, v) in {5: (1, 6), 3: (5, 2), 9: (3, 4)}.items():
        rows += [(user, item, 0) for user in (u, v) for item in (1, target)]
        rows += [(max(u, v), 100 + max(u, v), 0)]
    table, _ = build_i2i_table(click_table(rows), SwingConfig(user_weight=user_weight))
    of_trigger = table.filter(pa.compute.equal(table["trigger_item_id"], 1))
    assert of_trigger["target_item_id"].to_pylist() == [3, 5, 9]


@pytest.mark.parametrize("caps", [{}, {"max_users_per_item": 20, "max_items_per_user": 7, "truncation": 10}])
def test_row_order_and_thread_count_change_nothing(caps):
    generator = np.random.default_rng(3)
    rows = random_clicks(generator)
    expected, _ = build_i2i_table(click_table(rows), SwingConfig(n_threads=1, **caps))
    for n_threads in (1, 2, 5):
        generator.shuffle(rows)
        table, _ = build_i2i_table(click_table(rows), SwingConfig(n_threads=n_threads, **caps))
        assert table.combine_chunks().equals(expected.combine_chunks())


def test_exact_scores_are_symmetric_bit_by_bit():
    table, _ = build_i2i_table(click_table(random_clicks(np.random.default_rng(4))), SwingConfig())
    scores = scores_of(table)
    assert all(scores[j, i] == value for (i, j), value in scores.items())


def planted_clicks(generator, n_communities=8, n_items=12, n_users=60, n_clicks=6):
    rows = []
    for community in range(n_communities):
        for user in range(n_users):
            items = generator.choice(n_items, n_clicks, replace=False) + community * n_items
            rows += [(community * n_users + user, int(item), 0) for item in items]
    return rows


def share_of_same_community(table, n_items=12):
    trigger, target = table["trigger_item_id"].to_numpy(), table["target_item_id"].to_numpy()
    return np.mean(trigger // n_items == target // n_items)


def test_planted_communities_are_found_and_shuffled_ones_are_at_chance():
    generator = np.random.default_rng(5)
    rows = planted_clicks(generator)
    noise = [(int(generator.integers(480)), int(generator.integers(96)), 0) for _ in range(500)]
    found, _ = build_i2i_table(click_table(rows + noise), SwingConfig(truncation=10))
    assert share_of_same_community(found) > 0.95
    shuffled = generator.permutation([item for _, item, _ in rows])
    rows = [(user, int(item), 0) for (user, _, _), item in zip(rows, shuffled, strict=True)]
    at_chance, _ = build_i2i_table(click_table(rows), SwingConfig(truncation=10))
    assert share_of_same_community(at_chance) == pytest.approx(11 / 95, abs=0.04)


def test_no_clicks_give_an_empty_table():
    table, report = build_i2i_table(click_table([]), SwingConfig())
    assert table.schema == I2I_TABLE.schema
    assert (table.num_rows, report.n_triggers, report.mean_targets, report.share_clicks_dropped) == (
        0,
        0,
        0,
        0,
    )


@pytest.mark.parametrize(
    "option",
    [
        {"alpha": 0},
        {"alpha": -1},
        {"alpha": float("nan")},
        {"alpha": 1e-320},
        {"truncation": 2**63},
        {"max_users_per_item": 2**63},
        {"memory_budget_gib": 1e300},
        {"truncation": 0},
        {"user_weight": "log"},
        {"max_users_per_item": 1},
        {"max_items_per_user": 0},
        {"n_threads": -1},
        {"smoothing": 1},
    ],
)
def test_a_bad_option_is_refused(option):
    with pytest.raises(ValidationError):
        SwingConfig(**option)


def test_clicks_without_a_column_or_with_nulls_are_refused():
    clicks = click_table([(1, 1, 0)])
    with pytest.raises(BadClicks, match="no column event_time"):
        build_i2i_table(clicks.drop_columns("event_time"), SwingConfig())
    nulls = clicks.set_column(0, "user_id", pa.array([None], pa.int64()))
    with pytest.raises(BadClicks, match="1 nulls in user_id"):
        build_i2i_table(nulls, SwingConfig())


def test_real_days_are_indexed_in_seconds(kuairand_pure):
    log = pyarrow.csv.read_csv(kuairand_pure / "data" / "log_standard_4_22_to_5_08_pure.csv")
    log = log.filter(pa.compute.equal(log["is_click"], 1)).rename_columns(
        {"video_id": "item_id", "time_ms": "event_time"}
    )
    table, report = build_i2i_table(log.select(["user_id", "item_id", "event_time"]), SwingConfig())
    assert report.n_clicks == 81_878
    assert report.n_rows == table.num_rows > 50_000
    assert report.seconds < 30
