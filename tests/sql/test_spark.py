"""Every file of ``sql/`` gives the same on Spark as on DuckDB: the same rows, order and types."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lakehouse import tables
from lakehouse.digest import digest_rows
from lakehouse.sql import SQL_FOLDER, run_sql
from tests.sql import spark_cases as cases
from tests.sql.spark_cases import BOUNDS, DAY, EVE, N_ITEMS, N_USERS, START, exposures, of_day

QUERIES = sorted(str(path.relative_to(SQL_FOLDER).with_suffix("")) for path in SQL_FOLDER.rglob("*.sql"))
Case = tuple[dict[str, pa.Table], dict[str, object]]


def clicks() -> pa.Table:
    rows = run_sql("marts/click", {"exposure": exposures(1)}, {"day": DAY})
    return rows.append_column("ds", pa.array([DAY] * rows.num_rows, pa.date32()))


def brought() -> pa.Table:
    generator = np.random.default_rng(3)
    user_ids = range(0, N_USERS + 5, 3)
    items = [generator.permutation(N_ITEMS)[: generator.integers(0, 9)] for _ in user_ids]
    times = [START - timedelta(days=int(n)) for n in generator.integers(1, 9, len(user_ids))]
    columns = {"user_id": user_ids, "item_ids": items, "last_event_time": times}
    return of_day(tables.INITIAL_HISTORY, columns, EVE)


def window_clicks() -> Case:
    given = {"click": clicks(), "initial_history": brought()}
    return given, {"first_day": EVE, "last_day": DAY, "window_start": START - timedelta(days=5)}


def histories() -> pa.Table:
    """Histories of the day before, of most users, from the warm start."""
    rows = run_sql(
        "marts/user_history",
        {
            "window_click": run_sql(
                "marts/window_click",
                {"click": clicks().slice(0, 0), "initial_history": brought()},
                window_clicks()[1],
            )
        },
        {"history_length": 5},
    )
    return rows.append_column("ds", pa.array([EVE] * rows.num_rows, pa.date32()))


def requests(has_requests: bool) -> Case:
    given = {"exposure": exposures(1, has_requests=has_requests)}
    return given, {"day": DAY, "primary_scenario": "home", "visit_gap_seconds": 1800}


def request_histories() -> Case:
    given = {
        "request": run_sql("marts/request", *requests(True)),
        "user_history": histories(),
        "click": clicks(),
    }
    return given, {"day": DAY, "yesterday": EVE, "history_length": 4}


def new_item_clicks() -> Case:
    return {"user_history": histories(), "click": clicks()}, {"day": DAY, "yesterday": EVE}


def click_histories() -> Case:
    given, parameters = new_item_clicks()
    found = run_sql("marts/new_item_click", given, parameters)
    return {"request": found, **given}, {**parameters, "history_length": 4}


def targets() -> Case:
    rows = run_sql("marts/request_history", *request_histories())
    generator = np.random.default_rng(4)
    retrieved = [generator.permutation(N_ITEMS)[: generator.integers(0, 30)] for _ in range(rows.num_rows)]
    given = rows.append_column("retrieved_item_ids", pa.array(retrieved, tables.IDS))
    return {"request_history": given, "click": clicks()}, {"day": DAY}


def target_groups() -> pa.Table:
    rows = run_sql("marts/target_group", *targets()).select(tables.TARGET_GROUP.schema.names)
    return rows.append_column("ds", pa.array([DAY] * rows.num_rows, pa.date32()))


def evaluated(max_users: int) -> Case:
    given = {
        "click": clicks(),
        "exposure": exposures(1),
        "target_group": target_groups(),
        "user_history": histories(),
    }
    parameters = {"day": DAY, "yesterday": EVE, "primary_scenario": "home", "max_users": max_users, "seed": 1}
    return given, parameters


def items(n: int = N_ITEMS) -> pa.Table:
    prices = [None, 1.5, float("nan"), float("inf"), -float("inf")]
    columns = {
        "item_id": range(n),
        "category_id": [None if i % 7 == 0 else i % 5 for i in range(n)],
        "author_id": [None] * n,
        "brand_id": range(n),
        "price": [prices[i % 5] for i in range(n)],
        "is_available": [i % 3 > 0 for i in range(n)],
    }
    return of_day(tables.ITEM_SNAPSHOT, columns)


def priced() -> pa.Table:
    """Items whose prices lie at powers of two less one, and just beside them."""
    at = np.array([np.float32(2.0**power - 1) for power in range(N_ITEMS // 3)])
    beside = [np.nextafter(at, np.float32(way)) for way in (0, np.inf)]
    rows = items()
    prices = pa.array(np.stack([at, *beside], axis=1).reshape(-1), pa.float32())
    return rows.set_column(rows.schema.get_field_index("price"), "price", prices)


def indexed(n: int) -> pa.Table:
    index = np.arange(1, n + 1, dtype=np.int32)
    return of_day(
        tables.ITEM_INDEX, {"item_id": index[::-1] * 2, "item_index": index, "first_day": [EVE] * n}
    )


def index_of(n: int) -> Case:
    given = {
        "yesterday": indexed(n).drop(["ds"]),
        "item": items(),
        "click": clicks(),
        "initial_history": brought(),
    }
    return given, {"day": DAY}


def users() -> pa.Table:
    profiles = [["a=1", "b"], [], ["=x", None], ["c=\n"], ["Ä=ß", "d=="]]
    return of_day(
        tables.USER_SNAPSHOT, {"user_id": range(20), "profile": [profiles[i % 5] for i in range(20)]}
    )


def retrievals() -> pa.Table:
    """Retrievals of two channels, with and without request ids, around and far from the requests."""
    generator = np.random.default_rng(6)
    n = 400
    columns = {
        "request_id": [None if i % 3 == 0 else i // 2 for i in range(n)],
        "user_id": generator.integers(0, N_USERS, n),
        "scenario": generator.choice(cases.SCENARIOS[:2], n),
        "event_time": [START + timedelta(minutes=int(m)) for m in generator.integers(-30, 1440, n)],
        "channel": [("swing", "hot", None)[i % 3] for i in range(n)],
        "item_ids": [generator.integers(0, 90, generator.integers(0, 9)) for _ in range(n)],
    }
    return of_day(tables.RETRIEVAL_LOG, columns)


def logged_retrievals() -> Case:
    request = run_sql("marts/request", *requests(True))
    parameters = {"day": DAY, "yesterday": EVE, "primary_scenario": "home", "visit_gap_seconds": 7200}
    return {"request": request, "retrieval_log": retrievals()}, parameters


def rankings() -> pa.Table:
    generator = np.random.default_rng(5)
    item_ids = [generator.integers(0, 90, generator.integers(0, 9)) for _ in range(80)]
    scores = [
        np.sort(generator.random(len(i)).astype(np.float32))[:: -1 if n % 2 else 1]
        for n, i in enumerate(item_ids)
    ]
    columns = {
        "request_id": range(80),
        "user_id": [n % 7 for n in range(80)],
        "scenario": ["home"] * 80,
        "event_time": [START] * 80,
        "item_ids": item_ids,
        "category_ids": item_ids,
        "scores": scores,
    }
    return of_day(tables.RANKING_LOG, columns)


def drift() -> Case:
    trailing = pa.concat_tables([exposures(6, EVE, n=100), exposures(7)])
    today = exposures(8, n=90)
    given = {
        "exposure": today.filter(pa.compute.not_equal(today["scenario"], "detail")),
        "trailing_exposure": trailing,
    }
    return given, {"day": DAY, "max_scenario_drift": 0.001}


def check(**inputs: pa.Table) -> Callable[[], Case]:
    return lambda: (inputs, {"day": DAY})


def repeated() -> pa.Table:
    rows = exposures(1)
    return pa.concat_tables([rows, rows.slice(0, 40), exposures(2, EVE, n=50)])


CASES: dict[str, list[Callable[[], Case]]] = {
    "checks/exposed_item_missing": [lambda: ({"exposure": repeated(), "item": items(30)}, {"day": DAY})],
    "checks/exposed_user_missing": [lambda: ({"exposure": repeated(), "user": users()}, {"day": DAY})],
    "checks/item_shown_twice": [lambda: ({"exposure": repeated()}, {"day": DAY})],
    "checks/order_without_click": [lambda: ({"exposure": exposures(1)}, {"day": DAY})],
    "checks/price_not_finite": [lambda: ({"item": items()}, {"day": DAY})],
    "checks/profile_malformed": [lambda: ({"user": users()}, {"day": DAY})],
    "checks/ranked_item_missing": [lambda: ({"ranking_log": rankings(), "item": items()}, {"day": DAY})],
    "checks/ranking_out_of_order": [lambda: ({"ranking_log": rankings()}, {"day": DAY})],
    "checks/ranking_repeats_item": [lambda: ({"ranking_log": rankings()}, {"day": DAY})],
    "checks/retrieved_item_missing": [
        lambda: ({"retrieval_log": retrievals(), "item": items()}, {"day": DAY})
    ],
    "checks/scenario_drift": [drift],
    "marts/click": [lambda: ({"exposure": repeated()}, {"day": DAY})],
    "marts/evaluation_user": [lambda: evaluated(100), lambda: evaluated(9)],
    "marts/increc_sample": [lambda: ({"target_group": target_groups()}, {"day": DAY})],
    "marts/indexed_item": [lambda: ({"item_index": indexed(40), "item": items()}, {"day": DAY})],
    "marts/input_share": [lambda: ({"exposure": repeated(), "item": priced()}, {})],
    "marts/new_item_click": [new_item_clicks],
    "marts/profile_share": [lambda: ({"exposure": repeated(), "user": users()}, {})],
    "marts/item_index": [lambda: index_of(20), lambda: index_of(0)],
    "marts/item_statistic": [
        lambda: (
            {"click": clicks(), "exposure": repeated()},
            {"first_day": EVE, "day": DAY, "third_day": DAY - timedelta(days=2)},
        )
    ],
    "marts/logged_retrieval": [logged_retrievals],
    "marts/replay_request": [
        lambda: (
            {"target_group": target_groups(), "exposure": exposures(1)},
            {"day": DAY, "primary_scenario": "home"},
        )
    ],
    "marts/request": [lambda: requests(True), lambda: requests(False)],
    "marts/request_history": [request_histories, click_histories],
    "marts/target_group": [targets],
    "marts/visit_ranking": [
        lambda: (
            {"exposure": repeated(), "item": items(30)},
            {"day": DAY, "visit_gap_seconds": 1800, "first_request_id": 7 << 32},
        )
    ],
    "marts/user_history": [
        lambda: ({"window_click": run_sql("marts/window_click", *window_clicks())}, {"history_length": 6})
    ],
    "marts/window_click": [window_clicks],
    "staging/exposure": [lambda: (cases.staged_exposure(), BOUNDS), lambda: (cases.typed_exposure(), BOUNDS)],
    "staging/initial_history": [
        lambda: (cases.staged_history(), {"day_start": datetime(2022, 5, 1)}),
        lambda: (cases.textual_history(), {"day_start": datetime(2022, 5, 1, 0, 0, 1)}),
    ],
    "staging/item": [lambda: (cases.staged_item(), {})],
    "staging/ranking_log": [lambda: (cases.staged_ranking(), BOUNDS)],
    "staging/retrieval_log": [lambda: (cases.staged_retrieval(), BOUNDS)],
    "staging/user": [lambda: (cases.staged_user(), {})],
}


def _written(rows: pa.Table) -> list[str]:
    fields = [field.with_type(pa.int64()) if field.type == tables.TIME else field for field in rows.schema]
    return [repr(row) for row in rows.cast(pa.schema(fields)).to_pylist()]


def differing(found: pa.Table, expected: pa.Table) -> list[str]:
    """Show the first rows that differ; written out, so that NaN equals NaN and no time is too far off."""
    pairs = zip_longest(*(_written(rows) for rows in (found, expected)))
    return [f"Spark: {one}, DuckDB: {other}" for one, other in pairs if one != other][:3]


@pytest.mark.parametrize("name", QUERIES)
def test_query_gives_the_same_on_spark(name: str, spark) -> None:
    assert CASES.get(name), f"no rows for {name}: every query of sql/ is compared on both engines"
    for number, case in enumerate(CASES[name]):
        inputs, parameters = case()
        expected = run_sql(name, inputs, parameters)
        found = run_sql(name, inputs, parameters, spark=spark)
        assert expected.num_rows > 0, f"case {number} of {name} selects nothing: it compares nothing"
        assert found.schema == expected.schema
        assert differing(found, expected) == []
        assert digest_rows(found) == digest_rows(expected)


@pytest.mark.parametrize("name", ["marts/evaluation_user", "staging/exposure"])
def test_query_over_no_rows_keeps_its_types_on_spark(name: str, spark) -> None:
    inputs, parameters = CASES[name][0]()
    empty = {each: rows.slice(0, 0) for each, rows in inputs.items()}
    assert run_sql(name, empty, parameters, spark=spark).equals(run_sql(name, empty, parameters))


def test_no_case_is_of_a_query_that_is_gone() -> None:
    assert set(CASES) == set(QUERIES)
    assert len(QUERIES) == len({Path(name).name for name in QUERIES})
