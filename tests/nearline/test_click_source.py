"""Both sources give every event until it is finished; what a dead worker took comes again, alone."""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis

from nearline.candidates import StoreUnavailable
from nearline.click_file import ClickFile, ClickFileTaken
from nearline.click_source import ClickSource, UnknownSource, open_click_source
from nearline.clicks import Click, Delivery, read_click
from nearline.replay_clicks import replay
from tests.nearline.small_served import START, some_clicks

CLICKS = [Click(7, item, START + item) for item in range(6)]
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


def items_of(deliveries: list[Delivery]) -> list[int]:
    return [read_click(delivery.fields, latest=2**62).item_id for delivery in deliveries]


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


def test_second_worker_of_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    url = (tmp_path / "clicks.jsonl").as_uri()
    with closing(open_click_source(url, worker="a")) as first:
        assert first.take(1, 0) == []
        with (
            closing(open_click_source(url, worker="b")) as second,
            pytest.raises(ClickFileTaken, match=r"another worker takes the clicks of .*: stop it"),
        ):
            second.take(1, 0)
    with closing(open_click_source(url, worker="b")) as second:
        assert second.take(1, 0) == []


def test_line_counts_once_it_has_its_end_and_no_line_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "clicks.jsonl"
    whole = json.dumps(CLICKS[0].fields())
    with closing(open_click_source(path.as_uri(), worker="a")) as source:
        path.write_text(whole[:10])
        assert source.take(4, 0) == []
        path.write_text(f"{whole}\n{'x' * 200_000}\n\n")
        deliveries = source.take(4, 0)
        assert items_of(deliveries[:1]) == [0]
        assert [len(delivery.fields) for delivery in deliveries[1:]] == [65_536, 0]


def test_file_that_was_written_anew_in_place_is_taken_from_its_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "clicks.jsonl"
    for click in CLICKS:  # what is added to a file does not make it another one
        with closing(open_click_source(path.as_uri(), worker="a")) as source:
            source.send([click])
            taken = source.take(10, 0)
            assert items_of(taken) == [click.item_id]
            source.finish(taken)
    inode = path.stat().st_ino
    path.write_text("".join(json.dumps(Click(8, item, START).fields()) + "\n" for item in range(100)))
    assert path.stat().st_ino == inode
    with closing(open_click_source(path.as_uri(), worker="a")) as source:
        assert items_of(source.take(200, 0)) == list(range(100))
    assert caplog.text.count("another file than before, or shorter") == 1


def test_lines_that_come_while_a_short_file_is_read_do_not_make_it_another_one(tmp_path: Path) -> None:
    path = tmp_path / "clicks.jsonl"

    class Overtaken(ClickFile):
        def _head_of(self, offset: int) -> str:
            if path.stat().st_size < 200:  # its head was just read, its lines are next
                ClickFile(path).send(CLICKS)
            return super()._head_of(offset)

    with closing(ClickFile(path)) as source, closing(Overtaken(path)) as overtaken:
        source.send(CLICKS[:2])
        source.finish(source.take(1, 0))
        source.close()
        taken = overtaken.take(100, 0)
        assert len(taken) == 7
        overtaken.finish(taken)
        assert overtaken.backlog() == 0
        overtaken.close()
        assert source.take(100, 0) == []


@pytest.mark.parametrize("is_replaced", [True, False])
def test_file_that_was_replaced_or_cut_is_taken_from_its_start(
    tmp_path: Path, is_replaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "clicks.jsonl"
    with closing(open_click_source(path.as_uri(), worker="a")) as source:
        source.send(CLICKS)
        source.finish(source.take(10, 0))
        if is_replaced:
            path.rename(tmp_path / "clicks.jsonl.1")
            path.write_text("")
        path.write_text(json.dumps(CLICKS[3].fields()) + "\n")
        assert items_of(source.take(10, 0)) == [3]
        assert "another file than before, or shorter" in caplog.text


def test_lost_offset_repeats_and_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "clicks.jsonl"
    with closing(open_click_source(path.as_uri(), worker="a")) as source:
        source.send(CLICKS)
        source.finish(source.take(10, 0))
    (tmp_path / "clicks.jsonl.offset").write_text("{")
    with closing(open_click_source(path.as_uri(), worker="a")) as source:
        assert items_of(source.take(10, 0)) == list(range(6))
    assert "all lines are taken again" in caplog.text


def test_full_disk_counts_no_delivery_and_finishes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "clicks.jsonl", os.replace

    def fail(*_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(open_click_source(path.as_uri(), worker="a")) as source:
        source.send(CLICKS)
        monkeypatch.setattr(os, "replace", fail)
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="No space left"):
                source.take(2, 0)
        monkeypatch.setattr(os, "replace", replace)
        first = source.take(2, 0)
        assert [delivery.n_deliveries for delivery in first] == [1, 1]
        monkeypatch.setattr(os, "replace", fail)
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="make room"):
                source.finish(first)
        monkeypatch.setattr(os, "replace", replace)
        source.finish(first)
        rest = source.take(9, 0)
        assert items_of(rest) == [2, 3, 4, 5]
        assert {delivery.n_deliveries for delivery in rest} == {1}


def test_line_whose_end_cannot_be_saved_is_put_aside_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clicks.jsonl"

    def fail(*_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with closing(open_click_source(path.as_uri(), worker="a")) as source:
        source.send(CLICKS[:2])
        first, second = source.take(2, 0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="make room"):
                    source.put_aside(first, "no good")
        source.put_aside(first, "no good")
        source.put_aside(second, "no good either")
        assert source.take(2, 0) == []
    told = [json.loads(line) for line in (tmp_path / "clicks.jsonl.aside").read_text().splitlines()]
    assert [each["reason"] for each in told] == ["no good", "no good either"]


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
