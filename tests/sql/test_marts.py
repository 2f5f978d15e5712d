"""Marts: rows in, rows out."""

from datetime import date, datetime

import pyarrow as pa
import pytest

from lakehouse.sql import run_sql
from lakehouse.tables import (
    CLICK,
    EXPOSURE,
    IDS,
    INITIAL_HISTORY,
    ITEM_SNAPSHOT,
    RETRIEVAL_LOG,
    TARGET_GROUP,
    TIME,
    USER_HISTORY,
)
from models.pi2i.trigger_index import COUNTS

DAY = date(2026, 1, 5)
EVE = date(2026, 1, 4)
DS = pa.field("ds", pa.date32())


def at(hour: int, minute: int = 0, day: int = 5) -> datetime:
    return datetime(2026, 1, day, hour, minute)


def rows(table, *values, ds=DAY) -> pa.Table:
    """Rows of a declared table, given as tuples in its column order, all of one day."""
    names = [*table.schema.names, "ds"]
    schema = pa.schema([*table.schema, DS])
    return pa.Table.from_pylist([dict(zip(names, (*value, ds), strict=True)) for value in values], schema)


def exposure(user, item, time, *, scenario="home", request=None, click=False, order=False):
    return (request, user, item, scenario, time, 0, click, order)


def test_clicks_and_orders_of_any_scenario_are_positive():
    given = rows(
        EXPOSURE,
        exposure(1, 10, at(9), click=True),
        exposure(1, 11, at(9), scenario="search", order=True),
        exposure(1, 12, at(9)),
    )
    clicks = run_sql("marts/click", {"exposure": given}, {"day": DAY})
    assert clicks.to_pylist() == [
        {"user_id": 1, "item_id": 10, "scenario": "home", "event_time": at(9)},
        {"user_id": 1, "item_id": 11, "scenario": "search", "event_time": at(9)},
    ]


def test_statistics_count_an_item_s_clicks_by_age_and_its_exposures_of_the_last_day():
    clicks = pa.concat_tables(
        rows(CLICK, *((user, item, "home", at(9, day=day)) for user, item in pairs), ds=date(2026, 1, day))
        for day, pairs in {1: [(1, 10), (2, 10)], 3: [(1, 11)], 5: [(1, 10)]}.items()
    )
    shown = rows(EXPOSURE, exposure(1, 12, at(9)), exposure(2, 12, at(9)), exposure(1, 10, at(9), click=True))
    found = run_sql(
        "marts/item_statistic",
        {"click": clicks, "exposure": shown},
        {"first_day": date(2026, 1, 1), "day": DAY, "third_day": date(2026, 1, 3)},
    )
    assert found.column_names == ["item_id", *COUNTS]
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        (10, 1, 1, 3, 1),
        (11, 0, 1, 1, 0),
        (12, 0, 0, 0, 2),
    ]


def window_clicks(clicks, brought, window_start=datetime(2026, 1, 1)):
    return run_sql(
        "marts/window_click",
        {"click": clicks, "initial_history": brought},
        {"first_day": date(2026, 1, 1), "last_day": DAY, "window_start": window_start},
    )


def test_history_is_distinct_oldest_first_and_keeps_the_order_of_the_warm_start():
    clicks = rows(CLICK, (1, 10, "home", at(8)), (1, 11, "home", at(9)), (1, 10, "search", at(10)))
    brought = rows(INITIAL_HISTORY, (1, [5, 6, 11], at(1, day=2)), (2, [7], at(1, day=2)))
    history = run_sql(
        "marts/user_history", {"window_click": window_clicks(clicks, brought)}, {"history_length": 100}
    )
    assert history["user_id"].to_pylist() == [1, 2]
    assert history["item_ids"].to_pylist() == [[5, 6, 11, 10], [7]]
    assert history["event_times"].to_pylist()[0] == [at(1, day=2), at(1, day=2), at(9), at(10)]
    assert history["scenarios"].to_pylist() == [["", "", "home", "search"], [""]]


def test_history_names_one_scenario_of_uses_at_one_time():
    clicks = rows(CLICK, (1, 10, "home", at(8)), (1, 10, "search", at(8)), (1, 10, "video", at(7)))
    history = run_sql(
        "marts/user_history",
        {"window_click": window_clicks(clicks, rows(INITIAL_HISTORY))},
        {"history_length": 3},
    )
    assert history["scenarios"].to_pylist() == [["search"]]


def test_warm_start_leaves_the_window_with_its_last_time():
    brought = rows(INITIAL_HISTORY, (1, [5], at(1, day=2)), (2, [7], at(1, day=4)))
    clicks = window_clicks(rows(CLICK), brought, window_start=at(0, day=3))
    assert clicks["user_id"].to_pylist() == [2]


def test_history_keeps_the_most_recent_items():
    clicks = rows(CLICK, *((1, item, "home", at(1, item)) for item in range(10)))
    history = run_sql(
        "marts/user_history",
        {"window_click": window_clicks(clicks, rows(INITIAL_HISTORY))},
        {"history_length": 3},
    )
    assert history["item_ids"].to_pylist() == [[7, 8, 9]]


def test_item_index_only_grows():
    yesterday = pa.table(
        {
            "item_id": pa.array([30, 10], pa.int64()),
            "item_index": pa.array([1, 2], pa.int32()),
            "first_day": pa.array([EVE, EVE], pa.date32()),
        }
    )
    items = pa.table({"item_id": pa.array([10, 20, 30], pa.int64()), "ds": pa.array([DAY] * 3, pa.date32())})
    index = run_sql(
        "marts/item_index",
        {
            "yesterday": yesterday,
            "item": items,
            "click": rows(CLICK, (1, 15, "home", at(8))),
            "initial_history": rows(INITIAL_HISTORY),
        },
        {"day": DAY},
    )
    assert dict(zip(index["item_id"].to_pylist(), index["item_index"].to_pylist(), strict=True)) == {
        30: 1,
        10: 2,
        15: 3,
        20: 4,
    }


def requests(*exposures, gap=1800):
    return run_sql(
        "marts/request",
        {"exposure": rows(EXPOSURE, *exposures)},
        {"day": DAY, "primary_scenario": "home", "visit_gap_seconds": gap},
    )


def test_a_pause_starts_a_new_visit_where_logs_carry_no_request_ids():
    found = requests(
        exposure(1, 10, at(9, 0)),
        exposure(1, 11, at(9, 30)),
        exposure(1, 12, at(10, 1)),
        exposure(1, 13, at(10, 2), scenario="search"),
        exposure(2, 10, at(9, 0)),
    )
    assert found["event_time"].to_pylist() == [at(9), at(10, 1), at(9)]
    assert found["exposed_item_ids"].to_pylist() == [[10, 11], [12], [10]]
    assert len(set(found["request_id"].to_pylist())) == 3


def test_logged_request_ids_tell_requests_apart_without_a_pause():
    found = requests(
        exposure(1, 10, at(9), request=7),
        exposure(1, 11, at(9, 1), request=8),
        exposure(1, 12, at(9, 2), request=8),
    )
    assert found["request_id"].to_pylist() == [1, 2]
    assert found["exposed_item_ids"].to_pylist() == [[10], [11, 12]]


@pytest.fixture
def two_requests():
    """User 1 visits at 9:00 and at 12:00."""
    return requests(exposure(1, 10, at(9)), exposure(1, 11, at(12)))


def request_histories(found, history, clicks):
    return run_sql(
        "marts/request_history",
        {
            "request": found,
            "user_history": rows(USER_HISTORY, *history, ds=EVE),
            "click": rows(CLICK, *clicks),
        },
        {"day": DAY, "yesterday": EVE, "history_length": 100},
    )


def test_request_history_sees_only_what_was_strictly_before(two_requests):
    found = request_histories(
        two_requests,
        [(1, [5, 6], [at(1, day=3), at(2, day=3)], ["", "home"])],
        [(1, 7, "search", at(9)), (1, 5, "search", at(10)), (1, 8, "home", at(12))],
    )
    assert found["history_item_ids"].to_pylist() == [[5, 6], [6, 7, 5]]
    old = at(2, day=3)
    assert found["history_event_times"].to_pylist() == [[at(1, day=3), old], [old, at(9), at(10)]]
    assert found["history_scenarios"].to_pylist() == [["", "home"], ["home", "search", "search"]]


def new_item_clicks(history, clicks):
    return run_sql(
        "marts/new_item_click",
        {"user_history": rows(USER_HISTORY, *history, ds=EVE), "click": rows(CLICK, *clicks)},
        {"day": DAY, "yesterday": EVE},
    )


def test_a_click_counts_at_its_first_time_and_not_on_an_item_of_the_history():
    found = new_item_clicks(
        [(1, [5, 6], [at(1, day=3), at(2, day=3)], ["", "home"])],
        [
            (1, 5, "home", at(9)),
            (1, 7, "search", at(9, 2)),
            (1, 7, "home", at(9, 1)),
            (1, 8, "home", at(9)),
            (2, 5, "home", at(10)),
        ],
    )
    assert found.to_pylist() == [
        {"request_id": 1, "user_id": 1, "event_time": at(9), "item_id": 8},
        {"request_id": 2, "user_id": 1, "event_time": at(9, 1), "item_id": 7},
        {"request_id": 3, "user_id": 2, "event_time": at(10), "item_id": 5},
    ]


def test_the_history_of_a_click_has_the_clicks_of_the_day_strictly_before():
    clicks = [(1, 7, "home", at(9)), (1, 8, "home", at(9)), (1, 9, "search", at(10))]
    found = request_histories(new_item_clicks([], clicks), [], clicks)
    assert found["item_id"].to_pylist() == [7, 8, 9]
    assert found["history_item_ids"].to_pylist() == [[], [], [7, 8]]


def test_user_without_history_has_an_empty_one(two_requests):
    found = request_histories(two_requests, [], [])
    for column in ("history_item_ids", "history_event_times", "history_scenarios"):
        assert found[column].to_pylist() == [[], []]


def target_groups(found, retrieved, clicks):
    with_retrieved = found.append_column("retrieved_item_ids", pa.array(retrieved, IDS))
    return run_sql(
        "marts/target_group", {"request_history": with_retrieved, "click": rows(CLICK, *clicks)}, {"day": DAY}
    )


def test_targets_after_the_request_split_by_what_was_retrieved(two_requests):
    clicks = [(1, 20, "home", at(9)), (1, 21, "search", at(13)), (1, 22, "home", at(14))]
    found = target_groups(request_histories(two_requests, [], clicks), [[20, 22], [30]], clicks)
    assert found["rtg_item_ids"].to_pylist() == [[20, 22], []]
    assert found["itg_item_ids"].to_pylist() == [[21], [21, 22]]
    assert found["etg_item_ids"].to_pylist() == [[10], [11]]


def test_item_of_the_history_is_no_target(two_requests):
    clicks = [(1, 5, "home", at(13))]
    found = target_groups(
        request_histories(two_requests, [(1, [5], [at(1, day=3)], ["home"])], clicks), [[], []], clicks
    )
    assert found["itg_item_ids"].to_pylist() == [[], []]


def test_each_item_is_a_target_once_a_day_at_the_latest_request():
    groups = rows(
        TARGET_GROUP,
        (1, 1, at(9), [5], [at(7)], ["home"], [], [20], [21], [10, 11]),
        (2, 1, at(12), [], [], [], [], [], [20, 21, 22], [10]),
        (3, 2, at(9), [], [], [], [], [20], [], [10]),
    )
    samples = run_sql("marts/increc_sample", {"target_group": groups}, {"day": DAY})
    assert samples["request_id"].to_pylist() == [1, 2, 3]
    assert samples["history_event_times"].to_pylist() == [[at(7)], [], []]
    assert samples["history_scenarios"].to_pylist() == [["home"], [], []]
    assert samples["rtg_item_ids"].to_pylist() == [[], [], [20]]
    assert samples["itg_item_ids"].to_pylist() == [[], [20, 21, 22], []]
    assert samples["etg_item_ids"].to_pylist() == [[11], [10], [10]]


def test_evaluation_targets_are_new_to_the_user_and_r_u_is_of_the_first_request():
    given = {
        "click": rows(
            CLICK,
            (1, 20, "home", at(9)),
            (1, 20, "search", at(8)),
            (1, 5, "home", at(9)),
            (3, 9, "home", at(9)),
        ),
        "exposure": rows(EXPOSURE, exposure(1, 20, at(9)), exposure(1, 5, at(9)), exposure(2, 30, at(9))),
        "target_group": rows(
            TARGET_GROUP,
            (8, 1, at(12), [], [], [], [99], [], [], []),
            (9, 1, at(9), [5], [at(1, day=3)], ["home"], [50, 51], [], [20], [20]),
        ),
        "user_history": rows(USER_HISTORY, (1, [5], [at(1, day=3)], ["home"]), ds=EVE),
    }
    found = run_sql(
        "marts/evaluation_user",
        given,
        {"day": DAY, "yesterday": EVE, "primary_scenario": "home", "max_users": 10, "seed": 1},
    )
    assert found["user_id"].to_pylist() == [1, 2, 3]
    assert found["history_event_times"].to_pylist() == [[at(1, day=3)], [], []]
    assert found["history_scenarios"].to_pylist() == [["home"], [], []]
    assert found["target_item_ids"].to_pylist() == [[20], [], [9]]
    assert found["target_scenarios"].to_pylist() == [["search"], [], ["home"]]
    assert found["exposed_item_ids"].to_pylist() == [[20], [30], []]
    assert found["retrieved_item_ids"].to_pylist() == [[50, 51], [], []]
    assert found["itg_item_ids"].to_pylist() == [[20], [], []]


def test_draw_of_evaluated_users_is_seeded():
    given = {
        "click": rows(CLICK, *((user, 20, "home", at(9)) for user in range(100))),
        "exposure": rows(EXPOSURE),
        "target_group": rows(TARGET_GROUP),
        "user_history": rows(USER_HISTORY, ds=EVE),
    }

    def draw(seed: int) -> list[int]:
        parameters = {"day": DAY, "yesterday": EVE, "primary_scenario": "home", "max_users": 10, "seed": seed}
        return run_sql("marts/evaluation_user", given, parameters)["user_id"].to_pylist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(draw(1)) == 10


def test_times_are_utc_without_zone():
    clicks = run_sql(
        "marts/click", {"exposure": rows(EXPOSURE, exposure(1, 10, at(9), click=True))}, {"day": DAY}
    )
    assert clicks.schema.field("event_time").type == TIME


def logged_retrieval(log: pa.Table, *requests: tuple) -> list[list[int] | None]:
    """R_u of requests (request_id, user_id, event_time) by the log."""
    schema = pa.schema([("request_id", pa.int64()), ("user_id", pa.int64()), ("event_time", TIME)])
    request = pa.Table.from_pylist([dict(zip(schema.names, each, strict=True)) for each in requests], schema)
    parameters = {"day": DAY, "yesterday": EVE, "primary_scenario": "home", "visit_gap_seconds": 1800}
    found = run_sql("marts/logged_retrieval", {"request": request, "retrieval_log": log}, parameters)
    assert found["request_id"].to_pylist() == [each[0] for each in requests]
    return found["retrieved_item_ids"].to_pylist()


def test_a_request_is_answered_by_the_latest_retrieval_at_or_before_it():
    log = rows(
        RETRIEVAL_LOG,
        (None, 1, "home", at(9), None, [1, 2]),
        (None, 1, "home", at(9, 10), None, [3]),
        (None, 1, "home", at(9, 30), None, [4]),
        (None, 1, "search", at(9, 20), None, [5]),
        (None, 2, "home", at(9, 20), None, [6]),
    )
    requests = [(1, 1, at(9)), (2, 1, at(9, 29)), (3, 1, at(9, 30))]
    assert logged_retrieval(log, *requests) == [[1, 2], [3], [4]]


def test_without_a_retrieval_within_the_gap_it_is_not_known_and_one_that_found_nothing_is():
    log = rows(
        RETRIEVAL_LOG,
        (None, 1, "home", at(9), None, [1]),
        (None, 2, "home", at(9), None, []),
        (None, 3, "home", at(23, 50, day=4), None, [7]),
        ds=EVE,
    )
    requests = [(1, 1, at(9, 30)), (2, 1, at(9, 31)), (3, 2, at(9, 1)), (4, 9, at(9)), (5, 3, at(0, 5))]
    assert logged_retrieval(log, *requests) == [[1], None, [], None, [7]]


def test_the_channels_of_a_retrieval_are_merged_place_by_place():
    log = rows(
        RETRIEVAL_LOG,
        (7, 1, "home", at(9), "hot", [1, 2, 3]),
        (7, 1, "home", at(9, 1), "swing", [2, 4]),
        (8, 1, "home", at(8), "swing", [9]),
        (None, 2, "home", at(9), "swing", [5]),
        (None, 2, "home", at(9), None, [6]),
        (None, 2, "home", at(8, 59), "hot", [8]),
    )
    assert logged_retrieval(log, (1, 1, at(9, 2)), (2, 2, at(9, 2))) == [[1, 2, 4, 3], [5, 6]]


def ranked_visits(*exposed, items=()) -> list[tuple]:
    given = {"exposure": rows(EXPOSURE, *exposed), "item": rows(ITEM_SNAPSHOT, *items)}
    parameters = {"day": DAY, "visit_gap_seconds": 1800, "first_request_id": 100}
    found = run_sql("marts/visit_ranking", given, parameters).to_pylist()
    return [tuple(row.values()) for row in found]


def test_a_visit_stands_in_for_a_ranking_and_is_known_from_its_last_exposure_on():
    found = ranked_visits(
        exposure(1, 12, at(9, 20), scenario="search"),
        exposure(1, 10, at(9, 0), scenario="search"),
        exposure(1, 11, at(9, 10), scenario="search"),
        exposure(1, 10, at(9, 30), scenario="search"),  # shown again: its first place counts
        items=[(10, 7, None, None, None, True)],
    )
    assert found == [(101, 1, "search", at(9, 30), [10, 11, 12], [7, -1, -1], pytest.approx([1, 0.5, 1 / 3]))]


def test_visits_end_before_a_pause_longer_than_the_gap_and_are_of_one_user_and_scenario():
    found = ranked_visits(
        exposure(1, 10, at(9, 0), scenario="search"),
        exposure(1, 11, at(9, 30), scenario="search"),
        exposure(1, 12, at(10, 1), scenario="search"),
        exposure(1, 13, at(9, 10), scenario="shop"),
        exposure(2, 10, at(9, 0), scenario="search"),
    )
    assert [(row[1], row[2], row[3], row[4]) for row in found] == [
        (1, "shop", at(9, 10), [13]),
        (1, "search", at(9, 30), [10, 11]),
        (1, "search", at(10, 1), [12]),
        (2, "search", at(9, 0), [10]),
    ]
    assert len({row[0] for row in found}) == 4


def test_a_replayed_request_tells_what_it_showed_and_what_came_of_it_before_the_next_one():
    groups = rows(
        TARGET_GROUP,
        (1, 7, at(9), [5], [at(8)], ["home"], [], [10], [11], [10, 12]),
        (2, 7, at(12), [5], [at(8)], ["home"], [], [], [], [10]),
        (3, 8, at(12), [], [], [], [], [], [], []),
    )
    shown = rows(
        EXPOSURE,
        exposure(7, 10, at(9), click=True),
        exposure(7, 10, at(9, 1), scenario="search", click=True, order=True),
        exposure(7, 12, at(9, 2)),
        exposure(7, 12, at(9, 3), order=True),
        exposure(7, 10, at(12)),
    )
    found = run_sql(
        "marts/replay_request",
        {"target_group": groups, "exposure": shown},
        {"day": DAY, "primary_scenario": "home"},
    )
    columns = ("request_id", "exposed_item_ids", "exposed_is_click", "exposed_is_order")
    assert [tuple(row[name] for name in columns) for row in found.to_pylist()] == [
        (1, [10, 12], [True, False], [False, True]),
        (2, [10], [False], [False]),
        (3, [], [], []),
    ]
    assert found["rtg_item_ids"].to_pylist() == [[10], [], []]
