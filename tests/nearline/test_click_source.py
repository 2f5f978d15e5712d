"""Both sources give every event until it is finished; what a dead worker took comes again, alone."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis

from nearline.candidates import StoreUnavailable
from nearline.click_source import ClickSource, UnknownSource, open_click_source
from nearline.clicks import Click, read_click
from nearline.replay_clicks import replay
from tests.nearline.small_served import CLICKS, items_of, some_clicks

Open = Callable[[str], ClickSource]


@pytest.fixture
def open_source(clicks_url: str) -> Iterator[Open]:
    """Open the source as a worker of a name; events count as left after a tenth of a second."""
    with ExitStack() as stack:
        yield lambda worker: stack.enter_context(
            closing(open_click_source(clicks_url, worker=worker, claim_after_seconds=0.1))
        )


@pytest.fixture
def source(open_source: Open) -> ClickSource:
    return open_source("a")


def die(source: ClickSource) -> None:
    """Let go as a killed process does: nothing is finished, locks are gone, its events are left."""
    if hasattr(source, "_lock"):
        source._lock.close()
    time.sleep(0.15)


def test_events_come_in_order_in_bounded_batches_until_they_are_finished(source: ClickSource) -> None:
    source.send(CLICKS)
    assert source.backlog() == 6
    first = source.take(4, 0.1)
    assert items_of(first) == [0, 1, 2, 3]
    assert {delivery.n_deliveries for delivery in first} == {1}
    assert all(abs(delivery.arrived_at - time.time()) < 10 for delivery in first)
    source.finish(first)
    assert source.backlog() == 2
    rest = source.take(4, 0.1)
    assert items_of(rest) == [4, 5]
    source.finish(rest)
    assert source.backlog() == 0
    assert source.take(4, 0.05) == []


def test_waiting_ends_with_the_first_event_or_the_time(open_source: Open) -> None:
    source, sender = open_source("a"), open_source("b")
    started = time.monotonic()
    assert source.take(4, 0.2) == []
    assert 0.15 < time.monotonic() - started < 2
    sender.send(CLICKS[:1])
    started = time.monotonic()
    assert items_of(source.take(4, 5)) == [0]
    assert time.monotonic() - started < 2


def test_what_a_dead_worker_took_comes_again_one_by_one(open_source: Open) -> None:
    dead = open_source("dead")
    dead.send(CLICKS)
    taken = dead.take(4, 0.1)
    dead.finish(taken[1:2])
    die(dead)
    heir = open_source("heir")
    again = heir.take(4, 0.1)
    assert items_of(again) == [0]
    assert again[0].n_deliveries == 2
    heir.finish(again)
    seen = []
    while batch := heir.take(4, 0.1):
        seen += items_of(batch)
        heir.finish(batch)
    assert sorted({*seen, 1}) == [1, 2, 3, 4, 5]
    assert heir.backlog() == 0


def test_event_that_is_never_finished_counts_its_deliveries(open_source: Open) -> None:
    open_source("a").send(CLICKS[:1])
    counts = []
    for worker in ("a", "b", "c"):
        source = open_source(worker)
        (delivery,) = source.take(4, 0.1)
        counts.append(delivery.n_deliveries)
        die(source)
    assert counts == [1, 2, 3]


def test_what_is_put_aside_is_kept_with_the_reason_and_does_not_come_again(
    kind: str, clicks_url: str, source: ClickSource
) -> None:
    source.send(CLICKS[:2])
    first, second = source.take(2, 0.1)
    source.put_aside(first, "no good")
    source.finish([second])
    assert source.backlog() == 0
    assert source.take(2, 0.05) == []
    if kind == "sqlite":
        text = Path(f"{clicks_url.removeprefix('file://')}.aside").read_text()
        told = json.loads(text)
        assert json.loads(told.pop("event")) == CLICKS[0].fields()
        assert told == {"reason": "no good", "n_deliveries": 1}
    else:
        server, _, prefix = clicks_url.partition("?prefix=")
        with closing(redis.Redis.from_url(server, decode_responses=True)) as client:
            ((_, told),) = client.xrange(f"{prefix}:clicks:aside")
        assert (told["reason"], told["field:user_id"], told["event_id"]) == ("no good", "7", first.event_id)


def test_what_is_given_back_comes_again_without_a_delivery_more(open_source: Open) -> None:
    open_source("a").send(CLICKS[:3])
    for worker in ("b", "c", "d"):
        source = open_source(worker)
        taken = source.take(4, 0.1)
        assert {delivery.n_deliveries for delivery in taken} == {1}
        source.give_back(taken)
        die(source)
    source = open_source("e")
    seen = []
    while batch := source.take(4, 0.1):
        assert {delivery.n_deliveries for delivery in batch} == {1}
        seen += items_of(batch)
        source.finish(batch)
        source.give_back(batch)  # what is finished stays so
    assert seen == [0, 1, 2]
    assert source.backlog() == 0


def test_what_another_worker_has_claimed_cannot_be_given_back(redis_url: str) -> None:
    slow, other = (open_click_source(redis_url, worker=name, claim_after_seconds=0.1) for name in "ab")
    with closing(slow), closing(other):
        slow.send(CLICKS[:1])
        taken = slow.take(1, 0.1)
        time.sleep(0.15)
        assert [delivery.n_deliveries for delivery in other.take(1, 0.1)] == [2]
        slow.give_back(taken)
        time.sleep(0.15)
        assert [delivery.n_deliveries for delivery in other.take(1, 0.1)] == [3]


def test_what_is_held_goes_to_no_other_worker(redis_url: str) -> None:
    slow, other = (open_click_source(redis_url, worker=name, claim_after_seconds=0.5) for name in "ab")
    with closing(slow), closing(other):
        slow.send(CLICKS[:2])
        taken = slow.take(2, 0.1)
        slow.finish(taken[:1])
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            slow.hold(taken)
            assert other.take(2, 0.05) == []
        time.sleep(0.6)
        (left,) = other.take(2, 0.1)
        assert (left.event_id, left.n_deliveries) == (taken[1].event_id, 2)
        slow.hold(taken)  # no longer its own
        other.finish([left])
        slow.hold(taken)
        assert slow.backlog() == 0


def test_replay_keeps_its_rate_and_sends_all_in_order(source: ClickSource) -> None:
    told: list[int] = []
    seconds = replay(CLICKS, source, per_second=20, on_sent=told.append)
    assert 0.2 < seconds < 1
    assert told[-1] == 6
    assert replay(CLICKS, source) < 0.2
    assert items_of(source.take(20, 0.1)) == [*range(6), *range(6)]


def test_two_workers_of_a_stream_share_it_and_leave_none(redis_url: str) -> None:
    clicks = some_clicks(50)
    workers = [open_click_source(redis_url, worker=name, claim_after_seconds=5) for name in "ab"]
    workers[0].send(clicks)
    seen: list[Click] = []
    while batch := workers[len(seen) % 2].take(3, 0.05):
        seen += [read_click(delivery.fields, latest=2**62) for delivery in batch]
        workers[len(seen) % 2].finish(batch)
    assert sorted(seen, key=lambda click: click.event_time) == clicks
    for worker in workers:
        worker.close()


def test_worker_that_leaves_while_events_are_pending_leaves_them_to_others(redis_url: str) -> None:
    with closing(open_click_source(redis_url, worker="a", claim_after_seconds=0.1)) as leaving:
        leaving.send(CLICKS[:1])
        assert len(leaving.take(4, 0.1)) == 1
    time.sleep(0.15)
    with closing(open_click_source(redis_url, worker="b", claim_after_seconds=0.1)) as other:
        assert items_of(other.take(4, 0.1)) == [0]


def test_stream_that_was_deleted_is_made_again(redis_url: str) -> None:
    server, _, prefix = redis_url.partition("?prefix=")
    with (
        closing(redis.Redis.from_url(server)) as client,
        closing(open_click_source(redis_url, worker="a", claim_after_seconds=5)) as source,
    ):
        assert source.take(4, 0.05) == []
        client.delete(f"{prefix}:clicks")
        assert source.take(4, 0.05) == []
        source.send(CLICKS[:2])
        assert items_of(source.take(4, 0.1)) == [0, 1]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "clicks.jsonl",
        "file://",
        "file:///",
        "kafka://x",
        "redis://host:port",
        "redis://localhost/clicks",
        "redis://localhost?protocol=3",
    ],
)
def test_unknown_source_is_one_clear_line(url: str) -> None:
    with pytest.raises(UnknownSource, match="clicks_url") as caught:
        open_click_source(url, worker="a")
    assert "\n" not in str(caught.value)


def test_absent_redis_is_one_clear_line_without_the_password() -> None:
    with pytest.raises(StoreUnavailable, match=r"the click stream .* start it or set clicks_url") as caught:
        open_click_source("redis://:secret@127.0.0.1:1/0", worker="a")
    assert "secret" not in str(caught.value)
