"""A partition written batch by batch is the one that its rows at once would be, or is not there."""

from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.store import Lakehouse, SchemaMismatch
from lakehouse.tables import I2I_TABLE
from tests.lakehouse.test_store import files_of

DAY = date(2022, 5, 1)
NEXT_DAY = date(2022, 5, 2)


def rows(*triggers: int, n_targets: int = 3) -> pa.Table:
    """Rows of an i2i table, in its order where the triggers are."""
    return pa.Table.from_pylist(
        [
            {
                "trigger_item_id": trigger,
                "target_item_id": 100 + rank,
                "score": 1 / rank,
                "rank": rank,
                "n_common_users": 2,
            }
            for trigger in triggers
            for rank in range(1, n_targets + 1)
        ],
        schema=I2I_TABLE.schema,
    )


def test_batches_give_the_commit_that_the_whole_rows_give(root: str) -> None:
    lakehouse = Lakehouse(root)
    whole = lakehouse.replace(I2I_TABLE, DAY, rows(1, 2, 3, 5))
    batches = [rows(1), rows(), *rows(2, 3).to_batches(), rows(5)]
    written = lakehouse.replace_by_batches(I2I_TABLE, NEXT_DAY, iter(batches), meta=lambda: {"a": "b"})
    assert (written.digest, written.n_rows, written.meta) == (whole.digest, 12, {"a": "b"})
    assert lakehouse.read(I2I_TABLE, NEXT_DAY) == lakehouse.read(I2I_TABLE, DAY)


def test_no_batches_make_an_empty_partition(root: str) -> None:
    lakehouse = Lakehouse(root)
    empty = lakehouse.replace(I2I_TABLE, DAY, rows())
    assert lakehouse.replace_by_batches(I2I_TABLE, NEXT_DAY, []).digest == empty.digest
    assert lakehouse.read(I2I_TABLE, NEXT_DAY).num_rows == 0


def test_many_rows_are_one_file_of_full_row_groups(tmp_path) -> None:
    lakehouse = Lakehouse(tmp_path)
    batches = (rows(trigger, n_targets=5000) for trigger in range(60))
    assert lakehouse.replace_by_batches(I2I_TABLE, DAY, batches).n_rows == 300_000
    (file,) = [path for path in files_of(str(tmp_path), I2I_TABLE, DAY) if path.endswith(".parquet")]
    assert pq.ParquetFile(file.removeprefix("file://")).num_row_groups <= 6
    assert lakehouse.read(I2I_TABLE, DAY).num_rows == 300_000


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([rows(2), rows(1)], "starts at trigger_item_id=1 is not in the order"),
        ([rows(1), rows(1)], "or not cut between two values of trigger_item_id"),
        ([rows(1, 3, 2)], "not in the order of trigger_item_id, rank"),
        ([rows(1).take([0, 2, 1])], "not in the order of trigger_item_id, rank"),
        ([rows(1).drop_columns("score")], "columns missing: score"),
        ([rows(1), pa.concat_tables([rows(2), rows(2)])], "not in the order"),
        (
            [rows(1).set_column(1, "target_item_id", pa.array([7, 7, 8]))],
            "1 of 3 rows repeat the key of another row",
        ),
    ],
)
def test_batches_that_do_not_fit_leave_the_old_content_and_no_file(root: str, batches, message) -> None:
    lakehouse = Lakehouse(root)
    old = lakehouse.replace(I2I_TABLE, DAY, rows(9))
    n_files = len(files_of(root, I2I_TABLE, DAY))
    with pytest.raises(SchemaMismatch, match=message):
        lakehouse.replace_by_batches(I2I_TABLE, DAY, batches)
    assert lakehouse.require(I2I_TABLE, DAY) == old
    assert len(files_of(root, I2I_TABLE, DAY)) == n_files


def test_a_failure_between_batches_is_passed_on_and_leaves_the_old_content(root: str) -> None:
    def batches():
        yield rows(1, n_targets=200_000)
        raise MemoryError("no room for the next batch")

    lakehouse = Lakehouse(root)
    old = lakehouse.replace(I2I_TABLE, DAY, rows(9))
    n_files = len(files_of(root, I2I_TABLE, DAY))
    with pytest.raises(MemoryError, match="no room for the next batch"):
        lakehouse.replace_by_batches(I2I_TABLE, DAY, batches())
    assert lakehouse.require(I2I_TABLE, DAY) == old
    assert len(files_of(root, I2I_TABLE, DAY)) == n_files


def test_a_table_whose_order_does_not_start_with_its_key_is_refused(root: str) -> None:
    from lakehouse.tables import RANKING_LOG, Table

    table = Table("odd", "odd", RANKING_LOG.columns, key=("user_id",), order_by=("scenario",))
    with pytest.raises(ValueError, match="ordered by scenario, its key starts with user_id"):
        Lakehouse(root).replace_by_batches(table, DAY, [])
