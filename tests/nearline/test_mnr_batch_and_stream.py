"""Batch and stream keep the same visits in whatever order they come, at equal event times too."""

import json
from datetime import timedelta

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mnr import MNRConfig, insert, score, unpack
from models.mnr.replay import VisitLog, candidates_at, read_log
from nearline.mnr_events import BadEvent, read_event
from tests.models.mnr.logs import NIGHT, NIGHT_MICROSECONDS, configs, log_table, rankings
from tests.models.mnr.oracle import Ranking

Row = tuple[int, str, Ranking]


def streamed(rows: list[Row], config: MNRConfig) -> dict[tuple[int, str], bytes]:
    """Give the queues after lines in the order of ``rows``, as the job reads and keeps them."""
    queues: dict[tuple[int, str], bytes] = {}
    for user, scenario, one in rows:
        values = {
            "request_id": one.request_id, "user_id": user, "scenario": scenario,
            "event_time": NIGHT_MICROSECONDS + round(one.time * 1e6), "item_ids": one.items,
            "category_ids": one.categories, "scores": one.scores,
        }  # fmt: skip
        try:
            event = read_event(json.dumps(values), config, 2**62)
        except BadEvent:
            continue
        key = (event.user_id, event.scenario)
        queues[key], _ = insert(queues.get(key), event.visit, config)
    return queues


def kept(log: VisitLog, n_visits: int) -> dict[tuple[int, str], list[tuple]]:
    """Give the queues of a log, each the (time, request, items, categories) of its visits, newest first."""
    queues = {}
    for place, key in enumerate(zip(log.users.tolist(), log.scenarios.tolist(), strict=True)):
        newest = range(log.starts[place + 1] - 1, log.starts[place] - 1, -1)[:n_visits]
        items = [slice(log.item_starts[visit], log.item_starts[visit + 1]) for visit in newest]
        queues[key] = [
            (
                int(log.times[visit]),
                int(log.requests[visit]),
                log.items[at].tolist(),
                log.categories[at].tolist(),
            )
            for visit, at in zip(newest, items, strict=True)
        ]
    return queues


@st.composite
def tied_rows(draw: st.DrawFn) -> list[Row]:
    """Draw rankings at two moments alone; some come again, whole or with nothing in them that counts."""
    rows = []
    for user, scenario in draw(st.sets(st.tuples(st.integers(1, 2), st.sampled_from(["search", "shop"])))):
        for one in draw(rankings()):
            rows.append(
                (user, scenario, Ranking(one.request_id, one.time % 2, one.items, one.categories, one.scores))
            )
    if rows:
        for user, scenario, one in draw(st.lists(st.sampled_from(rows), max_size=6)):
            nothing = Ranking(one.request_id, one.time, (-1,), (-1,), (0.5,))
            rows.append((user, scenario, draw(st.sampled_from([one, nothing]))))
    return rows


@settings(max_examples=100, deadline=None)
@given(rows=tied_rows(), config=configs, data=st.data())
def test_batch_and_stream_keep_the_same_visits_at_equal_event_times(rows, config, data):
    queues = streamed(data.draw(st.permutations(rows)), config)
    log = read_log(log_table(data.draw(st.permutations(rows))), config)
    assert kept(log, config.n_visits) == {
        key: [
            (visit.event_time, visit.request_id, visit.item_ids.tolist(), visit.category_ids.tolist())
            for visit in unpack(queue)
        ]
        for key, queue in queues.items()
    }
    end = pa.array([NIGHT + timedelta(seconds=2)] * 2, pa.timestamp("us"))
    lists = candidates_at(log, pa.table({"user_id": [1, 2], "event_time": end}), config).to_pylist()
    found = {(row["user_id"], row["scenario"]): (row["item_ids"], row["scores"]) for row in lists}
    scored = {key: score(queue, config) for key, queue in queues.items()}
    assert found == {key: (each.item_ids.tolist(), each.scores.tolist()) for key, each in scored.items()}
