"""A model's files in the lakehouse: whole again, in pieces where they are long."""

from datetime import date

import pyarrow.parquet as pq
import pytest

from lakehouse import relation, tables
from lakehouse.store import Lakehouse, MissingPartition
from tasks import checkpoints
from tasks.checkpoints import read_files, write_files

DAY = date(2026, 1, 1)
FILES = {
    "model.safetensors": bytes(range(256)) * 10,
    "config.json": b"{}",
    "report.json": b"",
    "exact": b"x" * 100,
}


def test_long_files_lie_in_pieces_and_are_read_whole(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "PIECE_BYTES", 100)
    monkeypatch.setattr(relation, "BYTES_PER_GROUP", 300)
    lakehouse = Lakehouse(tmp_path)
    commit = write_files(lakehouse, DAY, "base", FILES)
    assert read_files(lakehouse, DAY, "base") == FILES
    names = lakehouse.read(tables.CHECKPOINT, DAY, part="base")["name"].to_pylist()
    pieces = [f"model.safetensors:{n:05d}" for n in range(26)]
    assert names == ["config.json", "exact", *pieces, "report.json"]
    (file,) = tmp_path.rglob("*.parquet")
    assert pq.ParquetFile(file).num_row_groups > 5
    assert write_files(lakehouse, DAY, "base", FILES).digest == commit.digest


def test_short_files_lie_whole(tmp_path) -> None:
    lakehouse = Lakehouse(tmp_path)
    write_files(lakehouse, DAY, "base", FILES)
    rows = lakehouse.read(tables.CHECKPOINT, DAY, part="base")
    assert dict(zip(rows["name"].to_pylist(), rows["content"].to_pylist(), strict=True)) == FILES
    with pytest.raises(MissingPartition):
        read_files(lakehouse, DAY, "increc")
