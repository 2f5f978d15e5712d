"""A file of clicks: one worker, whole lines, the offset kept, another file noticed, a full disk survived."""

import errno
import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from nearline.candidates import StoreUnavailable
from nearline.click_file import ClickFile, ClickFileTaken
from nearline.click_source import open_click_source
from nearline.clicks import Click
from tests.nearline.small_served import CLICKS, START, items_of


def no_space(*_: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


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
    with closing(open_click_source(path.as_uri(), worker="a")) as source:
        source.send(CLICKS)
        monkeypatch.setattr(os, "replace", no_space)
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="No space left"):
                source.take(2, 0)
        monkeypatch.setattr(os, "replace", replace)
        first = source.take(2, 0)
        assert [delivery.n_deliveries for delivery in first] == [1, 1]
        monkeypatch.setattr(os, "replace", no_space)
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
    with closing(open_click_source(path.as_uri(), worker="a")) as source:
        source.send(CLICKS[:2])
        first, second = source.take(2, 0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", no_space)
            for _ in range(3):
                with pytest.raises(StoreUnavailable, match="make room"):
                    source.put_aside(first, "no good")
        source.put_aside(first, "no good")
        source.put_aside(second, "no good either")
        assert source.take(2, 0) == []
    told = [json.loads(line) for line in (tmp_path / "clicks.jsonl.aside").read_text().splitlines()]
    assert [each["reason"] for each in told] == ["no good", "no good either"]
