"""Rows in, bad rows out; and the header of every check is complete."""

from datetime import date, datetime, timedelta

import pyarrow as pa
import pytest

from lakehouse import tables
from lakehouse.sql import run_sql
from lakehouse.tables import Table
from tasks.checks import Check, read_checks

DAY = date(2022, 5, 2)
NOON = datetime(2022, 5, 2, 12)


def rows_of(table: Table, *rows: dict[str, object], ds: date = DAY) -> pa.Table:
    """Give rows of a table, columns that are left out being null, as a relation of one day."""
    schema = pa.schema([pa.field(field.name, field.type) for field in table.schema])
    columns = {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema}
    return pa.table(columns, schema=schema).append_column("ds", pa.array([ds] * len(rows), pa.date32()))


def exposure(user_id: int, item_id: int, **others: object) -> dict[str, object]:
    common = {"scenario": "home", "event_time": NOON, "is_click": False, "is_order": False}
    return {"user_id": user_id, "item_id": item_id, **common, **others}


def ranking(request_id: int, item_ids: list[int], scores: list[float]) -> dict[str, object]:
    common = {"user_id": 1, "scenario": "search", "event_time": NOON, "category_ids": []}
    return {"request_id": request_id, "item_ids": item_ids, "scores": scores, **common}


def bad_rows(name: str, **inputs: pa.Table) -> list[dict[str, object]]:
    return run_sql(f"checks/{name}", inputs, {"day": DAY}).to_pylist()


@pytest.mark.parametrize("check", read_checks(), ids=lambda check: check.name)
def test_check_selects_nothing_from_no_rows(check: Check) -> None:
    inputs = {name: rows_of(tables.TABLES[name.removeprefix("trailing_")]) for name in check.inputs}
    parameters = {"day": DAY, "max_scenario_drift": 0.25}
    given = {name: parameters[name] for name in check.parameters}

    assert run_sql(f"checks/{check.name}", inputs, given).num_rows == 0
    assert check.table in check.inputs


def test_exposed_item_missing_selects_exposures_of_unknown_items() -> None:
    exposures = rows_of(tables.EXPOSURE, exposure(1, 10), exposure(2, 11), exposure(3, 12))
    items = rows_of(tables.ITEM_SNAPSHOT, {"item_id": 10})
    old_items = rows_of(tables.ITEM_SNAPSHOT, {"item_id": 12}, ds=DAY - timedelta(days=1))

    assert bad_rows(
        "exposed_item_missing", exposure=exposures, item=pa.concat_tables([items, old_items])
    ) == [
        {"item_id": 11, "user_id": 2, "event_time": NOON},
        {"item_id": 12, "user_id": 3, "event_time": NOON},
    ]


def test_exposed_user_missing_counts_the_exposures_of_unknown_users() -> None:
    exposures = rows_of(tables.EXPOSURE, exposure(1, 10), exposure(2, 10), exposure(2, 11))
    users = rows_of(tables.USER_SNAPSHOT, {"user_id": 1, "profile": []})

    assert bad_rows("exposed_user_missing", exposure=exposures, user=users) == [
        {"user_id": 2, "n_exposures": 2}
    ]


def test_order_without_click_selects_orders_of_what_was_not_clicked() -> None:
    exposures = rows_of(
        tables.EXPOSURE,
        exposure(1, 10, is_click=True, is_order=True),
        exposure(1, 11, is_order=True),
        exposure(1, 12, is_click=True),
    )

    assert bad_rows("order_without_click", exposure=exposures) == [
        {"user_id": 1, "item_id": 11, "event_time": NOON}
    ]


def test_item_shown_twice_looks_into_one_request_and_leaves_logs_without_requests_alone() -> None:
    later = NOON + timedelta(seconds=1)
    exposures = rows_of(
        tables.EXPOSURE,
        exposure(1, 10, request_id=1),
        exposure(1, 10, request_id=1, event_time=later),
        exposure(1, 10, request_id=2),
        exposure(2, 20),
        exposure(2, 20, event_time=later),
    )

    assert bad_rows("item_shown_twice", exposure=exposures) == [{"request_id": 1, "item_id": 10, "n_rows": 2}]


def test_scenario_drift_selects_shares_that_moved_and_scenarios_that_came_or_went() -> None:
    yesterday = DAY - timedelta(days=1)
    scenarios = {"home": (6, 5), "search": (4, 1), "live": (0, 4)}
    before = [exposure(n, n, scenario=s) for s, (n_rows, _) in scenarios.items() for n in range(n_rows)]
    today = [exposure(n, n, scenario=s) for s, (_, n_rows) in scenarios.items() for n in range(n_rows)]
    inputs = {
        "exposure": rows_of(tables.EXPOSURE, *today),
        "trailing_exposure": rows_of(tables.EXPOSURE, *before, ds=yesterday),
    }

    drifted = run_sql("checks/scenario_drift", inputs, {"day": DAY, "max_scenario_drift": 0.2}).to_pylist()

    assert drifted == [
        {"scenario": "live", "share": 0.4, "trailing_share": 0.0},
        {"scenario": "search", "share": 0.1, "trailing_share": 0.4},
    ]


def test_ranking_repeats_item_counts_the_repeated_items() -> None:
    log = rows_of(tables.RANKING_LOG, ranking(1, [1, 2, 1, 1], [4, 3, 2, 1]), ranking(2, [1, 2], [2, 1]))

    assert bad_rows("ranking_repeats_item", ranking_log=log) == [
        {"request_id": 1, "user_id": 1, "scenario": "search", "n_repeated": 2}
    ]


def test_ranking_out_of_order_lets_equal_scores_pass() -> None:
    log = rows_of(
        tables.RANKING_LOG, ranking(1, [1, 2, 3], [0.5, 0.5, 0.1]), ranking(2, [1, 2, 3], [0.1, 0.5, 0.2])
    )

    assert [row["request_id"] for row in bad_rows("ranking_out_of_order", ranking_log=log)] == [2]


def test_ranked_item_missing_counts_the_rankings_of_unknown_items() -> None:
    log = rows_of(tables.RANKING_LOG, ranking(1, [1, 2], [2, 1]), ranking(2, [2], [1]))
    items = rows_of(tables.ITEM_SNAPSHOT, {"item_id": 1})

    assert bad_rows("ranked_item_missing", ranking_log=log, item=items) == [{"item_id": 2, "n_rankings": 2}]


def test_price_not_finite_lets_unknown_prices_pass() -> None:
    prices = [1.5, None, float("nan"), float("inf")]
    items = rows_of(tables.ITEM_SNAPSHOT, *({"item_id": n, "price": p} for n, p in enumerate(prices)))

    assert [row["item_id"] for row in bad_rows("price_not_finite", item=items)] == [2, 3]


def test_profile_malformed_selects_features_without_a_name() -> None:
    users = rows_of(
        tables.USER_SNAPSHOT,
        {"user_id": 1, "profile": ["age=20", "sex="]},
        {"user_id": 2, "profile": ["young", "=20"]},
        {"user_id": 3, "profile": []},
    )

    assert bad_rows("profile_malformed", user=users) == [
        {"user_id": 2, "feature": "=20"},
        {"user_id": 2, "feature": "young"},
    ]
