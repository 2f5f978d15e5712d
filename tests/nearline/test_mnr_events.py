"""Which lines are ranking events, and what is said of those that are none."""

import json

import numpy as np
import pytest

from models.mnr import Cleaning, MNRConfig
from nearline.mnr_events import BadEvent, read_event
from nearline.mnr_lists import list_name
from nearline.store import open_store

NOW = 1_767_268_800_000_000
GOOD = {
    "request_id": 1,
    "user_id": 7,
    "scenario": "search",
    "event_time": NOW,
    "item_ids": [3, 5],
    "category_ids": [1, None],
    "scores": [0.9, 0.4],
}


def read(config: MNRConfig | None = None, **changed):
    return read_event(json.dumps({**GOOD, **changed}), config or MNRConfig(), NOW)


def reason(line: str, config: MNRConfig | None = None) -> str:
    with pytest.raises(BadEvent) as caught:
        read_event(line, config or MNRConfig(), NOW)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def test_line_gives_user_scenario_and_visit() -> None:
    event = read()
    assert (event.user_id, event.scenario) == (7, "search")
    assert (event.visit.request_id, event.visit.event_time) == (1, NOW)
    assert event.visit.item_ids.tolist() == [3, 5]
    assert event.visit.category_ids.tolist() == [1, -1]


def test_categories_and_scores_may_be_absent() -> None:
    for missing in ({"category_ids": None}, {"scores": None}, {"scores": [1, 0]}):
        assert read(**missing).visit.item_ids.tolist() == [3, 5]


def test_repeated_and_unknown_items_and_bad_scores_are_left_out_and_counted() -> None:
    event = read(
        item_ids=[3, None, "x", 5.5, True, 10**30, -2, 3, 8, 9],
        category_ids=list(range(10)),
        scores=[1, 1, 1, 1, 1, 1, 1, 1, float("nan"), "high"],
    )
    assert event.visit.item_ids.tolist() == [3]
    assert event.cleaning == Cleaning(n_unknown=6, n_bad_scores=2, n_repeated=1)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "garbage",
        '{"request_id": 1',
        "[1, 2]",
        "7",
        "[" * 100_000,
        "\ud800",
        *(json.dumps({name: value for name, value in GOOD.items() if name != missing}) for missing in
          ("request_id", "user_id", "scenario", "event_time", "item_ids")),
        *(json.dumps({**GOOD, **changed}) for changed in (
            {"user_id": "7"}, {"user_id": True}, {"user_id": 2**63}, {"request_id": 1.0}, {"scenario": ""},
            {"scenario": 3}, {"scenario": "half a pair \ud800"},
            {"event_time": NOW // 1000}, {"event_time": "2026-01-01"}, {"item_ids": 3},
            {"item_ids": {"3": 1}}, {"scores": [0.9]}, {"category_ids": [1, 2, 3]},
        )),
    ],
)  # fmt: skip
def test_line_that_is_no_event_is_malformed(line: str) -> None:
    assert reason(line) == "malformed"


def test_score_counts_as_finite_whatever_stands_beside_it() -> None:
    for beside, n_bad in ((0.5, 0), (float("nan"), 1), (10**400, 1), (None, 1)):
        event = read(scores=[1e305, beside])
        assert event.visit.item_ids.tolist() == [3, 5][: 2 - n_bad]
        assert event.cleaning.n_bad_scores == n_bad


def test_nested_lists_are_unknown_items() -> None:
    assert reason(json.dumps({**GOOD, "item_ids": [[3], [5]]})) == "empty"


def test_event_ahead_of_the_clock_is_refused() -> None:
    assert reason(json.dumps({**GOOD, "event_time": NOW + 1})) == "ahead_of_clock"
    assert read(event_time=NOW).visit.event_time == NOW


def test_unknown_scenario_gets_the_default_truncation_or_is_refused_by_setting() -> None:
    assert read(scenario="video").visit.item_ids.tolist() == [3, 5]
    only_search = MNRConfig(truncation={"search": 1}, default_truncation=None)
    assert read(only_search).visit.item_ids.tolist() == [3]
    assert reason(json.dumps({**GOOD, "scenario": "video"}), only_search) == "refused_scenario"


@pytest.mark.parametrize("items", [[], [-1], [None]])
def test_ranking_of_which_nothing_counts_is_empty(items: list) -> None:
    changed = {"item_ids": items, "category_ids": None, "scores": None}
    assert reason(json.dumps({**GOOD, **changed})) == "empty"


def test_scenarios_of_any_letters_have_list_names_of_their_own(tmp_path) -> None:
    names = [list_name(scenario) for scenario in ("search", "a b", "a.20b", "a.b", "中", "a:b", "*")]
    assert names[:2] == ["mnr@search", "mnr@a.20b"]
    assert len(set(names)) == len(names)
    store = open_store(f"sqlite:///{tmp_path}/online.db")
    for name in names:
        store.write_many(
            name, np.array([1]), np.array([[2]]), np.ones((1, 1)), release="mnr",
            event_times=np.datetime64("2026-01-01"),
        )  # fmt: skip
    assert store.list_names() == set(names)
