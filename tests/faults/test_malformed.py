"""A hundred malformed logs made from a good one: refused or quarantined, told in one line, nothing lost."""

import gzip
import random
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import pytest

from lakehouse import tables
from lakehouse.sources import SourceError
from lakehouse.store import Lakehouse
from tasks.ingest import BadSource, ingest_logs
from tests.faults.tally import Tally
from tests.tasks.test_ingest import FIRST, GOOD, LOG, as_csv, digests, exposure, release, settings

__all__ = ["release", "settings"]

VALUES = ("", "NaN", "abc", "-1", "9" * 25, "1e309", "\x00", '"', "0x10", "é", "2022-13-45", " ")
COLUMNS = ("user_id", "video_id", "date", "time_ms", "is_click", "tab")
TEXT = as_csv(GOOD)


def malformed() -> Iterator[tuple[str, bytes]]:
    """Give files that are good but for one thing, and what that is."""
    for column in COLUMNS:
        for value in VALUES:
            yield f"{column}={value!r}", as_csv([*GOOD, exposure(50, **{column: value})]).encode()
    good, lines = TEXT.encode(), TEXT.splitlines()
    yield "empty", b""
    yield "only a header", lines[0].encode() + b"\n"
    yield "no header", "\n".join(lines[1:]).encode()
    yield "header twice", "\n".join([lines[0], *lines]).encode()
    yield "another separator", good.replace(b",", b";")
    yield "byte order mark", b"\xef\xbb\xbf" + good
    yield "Windows line ends", good.replace(b"\n", b"\r\n")
    yield "UTF-16", TEXT.encode("utf-16")
    yield "Latin-1", good + "é,é,é,é,é,é\n".encode("latin-1")
    yield "compressed", gzip.compress(good, mtime=0)
    yield "a field too many", good + lines[1].encode() + b",1\n"
    yield "a field too few", good + lines[1].rpartition(",")[0].encode() + b"\n"
    yield "an open quote", good + b'1,"2,20220501,1,1,1\n'
    yield "blank lines", good.replace(b"\n", b"\n\n")
    yield "all rows twice", good + "\n".join(lines[1:]).encode() + b"\n"
    for column in COLUMNS:
        yield (
            f"no column {column}",
            as_csv([{k: v for k, v in row.items() if k != column} for row in GOOD]).encode(),
        )
    chance = random.Random(0)
    for n in range(12):
        place = chance.randrange(len(good))
        yield f"byte {place} flipped", good[:place] + bytes([good[place] ^ (1 << n % 8)]) + good[place + 1 :]
    for n in range(8):
        yield f"cut at {len(good) * n // 8}", good[: len(good) * n // 8]


def of_each_kind() -> list[tuple[str, bytes]]:
    """Give a third of them: every value and every column, though not each with each; fewer cuts and flips."""
    pairs = {f"{column}={value!r}" for value, column in zip(VALUES, cycle(COLUMNS), strict=False)}
    left_out = {f"{column}={value!r}" for column in COLUMNS for value in VALUES} - pairs
    files = [(what, content) for what, content in malformed() if what not in left_out]
    chance = [what for what, _ in files if what.endswith("flipped") or what.startswith("cut at")]
    return [(what, content) for what, content in files if what not in chance or what in chance[::5]]


def test_there_are_a_hundred_and_the_short_list_has_each_kind():
    assert len({content for _, content in malformed()}) >= 100
    short = [what for what, _ in of_each_kind()]
    assert len(short) == 12 + 15 + 6 + 4
    assert all(any(what.endswith(f"={value!r}") for what in short) for value in VALUES)
    assert all(any(what.startswith(f"{column}=") for what in short) for column in COLUMNS)


def test_a_malformed_log_is_refused_or_quarantined_and_the_good_one_gives_equal_digests(
    release: Path, settings: SimpleNamespace, tally: Tally
):
    ingest_each(of_each_kind(), release, settings, tally)


@pytest.mark.slow
def test_a_hundred_malformed_logs_are_refused_or_quarantined(
    release: Path, settings: SimpleNamespace, tally: Tally
):
    ingest_each(malformed(), release, settings, tally)


def ingest_each(
    files: Iterable[tuple[str, bytes]], release: Path, settings: SimpleNamespace, tally: Tally
) -> None:
    log, lakehouse = release / "data" / LOG, Lakehouse(settings.lakehouse_root)
    ingest_logs(FIRST, settings)
    good = digests(settings)
    good_rows = set(map(str, lakehouse.read(tables.EXPOSURE, FIRST).to_pylist()))
    for what, content in files:
        with tally.fault("malformed input"):
            log.write_bytes(content)
            try:
                report = ingest_logs(FIRST, settings).tables["exposure"]
            except (BadSource, SourceError) as error:
                assert "\n" not in str(error), what
                assert digests(settings) == good, f"{what}: the good day is gone"
            else:
                assert report.rows_in == report.rows_out + sum(report.reasons.values()), what
                # A log cut between two lines looks whole: the volume checks of the day tell it.
                assert what.startswith("cut") or report.rows_out >= 0.9 * len(good_rows), f"{what}: {report}"
                log.write_text(TEXT)
                ingest_logs(FIRST, settings)
                assert digests(settings) == good, what


@pytest.mark.parametrize("what", ["missing", "a folder", "unreadable link"])
def test_a_log_that_is_no_file_is_one_line(release: Path, settings: SimpleNamespace, tally: Tally, what: str):
    log = release / "data" / LOG
    ingest_logs(FIRST, settings)
    good = digests(settings)
    with tally.fault("malformed input"):
        log.unlink()
        if what == "a folder":
            log.mkdir()
        elif what == "unreadable link":
            log.symlink_to(log)
        with pytest.raises((BadSource, SourceError)) as refused:
            ingest_logs(FIRST, settings)
        assert "\n" not in str(refused.value)
        assert digests(settings) == good
