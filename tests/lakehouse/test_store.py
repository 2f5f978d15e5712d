"""A partition is there whole or not at all, on every kind of root, whatever happens to its writers."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from lakehouse.store import Lakehouse, MissingPartition, SchemaMismatch
from lakehouse.tables import CHECKPOINT, CLICK, EXPOSURE, TIME, Column, Table, quarantine

REPOSITORY = Path(__file__).resolve().parents[2]
DAY = date(2022, 5, 1)
NEXT_DAY = date(2022, 5, 2)

RICH = Table(
    "rich",
    "One row of every kind of column.",
    (
        Column("id", pa.int64(), "id"),
        Column("is_new", pa.bool_(), "flag", True),
        Column("day", pa.date32(), "day", True),
        Column("price", pa.float32(), "price", True),
        Column("name", pa.string(), "text", True),
        Column("content", pa.large_binary(), "bytes", True),
        Column("item_ids", pa.list_(pa.int64()), "ids", True),
        Column("scores", pa.list_(pa.float32()), "scores", True),
        Column("times", pa.list_(TIME), "times", True),
        Column("profile", pa.list_(pa.string()), "texts", True),
    ),
    key=("id",),
)
RICH_ROWS = pa.Table.from_pylist(
    [
        {
            "id": 3,
            "is_new": True,
            "day": DAY,
            "price": float("nan"),
            "name": "ä",
            "content": bytes(range(256)) * 1000,
            "item_ids": [1, 2],
            "scores": [0.5, float("inf")],
            "times": [datetime(2022, 5, 1, 1, 2, 3, 456789)],
            "profile": ["age=3", ""],
        },
        {"id": 1},
        {"id": 2, "name": "", "content": b"", "item_ids": [], "scores": [], "times": [], "profile": []},
    ],
    schema=RICH.schema,
)


def clicks(item_id: int, n: int = 3) -> pa.Table:
    """Clicks of n users on one item: rows that show which write they belong to."""
    return pa.table(
        {
            "user_id": range(n),
            "item_id": [item_id] * n,
            "scenario": ["home"] * n,
            "event_time": pa.array(range(n), TIME),
        }
    )


def item_of(rows: pa.Table, n: int = 3) -> int:
    """Give the one item of rows that `clicks` made, which must be all there."""
    assert rows.num_rows == n
    (item_id,) = set(rows["item_id"].to_pylist())
    return item_id


def files_of(root: str, table: Table = CLICK, day: date = DAY) -> list[str]:
    """Give the URLs of the partition's files."""
    filesystem, path = fsspec.url_to_fs(root, use_listings_cache=False)
    return [filesystem.unstrip_protocol(f) for f in filesystem.find(f"{path}/{table.name}/ds={day}")]


def test_rows_of_every_kind_come_back_as_they_were(root: str) -> None:
    lakehouse = Lakehouse(root)
    commit = lakehouse.replace(RICH, DAY, RICH_ROWS, meta={"window": "7"})
    rows = Lakehouse(root).read(RICH, DAY)
    assert rows.schema == RICH.schema
    assert rows["id"].to_pylist() == [1, 2, 3]
    assert str(rows.to_pylist()) == str(RICH_ROWS.take([1, 2, 0]).to_pylist())
    assert commit == lakehouse.require(RICH, DAY)
    assert (commit.n_rows, commit.schema_version, commit.meta) == (3, 1, {"window": "7"})


def test_empty_partition_is_a_partition(root: str) -> None:
    lakehouse = Lakehouse(root)
    assert lakehouse.replace(RICH, DAY, RICH.schema.empty_table()).n_rows == 0
    assert lakehouse.read(RICH, DAY) == RICH.schema.empty_table()
    assert lakehouse.days(RICH) == [DAY]


def test_same_rows_in_any_order_and_chunks_give_the_same_digest(root: str) -> None:
    lakehouse = Lakehouse(root)
    digest = lakehouse.replace(RICH, DAY, RICH_ROWS).digest
    shuffled = pa.concat_tables([RICH_ROWS.slice(2), RICH_ROWS.slice(0, 1), RICH_ROWS.slice(1, 1)])
    assert lakehouse.replace(RICH, NEXT_DAY, shuffled).digest == digest
    assert lakehouse.replace(RICH, NEXT_DAY, RICH_ROWS.slice(1)).digest != digest


def test_a_write_replaces_the_whole_partition_and_overwrites_no_file(root: str) -> None:
    lakehouse = Lakehouse(root)
    first = lakehouse.replace(CLICK, DAY, clicks(1))
    second = lakehouse.replace(CLICK, DAY, clicks(2, n=5))
    assert item_of(lakehouse.read(CLICK, DAY), n=5) == 2
    assert not set(first.files) & set(second.files)
    assert len(files_of(root)) == 3


def test_columns_are_read_in_the_order_asked_for(root: str) -> None:
    lakehouse = Lakehouse(root)
    lakehouse.replace(RICH, DAY, RICH_ROWS)
    assert lakehouse.read(RICH, DAY, columns=["times", "id"]).column_names == ["times", "id"]
    assert lakehouse.read_days(RICH, [DAY], columns=["id"]).column_names == ["id", "ds"]
    with pytest.raises(SchemaMismatch, match="table rich has no column nam; it has id, "):
        lakehouse.read(RICH, DAY, columns=["nam"])


def test_missing_partition_names_table_day_and_root(root: str) -> None:
    lakehouse = Lakehouse(root)
    lakehouse.replace(CLICK, DAY, clicks(1))
    assert lakehouse.commit(CLICK, NEXT_DAY) is None
    for ask in (lakehouse.read, lakehouse.require):
        with pytest.raises(MissingPartition, match=f"click for 2022-05-02 under {root}; first run"):
            ask(CLICK, NEXT_DAY)
    days = [DAY, NEXT_DAY, date(2022, 5, 3)]
    for ask in (lakehouse.read_days, lakehouse.relation):
        with pytest.raises(MissingPartition, match="of click for 2022-05-02, 2022-05-03 under"):
            ask(CLICK, days)


def test_days_are_read_behind_each_other_with_their_day(root: str) -> None:
    lakehouse = Lakehouse(root)
    lakehouse.replace(CLICK, DAY, clicks(1, n=1))
    lakehouse.replace(CLICK, NEXT_DAY, clicks(2, n=2))
    rows = lakehouse.read_days(CLICK, [DAY, NEXT_DAY])
    assert rows["item_id"].to_pylist() == [1, 2, 2]
    assert rows["ds"].to_pylist() == [DAY, NEXT_DAY, NEXT_DAY]
    nothing = lakehouse.read_days(CLICK, [])
    assert nothing.schema == rows.schema
    assert nothing.num_rows == 0
    assert lakehouse.days(CLICK) == [DAY, NEXT_DAY]


def test_each_part_is_a_partition_of_its_own(root: str) -> None:
    lakehouse = Lakehouse(root)
    for part, content in (("increc-2.0", b"i"), ("base", b"b")):
        lakehouse.replace(CHECKPOINT, DAY, pa.table({"name": ["w"], "content": [content]}), part=part)
    assert lakehouse.parts(CHECKPOINT, DAY) == ["base", "increc-2.0"]
    assert lakehouse.days(CHECKPOINT) == [DAY]
    assert lakehouse.read(CHECKPOINT, DAY, part="base")["content"].to_pylist() == [b"b"]
    rows = lakehouse.read_days(CHECKPOINT, [DAY])
    assert rows.select(["method", "ds"]).to_pylist() == [
        {"method": "base", "ds": DAY},
        {"method": "increc-2.0", "ds": DAY},
    ]
    with pytest.raises(MissingPartition, match=r"checkpoint \(method=dssm\) for 2022-05-01"):
        lakehouse.read(CHECKPOINT, DAY, part="dssm")
    with pytest.raises(MissingPartition, match="checkpoint for 2022-05-02"):
        lakehouse.read_days(CHECKPOINT, [NEXT_DAY])


def test_part_must_be_named_where_there_are_parts_and_only_there(root: str) -> None:
    lakehouse = Lakehouse(root)
    with pytest.raises(ValueError, match="table checkpoint has one partition per method"):
        lakehouse.commit(CHECKPOINT, DAY)
    with pytest.raises(ValueError, match=r"got '\.\./base'"):
        lakehouse.commit(CHECKPOINT, DAY, part="../base")
    with pytest.raises(ValueError, match="table click has no parts, got part='base'"):
        lakehouse.commit(CLICK, DAY, part="base")


def test_quarantine_lies_beside_its_table(root: str) -> None:
    lakehouse = Lakehouse(root)
    refused = pa.table({"row_number": [0], "reason": ["null user_id"], "row": ["{}"]})
    lakehouse.replace(quarantine(CLICK), DAY, refused)
    assert lakehouse.read(quarantine(CLICK), DAY).to_pylist() == refused.to_pylist()
    assert lakehouse.days(quarantine(CLICK)) == [DAY]
    assert lakehouse.days(CLICK) == []


def test_refused_rows_leave_no_file(root: str) -> None:
    lakehouse = Lakehouse(root)
    with pytest.raises(SchemaMismatch):
        lakehouse.replace(CLICK, DAY, clicks(1).drop_columns(["item_id"]))
    assert files_of(root) == []


def test_meta_that_is_no_text_is_refused(root: str) -> None:
    lakehouse = Lakehouse(root)
    with pytest.raises(ValueError, match="window_days"):
        lakehouse.replace(CLICK, DAY, clicks(1), meta={"window_days": 7})
    assert lakehouse.commit(CLICK, DAY) is None


def test_files_that_no_marker_names_are_not_read(root: str) -> None:
    lakehouse = Lakehouse(root)
    lakehouse.replace(CLICK, DAY, clicks(1))
    before, after = (f"click/ds={day}/stray.parquet" for day in (DAY, NEXT_DAY))
    for stray in (before, after):
        lakehouse._storage.write_parquet(stray, clicks(2))
    assert item_of(lakehouse.read(CLICK, DAY)) == 1
    assert lakehouse.days(CLICK) == [DAY]
    assert len(lakehouse.relation(CLICK, [DAY]).files) == 1


def test_of_concurrent_writers_one_wins_whole_and_readers_see_whole_partitions(root: str) -> None:
    Lakehouse(root).replace(CLICK, DAY, clicks(0))

    def write(item_id: int) -> str:
        return Lakehouse(root).replace(CLICK, DAY, clicks(item_id)).digest

    def read(_: int) -> int:
        return item_of(Lakehouse(root).read(CLICK, DAY))

    with ThreadPoolExecutor(8) as pool:
        writes, reads = pool.map(write, range(1, 13)), pool.map(read, range(12))
        sweeps = pool.map(lambda _: Lakehouse(root).sweep(CLICK, timedelta(hours=1)), range(4))
        digests = dict(enumerate(writes, start=1))
        assert set(reads) <= set(range(13))
        assert set(sweeps) == {0}
    winner = item_of(Lakehouse(root).read(CLICK, DAY))
    assert Lakehouse(root).require(CLICK, DAY).digest == digests[winner]


def test_partition_of_another_version_of_its_table_is_refused(root: str) -> None:
    lakehouse = Lakehouse(root)
    lakehouse.replace(CLICK, DAY, clicks(1))
    second = Table(CLICK.name, CLICK.meaning, CLICK.columns, CLICK.key, version=2)
    for ask in (lakehouse.read, lakehouse.require, lambda table, day: lakehouse.read_days(table, [day])):
        with pytest.raises(SchemaMismatch, match=r"version 2, but its partition of 2022-05-01 .* version 1"):
            ask(second, DAY)


def test_sweep_deletes_what_was_superseded_before_the_grace_period(root: str) -> None:
    lakehouse = Lakehouse(root)
    for item_id in (1, 2, 3):
        lakehouse.replace(CLICK, DAY, clicks(item_id))
    lakehouse.replace(CHECKPOINT, DAY, pa.table({"name": ["w"], "content": [b""]}), part="base")
    lakehouse._storage.write_parquet(f"click/ds={NEXT_DAY}/without_marker.parquet", clicks(4))
    assert lakehouse.sweep(CLICK, timedelta(hours=1)) == 0
    assert lakehouse.sweep(EXPOSURE, timedelta(0)) == 0
    assert len(files_of(root)) == 4
    assert lakehouse.sweep(CHECKPOINT, timedelta(0)) == 0
    assert lakehouse.sweep(CLICK, timedelta(0)) == 3
    assert len(files_of(root)) == 2
    assert item_of(lakehouse.read(CLICK, DAY)) == 3
    with pytest.raises(ValueError, match="must not be negative"):
        lakehouse.sweep(CLICK, timedelta(seconds=-1))


def test_long_written_file_is_kept_for_the_grace_period_after_it_was_superseded(tmp_path: Path) -> None:
    lakehouse = Lakehouse(tmp_path)
    (old,) = lakehouse.replace(CLICK, DAY, clicks(1)).files
    lakehouse.replace(CLICK, DAY, clicks(2))
    os.utime(tmp_path / "click" / f"ds={DAY}" / old, (0, 0))
    assert lakehouse.sweep(CLICK, timedelta(hours=1)) == 0


def test_relative_root_is_kept_as_given_but_points_to_one_place(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    lakehouse = Lakehouse("var/lakehouse")
    lakehouse.replace(CLICK, DAY, clicks(1))
    monkeypatch.chdir("/")
    assert item_of(lakehouse.read(CLICK, DAY)) == 1
    assert lakehouse.root == "var/lakehouse"
