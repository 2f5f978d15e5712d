"""Staging: source rows in; canonical rows, and why others are refused, out."""

import json
from datetime import datetime

import pyarrow as pa
import pytest

from lakehouse.sql import run_sql

BOUNDS = {"earliest": datetime(2022, 4, 30, 15), "day_end": datetime(2022, 5, 1, 16)}
EXPOSURE = {
    "request_id": None,
    "user_id": "1",
    "item_id": "10",
    "scenario": "1",
    "event_time": "2022-05-01 04:00:00.5",
    "position": None,
    "is_click": "1",
    "is_order": "false",
}
RANKING = {
    "request_id": 7,
    "user_id": 1,
    "scenario": "home",
    "event_time": datetime(2022, 5, 1, 4),
    "item_ids": [10, 11],
    "category_ids": [1, 2],
    "scores": [0.5, 0.25],
}
RETRIEVAL = {
    "request_id": 7,
    "user_id": 1,
    "scenario": "home",
    "event_time": datetime(2022, 5, 1, 4),
    "channel": "swing",
    "item_ids": [10, 11],
}
ITEM = {
    "item_id": "10",
    "category_id": None,
    "author_id": "7.0",
    "brand_id": None,
    "price": "1.5",
    "is_available": "true",
}
USER = {"user_id": "1", "profile": ["b=2", "a=1"]}
HISTORY = {"user_id": "1", "item_ids": [11, 10], "last_event_time": "2022-04-30 15:59:59"}


def stage(name: str, rows: list[dict], parameters: dict | None = None) -> list[dict]:
    """Stage text, or the types that Arrow infers, plus the reader's own two columns."""
    names = [*rows[0], "read_error", "raw_line"]
    columns = {column: [row.get(column) for row in rows] for column in names}
    arrays = {
        column: pa.array(values, pa.string()) if all(v is None for v in values) else pa.array(values)
        for column, values in columns.items()
    }
    return run_sql(f"staging/{name}", {"source_rows": pa.table(arrays)}, parameters).to_pylist()


def reasons(name: str, rows: list[dict], parameters: dict | None = None) -> list[str | None]:
    return [row["reject_reason"] for row in stage(name, rows, parameters)]


def test_good_exposure_gets_its_types():
    assert stage("exposure", [EXPOSURE], BOUNDS) == [
        {
            "request_id": None,
            "user_id": 1,
            "item_id": 10,
            "scenario": "1",
            "event_time": datetime(2022, 5, 1, 4, 0, 0, 500_000),
            "position": None,
            "is_click": True,
            "is_order": False,
            "reject_reason": None,
            "source_row": None,
        }
    ]


def test_typed_exposure_passes_unchanged():
    typed = EXPOSURE | {"request_id": 5, "user_id": 1, "item_id": 10, "position": 3}
    typed |= {"event_time": datetime(2022, 5, 1, 4), "is_click": True, "is_order": False}
    row = stage("exposure", [typed], BOUNDS)[0]
    assert row["reject_reason"] is None
    assert {name: row[name] for name in typed} == typed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"user_id": None}, "user_id is null"),
        ({"user_id": "u1"}, "user_id is no whole number"),
        ({"user_id": "1.5"}, "user_id is no whole number"),
        ({"user_id": "-1"}, "user_id is no whole number"),
        ({"user_id": "nan"}, "user_id is no whole number"),
        ({"user_id": "9" * 20}, "user_id is no whole number"),
        ({"item_id": None}, "item_id is null"),
        ({"item_id": "B00X"}, "item_id is no whole number"),
        ({"scenario": None}, "scenario is null"),
        ({"event_time": None}, "event_time is null"),
        ({"event_time": "noon"}, "event_time is no time"),
        ({"event_time": "2022-04-30 14:59:59.999"}, "event_time is more than an hour before the day"),
        ({"event_time": "2022-04-30 15:00:00"}, None),
        ({"event_time": "2022-05-01 15:59:59.999"}, None),
        ({"event_time": "2022-05-01 16:00:00"}, "event_time is after the end of the day"),
        ({"event_time": "2022-05-01 16:30:00+08"}, None),
        ({"is_click": "maybe"}, "is_click is no truth value"),
        ({"is_order": None}, "is_order is no truth value"),
        ({"request_id": "r1"}, "request_id is no whole number"),
        ({"position": "top"}, "position is no whole number"),
        ({"read_error": "broken line: too many columns"}, "broken line: too many columns"),
    ],
)
def test_bad_exposure_is_refused_with_its_reason(change: dict, reason: str | None):
    row = stage("exposure", [EXPOSURE | change], BOUNDS)[0]
    assert row["reject_reason"] == reason
    if reason:
        kept = json.loads(row["source_row"])
        assert {name: kept[name] for name in change} == change


def test_repeated_exposure_is_refused_once_per_copy():
    assert reasons("exposure", [EXPOSURE] * 3, BOUNDS) == [None, "duplicate", "duplicate"]


@pytest.mark.parametrize("backwards", [False, True])
def test_of_one_key_the_exposure_with_most_behaviour_stays(backwards: bool):
    rows = [EXPOSURE | {"is_click": "0"}, EXPOSURE, EXPOSURE | {"is_order": "true"}, EXPOSURE]
    staged = stage("exposure", rows[::-1] if backwards else rows, BOUNDS)
    assert [(row["is_order"], row["is_click"], row["reject_reason"]) for row in staged] == [
        (True, True, None),
        (False, True, "duplicate"),
        (False, False, "duplicate key, other content"),
        (False, True, "duplicate key, other content"),
    ]


def test_bad_rows_do_not_make_a_good_one_a_duplicate():
    rows = [EXPOSURE | {"is_click": "maybe"}, EXPOSURE, EXPOSURE | {"is_click": "maybe"}]
    assert sorted(map(str, reasons("exposure", rows, BOUNDS))) == [
        "None",
        "is_click is no truth value",
        "is_click is no truth value",
    ]


def test_order_of_the_rows_does_not_matter():
    rows = [EXPOSURE | {"user_id": str(user), "position": str(user)} for user in (2, 1, 3, 1)]
    assert stage("exposure", rows, BOUNDS) == stage("exposure", rows[::-1], BOUNDS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"item_ids": "[10, 11]", "category_ids": "[1,2]", "scores": "[0.5, 0.25]"}, None),
        ({"request_id": None}, "request_id is null"),
        ({"scores": [0.5, float("nan")]}, "scores holds what is no finite number"),
        ({"scores": [0.5, float("inf")]}, "scores holds what is no finite number"),
        ({"scores": [0.5, None]}, "scores holds what is no finite number"),
        ({"scores": [0.5]}, "item_ids, category_ids and scores have unequal lengths"),
        ({"category_ids": [1, 2, 3]}, "item_ids, category_ids and scores have unequal lengths"),
        ({"item_ids": [], "category_ids": [], "scores": []}, "item_ids is empty"),
        ({"item_ids": None}, "item_ids is no list"),
        ({"item_ids": "ten"}, "item_ids is no list"),
        ({"item_ids": "[10, ten]"}, "item_ids holds what is no whole number"),
        ({"item_ids": [10, -1]}, "item_ids holds what is no whole number"),
        ({"category_ids": [1, None]}, "category_ids holds what is no whole number"),
        ({"event_time": datetime(2022, 5, 2)}, "event_time is after the end of the day"),
    ],
)
def test_ranking_is_judged(change: dict, reason: str | None):
    row = stage("ranking_log", [RANKING | change], BOUNDS)[0]
    assert row["reject_reason"] == reason
    if reason is None:
        assert (row["item_ids"], row["category_ids"], row["scores"]) == ([10, 11], [1, 2], [0.5, 0.25])


def test_repeated_ranking_is_refused():
    rows = [RANKING, RANKING, RANKING | {"scores": [0.125, 0.25]}]
    assert sorted(map(str, reasons("ranking_log", rows, BOUNDS))) == [
        "None",
        "duplicate",
        "duplicate key, other content",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"item_ids": "[10, 11]"}, None),
        ({"item_ids": []}, None),
        ({"request_id": None, "channel": None}, None),
        ({"request_id": "r1"}, "request_id is no whole number"),
        ({"user_id": None}, "user_id is null"),
        ({"scenario": None}, "scenario is null"),
        ({"item_ids": None}, "item_ids is no list"),
        ({"item_ids": [10, None]}, "item_ids holds what is no whole number"),
        ({"item_ids": [10, -1]}, "item_ids holds what is no whole number"),
        ({"event_time": datetime(2022, 5, 2)}, "event_time is after the end of the day"),
        ({"event_time": datetime(2022, 4, 30)}, "event_time is more than an hour before the day"),
    ],
)
def test_retrieval_is_judged(change: dict, reason: str | None):
    assert reasons("retrieval_log", [RETRIEVAL | change], BOUNDS) == [reason]


def test_repeated_retrieval_is_refused_and_other_channels_are_not():
    rows = [RETRIEVAL, RETRIEVAL, RETRIEVAL | {"item_ids": [12]}, RETRIEVAL | {"channel": "hot"}]
    assert sorted(map(str, reasons("retrieval_log", rows, BOUNDS))) == [
        "None",
        "None",
        "duplicate",
        "duplicate key, other content",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"item_id": None}, "item_id is null"),
        ({"item_id": "x"}, "item_id is no whole number"),
        ({"category_id": "toys"}, "category_id is no whole number"),
        ({"category_id": "-124"}, None),
        ({"author_id": "me"}, "author_id is no whole number"),
        ({"brand_id": "acme"}, "brand_id is no whole number"),
        ({"price": "cheap"}, "price is no number"),
        ({"price": "-1"}, "price is no price"),
        ({"price": "nan"}, "price is no price"),
        ({"price": None}, None),
        ({"is_available": None}, "is_available is no truth value"),
    ],
)
def test_item_is_judged(change: dict, reason: str | None):
    assert reasons("item", [ITEM | change]) == [reason]


def test_item_told_twice_stays_once():
    rows = [ITEM, ITEM, ITEM | {"is_available": "false"}]
    assert sorted(map(str, reasons("item", rows))) == ["None", "duplicate", "duplicate key, other content"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"profile": []}, None),
        ({"user_id": None}, "user_id is null"),
        ({"user_id": "ann"}, "user_id is no whole number"),
        ({"profile": None}, "profile is no list"),
        ({"profile": ["a=1", None]}, "profile holds what is not name=value"),
        ({"profile": ["young"]}, "profile holds what is not name=value"),
    ],
)
def test_user_is_judged(change: dict, reason: str | None):
    assert reasons("user", [USER | change]) == [reason]


def test_profile_is_sorted():
    assert stage("user", [USER])[0]["profile"] == ["a=1", "b=2"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"user_id": None}, "user_id is null"),
        ({"item_ids": None}, "item_ids is no list"),
        ({"item_ids": [10, None]}, "item_ids holds what is no whole number"),
        ({"last_event_time": None}, "last_event_time is null"),
        ({"last_event_time": "long ago"}, "last_event_time is no time"),
        ({"last_event_time": "2022-04-30 16:00:00"}, "last_event_time is not before the first day"),
    ],
)
def test_past_of_a_user_is_judged(change: dict, reason: str | None):
    parameters = {"day_start": datetime(2022, 4, 30, 16)}
    staged = stage("initial_history", [HISTORY | change], parameters)
    assert [row["reject_reason"] for row in staged] == [reason]
    if reason is None:
        assert staged[0]["item_ids"] == [11, 10]
