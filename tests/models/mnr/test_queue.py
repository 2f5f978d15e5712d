"""Which visits a queue keeps: by hand, and in any order of arrival."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mnr import BadState, MNRConfig, Outcome, insert, newest_time, score, unpack
from tests.models.mnr.logs import NIGHT_MICROSECONDS, configs, put, queue, ranking, rankings
from tests.models.mnr.oracle import queue_of


def requests(state: bytes) -> list[int]:
    return [visit.request_id for visit in unpack(state)]


def test_visits_are_kept_newest_first_with_their_items_and_categories():
    state = queue([ranking(1, 10, [5, 6], [7, 8]), ranking(2, 20, [9])], MNRConfig())
    newest, oldest = unpack(state)
    assert (newest.request_id, newest.event_time) == (2, NIGHT_MICROSECONDS + 20_000_000)
    assert (newest.item_ids.tolist(), newest.category_ids.tolist()) == ([9], [-1])
    assert (oldest.item_ids.tolist(), oldest.category_ids.tolist()) == ([5, 6], [7, 8])
    assert newest_time(state) == newest.event_time


def test_visit_older_than_the_newest_n_leaves():
    state = queue([ranking(request, request, [request]) for request in range(5)], MNRConfig(n_visits=3))
    assert requests(state) == [4, 3, 2]


def test_late_visit_takes_its_place_by_event_time():
    config = MNRConfig(n_visits=3)
    state, outcome = put(
        queue([ranking(1, 10, [1]), ranking(3, 30, [3])], config), ranking(2, 20, [2]), config
    )
    assert (requests(state), outcome) == ([3, 2, 1], Outcome.KEPT)


def test_visit_older_than_everything_in_a_full_queue_is_dropped():
    config = MNRConfig(n_visits=2)
    full = queue([ranking(1, 10, [1]), ranking(2, 20, [2])], config)
    assert put(full, ranking(3, 9, [3]), config) == (full, Outcome.TOO_OLD)
    assert put(full, ranking(0, 10, [3]), config) == (full, Outcome.TOO_OLD)
    state, outcome = put(full, ranking(3, 10, [3]), config)
    assert (requests(state), outcome) == ([2, 3], Outcome.KEPT)


def test_request_that_the_queue_has_is_a_duplicate():
    config = MNRConfig()
    state = queue([ranking(1, 10, [1])], config)
    assert put(state, ranking(1, 10, [1]), config) == (state, Outcome.DUPLICATE)
    assert put(state, ranking(1, 50, [2]), config) == (state, Outcome.DUPLICATE)


def test_ranking_without_an_item_that_counts_is_no_visit():
    config = MNRConfig()
    state, outcome = put(None, ranking(1, 10, []), config)
    assert (outcome, unpack(state), newest_time(state)) == (Outcome.EMPTY, [], None)
    assert put(state, ranking(2, 10, [5], scores=[float("nan")]), config)[1] == Outcome.EMPTY
    assert put(state, ranking(2, 10, [5]), config)[1] == Outcome.KEPT


def test_queue_written_with_a_larger_n_is_cut_by_the_next_visit():
    state = queue([ranking(request, request, [request]) for request in range(5)], MNRConfig())
    state, outcome = put(state, ranking(9, 9, [9]), MNRConfig(n_visits=2))
    assert (requests(state), outcome) == ([9, 4], Outcome.KEPT)


@settings(max_examples=200, deadline=None)
@given(log=rankings(), config=configs, data=st.data())
def test_order_of_arrival_and_replays_do_not_matter(log, config, data):
    arrived = data.draw(st.permutations(log))
    state = queue(arrived, config)
    assert state == queue(log, config)
    again = data.draw(st.lists(st.sampled_from(log), max_size=10)) if log else []
    assert queue([*arrived, *again, *log], config) == state
    expected = queue_of(log, config, "search")
    found = [
        ((visit.event_time - NIGHT_MICROSECONDS) / 1e6, visit.request_id,
         list(zip(visit.item_ids.tolist(), visit.category_ids.tolist(), strict=True)))
        for visit in unpack(state)
    ]  # fmt: skip
    assert found == expected
    assert len(found) <= config.n_visits


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state[:-8],
        lambda state: state[:-1],
        lambda state: state + bytes(8),
        lambda state: bytes(len(state)),
        lambda state: state[:8] + b"\xff" * 8 + state[16:],
        lambda state: state[:8] + (2**62).to_bytes(8, "little") + state[16:],
        lambda state: state[:32] + b"\x7f" * 8 + state[40:],
        lambda state: b"12345678",
    ],
)
def test_bytes_that_are_no_queue_are_refused(spoil):
    state = queue([ranking(1, 10, [1, 2, 3])], MNRConfig())
    with pytest.raises(BadState, match="bytes are no queue"):
        score(spoil(state), MNRConfig())
    with pytest.raises(BadState):
        insert(spoil(state), unpack(state)[0], MNRConfig())
