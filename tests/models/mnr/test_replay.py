"""What the store held at a moment, out of a log: equal to the queue filled visit by visit."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mnr import MNRConfig, score
from models.mnr.replay import CANDIDATES_SCHEMA, candidates_at, read_log
from tests.models.mnr.logs import NIGHT, configs, log_table, queue, ranking, rankings
from tests.models.mnr.oracle import best_candidates


def moments(rows: list[tuple[int, float]]) -> pa.Table:
    times = [NIGHT + timedelta(seconds=time) for _, time in rows]
    return pa.table(
        {"user_id": [user for user, _ in rows], "event_time": pa.array(times, pa.timestamp("us"))}
    )


def held(rows, when, config=None, delay_seconds=0.0) -> list[tuple]:
    config = config or MNRConfig()
    table = candidates_at(read_log(log_table(rows), config), moments(when), config, delay_seconds)
    assert table.schema == CANDIDATES_SCHEMA
    return [(row["moment"], row["scenario"], row["item_ids"]) for row in table.to_pylist()]


def test_only_visits_strictly_before_the_moment_count():
    rows = [(7, "search", ranking(1, 10, [1])), (7, "search", ranking(2, 20, [2]))]
    assert held(rows, [(7, 10), (7, 20), (7, 20.000001)]) == [(1, "search", [1]), (2, "search", [2, 1])]


def test_visit_shows_after_its_delay():
    rows = [(7, "search", ranking(1, 10, [1]))]
    assert held(rows, [(7, 12), (7, 12.5)], delay_seconds=2) == [(1, "search", [1])]


def test_each_scenario_has_a_list_and_users_see_their_own():
    rows = [
        (8, "shop", ranking(5, 3, [9])),
        (7, "search", ranking(1, 10, [1])),
        (7, "detail", ranking(2, 5, [2])),
    ]
    assert held(rows, [(8, 100), (9, 100), (7, 100)]) == [
        (0, "shop", [9]), (2, "detail", [2]), (2, "search", [1])
    ]  # fmt: skip


def test_future_only_signal_never_shows():
    rows = [(user, "search", ranking(user, 50, [777])) for user in range(20)]
    rows += [(user, "search", ranking(100 + user, 10, [user])) for user in range(20)]
    assert all(777 not in items for _, _, items in held(rows, [(user, 50) for user in range(20)]))
    assert all(777 in items for _, _, items in held(rows, [(user, 51) for user in range(20)]))


def test_idle_queue_is_forgotten():
    config = MNRConfig(idle_seconds=100)
    assert held([(7, "search", ranking(1, 10, [1]))], [(7, 109.9), (7, 110)], config) == [(0, "search", [1])]


def test_newest_visits_time_is_told():
    config = MNRConfig()
    rows = [(7, "search", ranking(1, 10, [1])), (7, "search", ranking(2, 20, [2]))]
    table = candidates_at(read_log(log_table(rows), config), moments([(7, 99)]), config)
    assert table["event_time"].to_pylist() == [NIGHT + timedelta(seconds=20)]


def test_what_a_log_lost_is_counted():
    nan = float("nan")
    rows = [
        (7, "search", ranking(1, 10, [1, 1, -5, 2], scores=[0.4, 0.3, 0.2, nan])),
        (7, "search", ranking(1, 30, [8])),
        (7, "search", ranking(2, 20, [])),
        (7, "video", ranking(3, 20, [3])),
    ]
    config = MNRConfig(truncation={"search": 9}, default_truncation=None)
    report = read_log(log_table(rows), config).report
    assert (report.n_rankings, report.n_visits, report.n_empty) == (4, 1, 1)
    assert (report.n_duplicate, report.n_refused) == (1, 1)
    assert (report.n_unknown, report.n_bad_scores, report.n_repeated) == (1, 1, 1)
    assert held(rows, [(7, 99)], config) == [(0, "search", [1])]


def test_nulls_in_a_log_are_unknown_items_bad_scores_and_no_category():
    columns = log_table([(7, "search", ranking(1, 10, [1, 2, 3]))]).to_pydict()
    columns["item_ids"], columns["category_ids"] = [[1, None, 3]], [[None, 4, None]]
    columns["scores"] = [[0.5, 0.4, None]]
    schema = log_table([]).schema
    schema = pa.schema([pa.field(field.name, field.type) for field in schema])
    log = read_log(pa.table(columns, schema=schema), MNRConfig())
    assert (log.items.tolist(), log.categories.tolist()) == ([1], [-1])
    assert (log.report.n_unknown, log.report.n_bad_scores) == (1, 1)


def test_lists_of_different_lengths_name_the_request():
    columns = log_table([(7, "search", ranking(41, 10, [1, 2]))]).to_pydict()
    columns["scores"] = [[0.5]]
    with pytest.raises(ValueError, match="request 41: scores and item_ids of its ranking differ in length"):
        read_log(pa.table(columns, schema=log_table([]).schema), MNRConfig())


def test_no_rankings_and_no_moments_give_no_lists():
    assert held([], [(7, 10)]) == []
    assert held([(7, "search", ranking(1, 10, [1]))], []) == []


@settings(max_examples=100, deadline=None)
@given(
    logs=st.dictionaries(
        st.tuples(st.integers(1, 3), st.sampled_from(["search", "shop"])), rankings(), max_size=4
    ),
    when=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 40)), max_size=6),
    config=configs,
    order=st.sampled_from(["score", "fifo", "random"]),
    data=st.data(),
)
def test_replay_equals_queues_filled_up_to_the_moment(logs, when, config, order, data):
    config = config.model_copy(update={"order": order})
    rows = [(user, scenario, one) for (user, scenario), log in logs.items() for one in log]
    found = {
        (moment, scenario): items
        for moment, scenario, items in held(data.draw(st.permutations(rows)), when, config)
    }
    expected = {}
    for moment, (user, time) in enumerate(when):
        for scenario in ("search", "shop"):
            before = [one for one in logs.get((user, scenario), []) if one.time < time]
            newest = max(
                (one.time for one in before if best_candidates([one], config, scenario)), default=None
            )
            if newest is not None and time - newest < config.idle_seconds:
                items = score(queue(before, config, scenario), config).item_ids.tolist()
                expected[moment, scenario] = items
    assert found == expected


def test_same_log_in_any_order_gives_the_same_bytes():
    generator = np.random.default_rng(5)
    rows = [
        (
            request % 9,
            "search",
            ranking(request, generator.integers(1000), generator.permutation(50).tolist()),
        )
        for request in range(200)
    ]
    when = [(user, 600) for user in range(9)]
    config = MNRConfig()
    first = candidates_at(read_log(log_table(rows), config), moments(when), config)
    again = candidates_at(read_log(log_table(rows[::-1]), config), moments(when), config)
    assert first.equals(again)
    assert first.num_rows == 9
