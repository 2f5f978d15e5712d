"""A day of a source as canonical partitions: whole, equal when repeated, and never half of it."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse import tables
from lakehouse.sources import SourceConfig, SourceError
from lakehouse.sources.config import effective_mapping
from lakehouse.store import Lakehouse
from tasks.ingest import BadSource, ingest_logs

FIRST, LAST = date(2022, 5, 1), date(2022, 5, 2)
NOON = 1651377600000  # 2022-05-01 12:00 in Shanghai
HOUR = 3_600_000
WARM_START = "user_history_apr08_apr24_last50.parquet"
LOG = "log_standard_4_22_to_5_08_pure.csv"
PROFILE = [
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{n}" for n in range(18)),
]
CANONICAL = (tables.EXPOSURE, tables.ITEM_SNAPSHOT, tables.USER_SNAPSHOT)


def exposure(n: int, day: int = 1, **changes: object) -> dict[str, object]:
    """Give a log row of user ``n`` at noon of a day of May."""
    row = {
        "user_id": n,
        "video_id": n % 7,
        "date": f"2022050{day}",
        "time_ms": NOON + (day - 1) * 24 * HOUR + n,
        "is_click": n % 2,
        "tab": n % 3,
    }
    return row | changes


def as_csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


GOOD = [exposure(n, day) for day in (1, 2) for n in range(40)]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Write a small KuaiRand-Pure with the columns that are used."""
    data = tmp_path / "KuaiRand-Pure" / "data"
    data.mkdir(parents=True)
    (data / LOG).write_text(as_csv(GOOD))
    videos = [{"video_id": n, "author_id": n, "upload_dt": "2022-04-10", "tag": "1,2"} for n in range(7)]
    (data / "video_features_basic_pure.csv").write_text(as_csv(videos))
    users = [{"user_id": n} | dict.fromkeys(PROFILE, n % 2) for n in range(40)]
    (data / "user_features_pure.csv").write_text(as_csv(users))
    return data.parent


def settings_of(release: Path, root: Path, **options: object) -> SimpleNamespace:
    return SimpleNamespace(
        lakehouse_root=str(root),
        source=SourceConfig(preset="kuairand", data=str(release), **options),
        max_quarantine_share=0.05,
        engine="duckdb",
    )


@pytest.fixture
def settings(release: Path, tmp_path: Path) -> SimpleNamespace:
    """Settings for the small release and an empty lakehouse."""
    return settings_of(release, tmp_path / "lakehouse")


def digests(settings: SimpleNamespace, day: date = FIRST) -> dict[str, str]:
    lakehouse = Lakehouse(settings.lakehouse_root)
    return {table.name: lakehouse.require(table, day).digest for table in CANONICAL}


def quarantined(settings: SimpleNamespace, day: date = FIRST) -> list[tuple[str, dict]]:
    rows = Lakehouse(settings.lakehouse_root).read(tables.quarantine(tables.EXPOSURE), day).to_pylist()
    assert [row["row_number"] for row in rows] == list(range(len(rows)))
    return [(row["reason"], json.loads(row["row"])) for row in rows]


def assert_nothing_canonical(settings: SimpleNamespace, day: date = FIRST) -> None:
    lakehouse = Lakehouse(settings.lakehouse_root)
    for table in (*CANONICAL, tables.INITIAL_HISTORY):
        assert lakehouse.commit(table, day) is None


def test_day_is_written_with_its_facts(settings: SimpleNamespace):
    report = ingest_logs(FIRST, settings)
    lakehouse = Lakehouse(settings.lakehouse_root)
    assert lakehouse.require(tables.EXPOSURE, FIRST).meta == {
        "source": "kuairand",
        "source_first_day": "2022-05-01",
        "primary_scenario": "1",
        "timezone": "Asia/Shanghai",
    }
    assert {name: (table.rows_in, table.rows_out) for name, table in report.tables.items()} == {
        "exposure": (40, 40),
        "item": (7, 7),
        "user": (40, 40),
    }
    first = lakehouse.read(tables.EXPOSURE, FIRST).to_pylist()[1]
    assert first["event_time"] == datetime(2022, 5, 1, 4, 0, 0, 1000)
    assert (first["user_id"], first["item_id"], first["scenario"], first["is_click"]) == (1, 1, "1", True)
    assert quarantined(settings) == []
    assert lakehouse.days(tables.EXPOSURE) == [FIRST]


def test_second_run_gives_equal_digests(settings: SimpleNamespace):
    ingest_logs(FIRST, settings)
    once = digests(settings)
    ingest_logs(FIRST, settings)
    assert digests(settings) == once


def test_order_of_rows_and_columns_and_extra_columns_give_equal_digests(
    settings: SimpleNamespace, release: Path
):
    ingest_logs(FIRST, settings)
    once = digests(settings)
    turned = [dict(reversed([*row.items(), ("colour", "red")])) for row in reversed(GOOD)]
    (release / "data" / LOG).write_text(as_csv(turned))
    report = ingest_logs(FIRST, settings)
    assert digests(settings) == once
    assert report.notes[-1].startswith(f"{LOG}: extra columns are ignored: colour")


def test_killed_run_leaves_no_half_written_partition_and_can_be_repeated(
    settings: SimpleNamespace, tmp_path: Path
):
    ingest_logs(FIRST, settings)
    once = digests(settings)
    root = tmp_path / "killed"
    program = (
        "import sys; from datetime import date; from types import SimpleNamespace;"
        "from lakehouse.sources import SourceConfig; from tasks.ingest import ingest_logs;"
        "source = SourceConfig(preset='kuairand', data=sys.argv[1]);"
        "settings = SimpleNamespace(lakehouse_root=sys.argv[2], source=source, max_quarantine_share=0.05,"
        " engine='duckdb');"
        "ingest_logs(date(2022, 5, 1), settings)"
    )
    repository = Path(__file__).resolve().parents[2]
    run = subprocess.Popen(
        [sys.executable, "-c", program, settings.source.data, str(root)],
        cwd=repository,
        stderr=subprocess.PIPE,
    )
    while run.poll() is None and not (root / "item").exists():
        time.sleep(0.001)
    run.send_signal(signal.SIGKILL)
    run.wait()
    lakehouse = Lakehouse(root)
    for table in CANONICAL:
        if lakehouse.commit(table, FIRST) is not None:
            assert lakehouse.read(table, FIRST).num_rows == lakehouse.require(table, FIRST).n_rows
    again = SimpleNamespace(**vars(settings) | {"lakehouse_root": str(root)})
    ingest_logs(FIRST, again)
    assert digests(again) == once


def test_day_that_the_source_lacks_is_refused_with_its_range(settings: SimpleNamespace):
    with pytest.raises(SourceError, match="no 2022-05-09: its log runs from 2022-05-01 to 2022-05-02"):
        ingest_logs(date(2022, 5, 9), settings)
    assert_nothing_canonical(settings, date(2022, 5, 9))


def test_empty_day_is_refused_and_writes_nothing(settings: SimpleNamespace, release: Path):
    (release / "data" / LOG).write_text(
        as_csv([row for row in GOOD if row["date"] == "20220501"] + [exposure(1, 3)])
    )
    with pytest.raises(SourceError, match="no exposure of 2022-05-02"):
        ingest_logs(LAST, settings)
    assert_nothing_canonical(settings, LAST)


def test_missing_log_file_writes_nothing(settings: SimpleNamespace, release: Path):
    (release / "data" / LOG).unlink()
    with pytest.raises(SourceError, match="from which exposure is read"):
        ingest_logs(FIRST, settings)
    assert_nothing_canonical(settings)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"user_id": ""}, "user_id is null"),
        ({"video_id": ""}, "item_id is null"),
        ({"tab": ""}, "scenario is null"),
        ({"video_id": "v10"}, "item_id is no whole number"),
        ({"time_ms": NOON + 13 * HOUR}, "event_time is after the end of the day"),
        ({"time_ms": NOON - 14 * HOUR}, "event_time is more than an hour before the day"),
        ({"is_click": "yes please"}, "is_click is no truth value"),
    ],
)
def test_bad_row_is_quarantined_with_its_reason(
    settings: SimpleNamespace, release: Path, change: dict, reason: str
):
    (release / "data" / LOG).write_text(as_csv([*GOOD, exposure(50, **change)]))
    report = ingest_logs(FIRST, settings).tables["exposure"]
    assert (report.rows_in, report.rows_out, report.reasons) == (41, 40, {reason: 1})
    assert [why for why, _ in quarantined(settings)] == [reason]


def test_event_within_the_hour_before_its_day_is_good(settings: SimpleNamespace, release: Path):
    (release / "data" / LOG).write_text(as_csv([*GOOD, exposure(50, time_ms=NOON - 13 * HOUR)]))
    assert ingest_logs(FIRST, settings).tables["exposure"].rows_out == 41


def test_repeated_rows_are_quarantined_but_do_not_fail_the_day(settings: SimpleNamespace, release: Path):
    ingest_logs(FIRST, settings)
    once = digests(settings)
    (release / "data" / LOG).write_text(as_csv(GOOD + GOOD))
    report = ingest_logs(FIRST, settings).tables["exposure"]
    assert (report.rows_in, report.rows_out, report.reasons) == (80, 40, {"duplicate": 40})
    assert digests(settings) == once


def test_rows_of_one_key_that_differ_count_as_bad(settings: SimpleNamespace, release: Path):
    other = [row | {"is_click": 1 - row["is_click"]} for row in GOOD[:10]]
    (release / "data" / LOG).write_text(as_csv(GOOD + other))
    with pytest.raises(BadSource, match="10 x duplicate key, other content"):
        ingest_logs(FIRST, settings)


def test_truncated_log_loses_its_last_line_alone(settings: SimpleNamespace, release: Path):
    log = release / "data" / LOG
    log.write_text(log.read_text()[:-1])
    report = ingest_logs(LAST, settings)
    assert report.tables["exposure"].reasons == {"the file ends inside this line": 1}
    assert report.tables["exposure"].rows_out == 39
    assert (
        quarantined(settings, LAST)[0][1]["raw_line"] == f"{LOG}: 39,4,20220502,{NOON + 24 * HOUR + 39},1,0"
    )


def test_retyped_column_fails_the_day_after_its_rows_are_quarantined(
    settings: SimpleNamespace, release: Path
):
    settings.source = settings_of(release, Path(), warm_start=False).source
    (release / "data" / LOG).write_text(as_csv([row | {"user_id": f"u{row['user_id']}"} for row in GOOD]))
    with pytest.raises(BadSource) as error:
        ingest_logs(FIRST, settings)
    assert str(error.value).startswith(
        "exposure of 2022-05-01: 40 of 40 rows are bad (100.0%, limit 5.0%): 40 x user_id is no whole number."
    )
    assert "\n" not in str(error.value)
    assert len(quarantined(settings)) == 40
    assert quarantined(settings)[0][1]["user_id"] == "u0"
    assert_nothing_canonical(settings)


def test_bad_day_leaves_the_good_one_of_before_in_place(settings: SimpleNamespace, release: Path):
    ingest_logs(FIRST, settings)
    once = digests(settings)
    (release / "data" / "user_features_pure.csv").write_text(
        as_csv([{"user_id": "x"} | dict.fromkeys(PROFILE, 0) for _ in range(9)])
    )
    with pytest.raises(BadSource, match="user of 2022-05-01"):
        ingest_logs(FIRST, settings)
    assert digests(settings) == once


@pytest.fixture
def warm_start(release: Path) -> Path:
    """Put a warm start beside the small release: one good past, one that reaches into the first day."""
    rows = {
        "user_id": list(range(30)),
        "last_time_ms": [NOON - 20 * HOUR] * 29 + [NOON],
        "long_watch_seq": pa.array([[3, 1]] * 30, pa.list_(pa.int64())),
    }
    pq.write_table(pa.table(rows), release / WARM_START)
    return release


def test_warm_start_is_stored_at_the_first_day_whenever_ingestion_starts(
    settings: SimpleNamespace, warm_start: Path
):
    report = ingest_logs(LAST, settings)
    lakehouse = Lakehouse(settings.lakehouse_root)
    stored = lakehouse.require(tables.INITIAL_HISTORY, FIRST)
    assert lakehouse.days(tables.EXPOSURE) == [LAST]
    assert report.tables["initial_history"].reasons == {"last_event_time is not before the first day": 1}
    assert lakehouse.read(tables.INITIAL_HISTORY, FIRST).to_pylist()[0] == {
        "user_id": 0,
        "item_ids": [3, 1],
        "last_event_time": datetime(2022, 4, 30, 8),
    }
    assert "initial_history" not in ingest_logs(LAST, settings).tables
    assert "initial_history" in ingest_logs(FIRST, settings).tables
    assert lakehouse.require(tables.INITIAL_HISTORY, FIRST).digest == stored.digest


def test_warm_start_can_be_left_out(warm_start: Path, tmp_path: Path):
    settings = settings_of(warm_start, tmp_path / "cold", warm_start=False)
    assert "initial_history" not in ingest_logs(FIRST, settings).tables
    assert Lakehouse(settings.lakehouse_root).commit(tables.INITIAL_HISTORY, FIRST) is None


@pytest.mark.parametrize(
    ("scores", "categories", "reason"),
    [
        ("[0.5, nan]", "[1, 2]", "scores holds what is no finite number"),
        ("[0.5, 0.25]", "[1]", "item_ids, category_ids and scores have unequal lengths"),
    ],
)
def test_bad_ranking_is_quarantined(release: Path, tmp_path: Path, scores: str, categories: str, reason: str):
    mapping = SourceConfig(preset="kuairand", data=str(release))
    rankings = [
        {
            "r": n,
            "u": n,
            "shown_at": f"2022-05-01 1{n % 10}:00:00",
            "i": "[1, 2]",
            "c": "[1, 2]",
            "s": "[0.5, 0.25]",
        }
        for n in range(30)
    ]
    rankings[7] |= {"s": scores, "c": categories}
    (release / "rankings.csv").write_text(as_csv(rankings))
    base = effective_mapping(mapping).model_dump(mode="json")
    base["tables"]["ranking_log"] = {
        "files": ["rankings.csv"],
        "take": "day",
        "log_date": "left(shown_at, 10)",
        "columns": {
            "request_id": "r",
            "user_id": "u",
            "scenario": "'1'",
            "event_time": "local_to_utc(shown_at)",
            "item_ids": "i",
            "category_ids": "c",
            "scores": "s",
        },
    }
    settings = SimpleNamespace(
        lakehouse_root=str(tmp_path / "ranked"),
        source=SourceConfig(preset="generic", data=str(release), mapping=base),
        max_quarantine_share=0.05,
        engine="duckdb",
    )
    report = ingest_logs(FIRST, settings).tables["ranking_log"]
    assert (report.rows_in, report.rows_out, report.reasons) == (30, 29, {reason: 1})
    stored = Lakehouse(settings.lakehouse_root).read(tables.RANKING_LOG, FIRST)
    assert stored["item_ids"].to_pylist() == [[1, 2]] * 29


def test_retrieval_log_is_mapped_bad_rows_are_quarantined_and_a_day_without_one_is_empty(
    release: Path, tmp_path: Path
):
    rows = [
        {"u": n, "shown_at": f"2022-05-01 1{n % 10}:00:00", "i": "[1, 2]" if n else "[]", "c": ""}
        for n in range(30)
    ]
    rows[7]["i"] = "[1, x]"
    (release / "retrievals.csv").write_text(as_csv(rows))
    base = effective_mapping(SourceConfig(preset="kuairand", data=str(release))).model_dump(mode="json")
    base["tables"]["retrieval_log"] = {
        "files": ["retrievals.csv"],
        "take": "day",
        "log_date": "left(shown_at, 10)",
        "columns": {
            "user_id": "u",
            "scenario": "'1'",
            "event_time": "local_to_utc(shown_at)",
            "channel": "nullif(c, '')",
            "item_ids": "i",
        },
    }
    settings = SimpleNamespace(
        lakehouse_root=str(tmp_path / "retrieved"),
        source=SourceConfig(preset="generic", data=str(release), mapping=base),
        max_quarantine_share=0.05,
        engine="duckdb",
    )
    report = ingest_logs(FIRST, settings).tables["retrieval_log"]
    assert (report.rows_in, report.rows_out) == (30, 29)
    assert report.reasons == {"item_ids holds what is no whole number": 1}
    lakehouse = Lakehouse(settings.lakehouse_root)
    stored = lakehouse.read(tables.RETRIEVAL_LOG, FIRST)
    assert stored["item_ids"].to_pylist() == [[]] + [[1, 2]] * 28
    assert stored["channel"].null_count == stored["request_id"].null_count == 29
    ingest_logs(LAST, settings)
    assert lakehouse.require(tables.RETRIEVAL_LOG, LAST).n_rows == 0


def test_synthetic_world_is_ingested_whole(tmp_path: Path):
    source = SourceConfig(synthetic={"n_users": 200})
    settings = SimpleNamespace(
        lakehouse_root=str(tmp_path / "lakehouse"),
        source=source,
        max_quarantine_share=0.0,
        engine="duckdb",
    )
    report = ingest_logs(source.synthetic.first_day, settings)
    assert set(report.tables) == {"exposure", "ranking_log", "item", "user"}
    assert all(table.rows_quarantined == 0 and table.rows_out > 0 for table in report.tables.values())


def test_real_days_are_ingested_and_little_is_refused(kuairand_pure: Path, tmp_path: Path):
    settings = settings_of(kuairand_pure, tmp_path / "lakehouse")
    settings.max_quarantine_share = 0.001
    early = "event_time is more than an hour before the day"
    expected = {
        date(2022, 4, 30): (21204, {"duplicate": 682, "duplicate key, other content": 1, early: 2}),
        date(2022, 5, 2): (19554, {"duplicate": 406, early: 5}),
    }
    for day, (rows_in, reasons) in expected.items():
        report = ingest_logs(day, settings)
        assert (report.tables["exposure"].rows_in, report.tables["exposure"].reasons) == (rows_in, reasons)
        assert report.notes == ()
        assert report.tables["item"].reasons == report.tables["user"].reasons == {}
    lakehouse = Lakehouse(settings.lakehouse_root)
    assert lakehouse.read(tables.INITIAL_HISTORY, date(2022, 4, 25)).num_rows == 25_233
