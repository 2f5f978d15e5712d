"""Files that are not as they should be: a clear line, or a row that says why it is no good."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse.sources import SourceConfig, SourceError, open_source
from lakehouse.sources.source import notes_of

HEADER = "user_id,video_id,date,time_ms,is_click,tab,tag\n"
LINES = [
    "1,10,20220501,1651377600000,1,1,x\n",
    "2,11,20220501,1651377601000,0,12,x\n",
    '3,12,20220502,1651464000000,1,1,"x,y"\n',
    "4,13,20220502,1651464001000,0,12,17\n",
]
FIRST, LAST = date(2022, 5, 1), date(2022, 5, 2)
MAPPING = {
    "name": "shop",
    "timezone": "Asia/Shanghai",
    "primary_scenario": "1",
    "tables": {
        "exposure": {
            "files": ["log*.csv"],
            "layout": HEADER.strip().split(","),
            "take": "day",
            "log_date": "try_strptime(date, '%Y%m%d')",
            "columns": {
                "user_id": "user_id",
                "item_id": "video_id",
                "scenario": "tab",
                "event_time": "epoch_to_utc(time_ms, 1000)",
                "is_click": "is_click",
                "is_order": "tag = 'order'",
            },
        },
        "item": {
            "files": ["items.csv"],
            "take": "all",
            "columns": {"item_id": "item_id", "is_available": "true"},
        },
        "user": {
            "files": ["users.csv"],
            "take": "all",
            "columns": {"user_id": "user_id", "profile": "[]"},
        },
    },
}
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files of a small shop: by name without ``.csv``, text or bytes."""

    def write_files(**files: str | bytes) -> None:
        good = {"log": HEADER + "".join(LINES), "items": "item_id\n10\n", "users": "user_id\n1\n"}
        for name, content in (good | files).items():
            raw = content if isinstance(content, bytes) else content.encode()
            (tmp_path / f"{name}.csv").write_bytes(raw)

    return write_files


@pytest.fixture
def shop(tmp_path: Path, write: Write):
    """Open the small shop."""
    return lambda: open_source(SourceConfig(preset="generic", data=str(tmp_path), mapping=MAPPING))


def users(rows: pa.Table) -> list[str | None]:
    return sorted(rows.filter(rows["read_error"].is_null())["user_id"].to_pylist())


def refused(rows: pa.Table) -> list[tuple[str, str]]:
    bad = rows.filter(rows["read_error"].is_valid())
    return list(zip(bad["read_error"].to_pylist(), bad["raw_line"].to_pylist(), strict=True))


def test_day_has_its_own_rows_and_no_others(write: Write, shop):
    write()
    source = shop()
    assert (source.first_day, source.last_day) == (FIRST, LAST)
    assert users(source.read("exposure", FIRST)) == ["1", "2"]
    assert users(source.read("exposure", LAST)) == ["3", "4"]
    assert notes_of(source.read("exposure", LAST)) == []


def test_day_out_of_range_is_refused_with_the_range(write: Write, shop):
    write()
    with pytest.raises(SourceError, match="no 2022-05-03: its log runs from 2022-05-01 to 2022-05-02"):
        shop().read("exposure", date(2022, 5, 3))


def test_empty_day_inside_the_range_is_refused(write: Write, shop):
    write(log=HEADER + LINES[0] + LINES[2].replace("20220502", "20220503"))
    with pytest.raises(SourceError, match="no exposure of 2022-05-02, though its log runs"):
        shop().read("exposure", LAST)


def test_unknown_table_is_refused(write: Write, shop):
    write()
    with pytest.raises(SourceError, match="has no ranking_log; it has exposure, item, user"):
        shop().read("ranking_log", FIRST)


def test_empty_file_is_refused_with_its_name(write: Write, shop):
    write(items="")
    with pytest.raises(SourceError, match=r"items.csv is empty"):
        shop()


def test_log_with_a_header_alone_is_refused(write: Write, shop):
    write(log=HEADER)
    with pytest.raises(SourceError, match=r"no row of .*log.csv has a log date"):
        _ = shop().first_day


def test_log_dates_that_are_no_dates_are_refused(write: Write, shop):
    write(log=HEADER + "".join(LINES).replace("2022050", "May "))
    with pytest.raises(SourceError, match="has a log date, read as try_strptime"):
        _ = shop().first_day


def test_missing_column_is_refused_with_column_and_file(write: Write, shop):
    write(log=HEADER.replace("tab", "page") + "".join(LINES))
    with pytest.raises(SourceError, match=r"log.csv: exposure.scenario .*\"tab\" not found") as error:
        shop()
    assert "\n" not in str(error.value)


def test_missing_column_in_the_second_file_is_refused_with_its_name(write: Write, shop):
    write(log_2=HEADER.replace("video_id", "photo_id") + LINES[0])
    with pytest.raises(SourceError, match=r"log_2.csv: exposure.item_id"):
        shop()


def test_extra_column_is_ignored_and_noted(write: Write, shop):
    wider = HEADER.replace("\n", ",colour\n") + "".join(line.replace("\n", ",red\n") for line in LINES)
    write(log=wider)
    rows = shop().read("exposure", FIRST)
    assert users(rows) == ["1", "2"]
    assert notes_of(rows) == ["log.csv: extra columns are ignored: colour"]


def test_every_file_has_its_own_order_of_columns(write: Write, shop):
    write(
        log=HEADER + "".join(LINES[:2]),
        log_2="tab,tag,is_click,time_ms,date,video_id,user_id\n1,x,1,1651464000000,20220502,12,3\n",
    )
    rows = shop().read("exposure", LAST).to_pylist()
    assert [(row["user_id"], row["item_id"], row["scenario"]) for row in rows] == [("3", "12", "1")]


def test_windows_line_ends_and_a_byte_order_mark_are_read(write: Write, shop):
    write(log=("\ufeff" + HEADER + "".join(LINES)).replace("\n", "\r\n"))
    assert users(shop().read("exposure", LAST)) == ["3", "4"]


@pytest.mark.parametrize(
    "cut",
    [
        "4,13,20220502,1651464001000,0,12,1",  # inside the last value: would read well
        "4,13,20220502,1651464001000,0,1",
        "4,13,2022",
        '4,13,20220502,1651464001000,0,1,"x',
        "4",
    ],
)
def test_last_line_that_is_cut_off_is_refused_with_the_last_day(write: Write, shop, cut: str):
    write(log=HEADER + "".join(LINES[:3]) + cut)
    source = shop()
    assert users(source.read("exposure", LAST)) == ["3"]
    assert refused(source.read("exposure", LAST)) == [("the file ends inside this line", f"log.csv: {cut}")]
    first = source.read("exposure", FIRST)
    assert refused(first) == []
    assert notes_of(first) == [
        "exposure: 1 lines of the files cannot be read; they are quarantined with 2022-05-02"
    ]


def test_line_cut_inside_a_character_is_refused(write: Write, shop):
    write(log=(HEADER + "".join(LINES[:3])).encode() + "4,13,20220502,1651464001000,0,12,é".encode()[:-1])
    assert users(shop().read("exposure", LAST)) == ["3"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"9,13,20220502\n", "broken line: missing columns"),
        (b"9,13,20220502,1651464001000,0,12,x,y,z\n", "broken line: too many columns"),
        (b"9,13,20220502,1651464001000,0,\xff\xfe,x\n", "broken line: invalid encoding"),
        (b'9,13,20220502,1651464001000,0,12,"x"y\n', "broken line: unquoted value"),
    ],
)
def test_broken_line_is_refused_and_its_neighbours_stay(write: Write, shop, line: bytes, why: str):
    write(log=(HEADER + LINES[0] + LINES[2]).encode() + line + "".join(LINES[3:]).encode())
    rows = shop().read("exposure", LAST)
    assert users(rows) == ["3", "4"]
    assert [reason for reason, _ in refused(rows)] == [why]
    assert refused(rows)[0][1].startswith("log.csv: 9,13,20220502")


def test_broken_line_of_a_snapshot_is_refused_every_day(write: Write, shop):
    write(users="user_id\n1\n2,3\n")
    for day in (FIRST, LAST):
        assert refused(shop().read("user", day)) == [("broken line: too many columns", "users.csv: 2,3")]


def test_row_without_a_log_date_is_refused_with_the_last_day(write: Write, shop):
    write(log=HEADER + "".join(LINES) + "9,13,never,1651464001000,0,12,x\n")
    source = shop()
    assert [why for why, _ in refused(source.read("exposure", LAST))] == ["no readable log date"]
    first = source.read("exposure", FIRST)
    assert refused(first) == []
    assert "exposure: 1 rows have no readable log date" in notes_of(first)[0]


def test_header_that_is_not_utf8_is_refused(write: Write, shop):
    write(users=b"user_id,\xff\xfe\n1,2\n")
    with pytest.raises(SourceError, match=r"the first line of .*users.csv is not UTF-8"):
        shop()


def test_header_with_a_repeated_name_is_refused(write: Write, shop):
    write(users="user_id,user_id\n1,2\n")
    with pytest.raises(SourceError, match="names column user_id more than once"):
        shop()


def test_values_that_are_no_times_stay_as_they_are(write: Write, shop):
    write(
        log=HEADER
        + LINES[2]
        + LINES[0].replace("1651377600000", "noon")
        + LINES[1].replace("1651377601", "9" * 18)
    )
    times = shop().read("exposure", FIRST)["event_time"].to_pylist()
    assert times == ["noon", "9" * 18 + "000"]


def test_folder_names_are_no_patterns(tmp_path: Path, write: Write):
    write()
    odd = tmp_path / "it's [1]*"
    odd.mkdir()
    for file in list(tmp_path.glob("*.csv")):
        file.rename(odd / file.name)
    source = open_source(SourceConfig(preset="generic", data=str(odd), mapping=MAPPING))
    assert users(source.read("exposure", FIRST)) == ["1", "2"]


def test_file_that_is_no_parquet_is_refused(tmp_path: Path, write: Write):
    write()
    parquet = MAPPING["tables"]["user"] | {"format": "parquet"}
    mapping = MAPPING | {"tables": MAPPING["tables"] | {"user": parquet}}
    with pytest.raises(SourceError, match=r"users.csv is no readable Parquet file"):
        open_source(SourceConfig(preset="generic", data=str(tmp_path), mapping=mapping))
