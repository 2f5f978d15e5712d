"""The published layouts, in small and as they are."""

from collections import Counter
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.sources import SourceConfig, SourceError, open_source
from lakehouse.sources.mapping import load_preset

DAY = date(2022, 4, 25)
WARM_START = "user_history_apr08_apr24_last50.parquet"


def csv_line(layout: list[str], values: dict[str, object]) -> str:
    """Give one CSV line of a layout; columns without a value are 0."""
    return ",".join(str(values.get(column, 0)) for column in layout) + "\n"


def write_kuairand(folder: Path, suffix: str = "_pure", days: tuple[int, ...] = (25, 26)) -> Path:
    """Write a tiny release: two users, two videos, one exposure per user and day."""
    tables = load_preset("kuairand")["tables"]
    data = folder / "data"
    data.mkdir(parents=True)
    log = tables["exposure"]["layout"]
    noon = 1650859200000  # 2022-04-25 12:00 in Shanghai
    rows = [
        csv_line(
            log,
            {
                "user_id": user,
                "video_id": user + 10,
                "date": f"202204{day}",
                "time_ms": noon + (day - 25) * 86_400_000 + user,
                "is_click": user % 2,
                "tab": user,
            },
        )
        for day in days
        for user in (1, 2)
    ]
    (data / f"log_standard_4_22_to_5_08{suffix}.csv").write_text(",".join(log) + "\n" + "".join(rows))
    users, videos = tables["user"]["layout"], tables["item"]["layout"]
    (data / f"user_features{suffix}.csv").write_text(
        ",".join(users)
        + "\n"
        + csv_line(users, {"user_id": 1, "fans_user_num_range": '"[10,100)"', "onehot_feat4": ""})
        + csv_line(users, {"user_id": 2})
    )
    (data / f"video_features_basic{suffix}.csv").write_text(
        ",".join(videos)
        + "\n"
        + csv_line(videos, {"video_id": 11, "upload_dt": "2022-04-10", "tag": '"12,65"', "author_id": 7})
        + csv_line(videos, {"video_id": 12, "upload_dt": "2022-04-26", "tag": ""})
    )
    return folder


def kuairand(folder: Path, **options: object):
    return open_source(SourceConfig(preset="kuairand", data=str(folder), **options))


@pytest.mark.parametrize("suffix", ["_pure", "_1k", "_27k", ""])
def test_kuairand_release_is_read_from_its_folder_or_its_data_folder(tmp_path: Path, suffix: str):
    release = write_kuairand(tmp_path / "release", suffix)
    for folder in (release, release / "data"):
        source = kuairand(folder)
        assert (source.first_day, source.last_day) == (DAY, date(2022, 4, 26))
        assert source.read("exposure", DAY).num_rows == 2
        assert source.tables == {"exposure", "item", "user"}


def test_kuairand_columns_are_mapped(tmp_path: Path):
    source = kuairand(write_kuairand(tmp_path / "release"))
    first = source.read("exposure", DAY).to_pylist()[0]
    assert first == {
        "request_id": None,
        "user_id": "1",
        "item_id": "11",
        "scenario": "1",
        "event_time": "2022-04-25 04:00:00.001",
        "position": None,
        "is_click": "1",
        "is_order": "false",
        "read_error": None,
        "raw_line": None,
    }
    profile = source.read("user", DAY)["profile"].to_pylist()[0]
    assert "fans_user_num_range=[10,100)" in profile
    assert not any(token.startswith(("onehot_feat4=", "fans_user_num=")) for token in profile)


def test_kuairand_item_is_there_from_its_upload_on(tmp_path: Path):
    source = kuairand(write_kuairand(tmp_path / "release"))
    assert source.read("item", DAY)["item_id"].to_pylist() == ["11"]
    items = source.read("item", date(2022, 4, 26)).to_pylist()
    assert [(row["item_id"], row["category_id"]) for row in items] == [("11", "12"), ("12", None)]


def test_kuairand_log_in_parts_and_over_several_files_is_one_log(tmp_path: Path):
    release = write_kuairand(tmp_path / "release", "_27k_part1", days=(25,))
    other = write_kuairand(tmp_path / "other", days=(26,)) / "data" / "log_standard_4_22_to_5_08_pure.csv"
    other.rename(release / "data" / "log_standard_4_22_to_5_08_27k_part2.csv")
    early = write_kuairand(tmp_path / "early", days=(20,)) / "data" / "log_standard_4_22_to_5_08_pure.csv"
    early.rename(release / "data" / "log_standard_4_08_to_4_21_27k_part1.csv")
    source = kuairand(release)
    assert (source.first_day, source.last_day) == (date(2022, 4, 20), date(2022, 4, 26))
    assert source.read("exposure", date(2022, 4, 26)).num_rows == 2


def test_kuairand_random_log_is_left_out_unless_named(tmp_path: Path):
    release = write_kuairand(tmp_path / "release")
    log = release / "data" / "log_standard_4_22_to_5_08_pure.csv"
    random = log.with_name("log_random_4_22_to_5_08_pure.csv")
    random.write_text(log.read_text())
    assert kuairand(release).read("exposure", DAY).num_rows == 2
    both = {"exposure": ("log_standard_*.csv", "log_random_*.csv")}
    assert kuairand(release, files=both).read("exposure", DAY).num_rows == 4


def test_kuairand_warm_start_is_taken_where_it_lies(tmp_path: Path):
    release = write_kuairand(tmp_path / "release")
    with pytest.raises(SourceError, match=f"no {WARM_START} in"):
        kuairand(release, warm_start=True)
    history = {
        "user_id": [1, 2],
        "history_len": [3, 0],
        "last_time_ms": [1650815999000, 1650815999000],
        "watch_seq": [[11, 12, 11], [12]],
        "like_seq": [[], []],
        "long_watch_seq": pa.array([[12, 11], []], pa.list_(pa.int64())),
    }
    pq.write_table(pa.table(history), release / WARM_START)
    for folder in (release, release / "data"):
        rows = kuairand(folder, warm_start=True).read("initial_history", DAY)
        # User 2 has no long watch and brings nothing.
        assert rows.select(["user_id", "item_ids", "last_event_time"]).to_pylist() == [
            {"user_id": "1", "item_ids": [12, 11], "last_event_time": "2022-04-24 15:59:59"}
        ]
    assert "initial_history" in kuairand(release).tables
    assert "initial_history" not in kuairand(release, warm_start=False).tables


@pytest.mark.parametrize("official", ["user_features", "video_features_basic", "log_standard_4_22_to_5_08"])
def test_kuairand_without_an_official_file_is_refused_with_its_name(tmp_path: Path, official: str):
    release = write_kuairand(tmp_path / "release")
    (release / "data" / f"{official}_pure.csv").unlink()
    with pytest.raises(SourceError, match=rf"no .*{official}\*\.csv in .*release or .*release/data"):
        kuairand(release)


def test_real_days_have_their_exact_rows(kuairand_pure: Path):
    source = kuairand(kuairand_pure)
    assert (source.first_day, source.last_day) == (date(2022, 4, 25), date(2022, 5, 5))
    assert source.tables == {"exposure", "item", "user", "initial_history"}
    rows = {
        day: source.read("exposure", day).num_rows for day in map(date.fromordinal, range(738270, 738281))
    }
    assert rows == {
        date(2022, 4, 25): 14911,
        date(2022, 4, 26): 14530,
        date(2022, 4, 27): 14328,
        date(2022, 4, 28): 13972,
        date(2022, 4, 29): 15839,
        date(2022, 4, 30): 21204,
        date(2022, 5, 1): 20790,
        date(2022, 5, 2): 19554,
        date(2022, 5, 3): 18943,
        date(2022, 5, 4): 17600,
        date(2022, 5, 5): 13390,
    }
    assert sum(rows.values()) == 185_061
    assert source.read("item", DAY).num_rows == 7583
    assert source.read("user", DAY).num_rows == 27_285
    warm_start = source.read("initial_history", DAY)
    assert warm_start.num_rows == 25_233
    assert sum(map(len, warm_start["item_ids"].to_pylist())) == 390_929


def test_kuairec_is_read_with_watched_twice_as_click(tmp_path: Path):
    data = tmp_path / "KuaiRec 2.0" / "data"
    data.mkdir(parents=True)
    tables = load_preset("kuairec")["tables"]
    (data / "big_matrix.csv").write_text(
        ",".join(tables["exposure"]["layout"])
        + "\n0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.273397\n"
        + "0,9598,30000,15000,2020-07-05 00:13:41.297,20200705,1593879221.297,2.0\n"
    )
    (data / "item_categories.csv").write_text('video_id,feat\n3649,[8]\n9598,"[27, 9]"\n1,[]\n')
    users = tables["user"]["layout"]
    (data / "user_features.csv").write_text(",".join(users) + "\n" + csv_line(users, {}))
    config = SourceConfig(preset="kuairec", data=str(data.parent))
    source = open_source(config)
    day = date(2020, 7, 5)
    rows = source.read("exposure", day).to_pylist()
    assert [(r["item_id"], r["event_time"], r["is_click"]) for r in rows] == [
        ("3649", "2020-07-04 16:08:23.438", "false"),
        ("9598", "2020-07-04 16:13:41.297", "true"),
    ]
    categories = {row["item_id"]: row["category_id"] for row in source.read("item", day).to_pylist()}
    assert categories == {"3649": "8", "9598": "27", "1": None}
    lower = config.model_copy(
        update={"columns": {"exposure": {"is_click": "try_cast(watch_ratio as double) >= 1"}}}
    )
    assert open_source(lower).read("exposure", day)["is_click"].to_pylist() == ["true", "true"]


def test_taobao_items_and_users_are_those_seen_up_to_the_day(tmp_path: Path):
    (tmp_path / "UserBehavior.csv").write_text(
        "1,10,100,pv,1511539200\n"  # 2017-11-25 00:00 in Shanghai
        "1,10,100,buy,1511539260\n"
        "2,11,101,cart,1511625599\n"
        "2,10,102,fav,1511625600\n"  # the next day; the item's category has changed
        "3,12,103,pv,1511625601\n"
        "4,13,103,pv,-1000\n"  # stray
    )
    source = open_source(SourceConfig(preset="taobao", data=str(tmp_path)))
    first, second = date(2017, 11, 25), date(2017, 11, 26)
    assert (source.first_day, source.last_day) == (first, second)
    rows = source.read("exposure", first)
    assert Counter(zip(rows["is_click"].to_pylist(), rows["is_order"].to_pylist(), strict=True)) == {
        ("true", "false"): 2,
        ("false", "true"): 1,
    }
    assert rows.schema.metadata[b"notes"] == b"exposure: 1 rows lie outside 2017-11-25 .. 2017-11-26"

    def items(day: date) -> list[tuple]:
        return [(row["item_id"], row["category_id"]) for row in source.read("item", day).to_pylist()]

    assert items(first) == [("10", "100"), ("11", "101")]
    assert items(second) == [("10", "102"), ("11", "101"), ("12", "103")]
    assert source.read("user", first).select(["user_id", "profile"]).to_pylist() == [
        {"user_id": "1", "profile": []},
        {"user_id": "2", "profile": []},
    ]


def test_taobao_file_of_another_width_is_refused(tmp_path: Path):
    (tmp_path / "UserBehavior.csv").write_text("1,10,pv,1511539200\n")
    with pytest.raises(SourceError, match="has 4 columns, not the 5 of its layout: user_id, item_id"):
        open_source(SourceConfig(preset="taobao", data=str(tmp_path)))
