"""A query on Spark reads what the store has committed, binds its parameters, and tells what it cannot do."""

from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse.sql import SqlError, run_sql
from lakehouse.store import Lakehouse
from lakehouse.tables import CHECKPOINT, CLICK, TIME, USER_HISTORY

DAY = date(2022, 5, 1)
NEXT_DAY = date(2022, 5, 2)
TEN = datetime(2022, 5, 1, 10)


def clicks(*item_ids: int) -> pa.Table:
    n = len(item_ids)
    return pa.table(
        {
            "user_id": range(n),
            "item_id": item_ids,
            "scenario": ["home"] * n,
            "event_time": pa.array([TEN] * n, TIME),
        }
    )


@pytest.fixture
def queries(tmp_path: Path, spark):
    """Run a query given as text on Spark, as the file ``query.sql``."""

    def run(text: str, inputs: dict, parameters: dict | None = None) -> pa.Table:
        (tmp_path / "query.sql").write_text(text)
        return run_sql("query", inputs, parameters, folder=tmp_path, spark=spark)

    return run


def test_relation_gives_committed_rows_with_their_day(tmp_path: Path, queries) -> None:
    lakehouse = Lakehouse(tmp_path / "a root's = [1] {x}")
    lakehouse.replace(CLICK, DAY, clicks(9, 9, 9))
    lakehouse.replace(CLICK, DAY, clicks(1, 2))
    lakehouse.replace(CLICK, NEXT_DAY, clicks(3))
    lakehouse._storage.write_parquet(f"click/ds={DAY}/stray.parquet", clicks(4))
    inputs = {"click": lakehouse.relation(CLICK, [DAY, NEXT_DAY])}
    rows = queries("select ds, item_id, event_time from click order by ds, item_id", inputs)
    assert rows.schema == pa.schema({"ds": pa.date32(), "item_id": pa.int64(), "event_time": TIME})
    assert rows["ds"].to_pylist() == [DAY, DAY, NEXT_DAY]
    assert rows["item_id"].to_pylist() == [1, 2, 3]
    rows = queries("select item_id from click where ds = $day order by 1", inputs, {"day": NEXT_DAY})
    assert rows["item_id"].to_pylist() == [3]


def test_relation_of_parts_has_their_column(tmp_path: Path, queries) -> None:
    lakehouse = Lakehouse(tmp_path)
    for part in ("increc", "0042", "true"):
        rows = pa.table({"name": ["w"], "content": [part.encode()]})
        lakehouse.replace(CHECKPOINT, DAY, rows, part=part)
    inputs = {"checkpoint": lakehouse.relation(CHECKPOINT, [DAY])}
    rows = queries("select method, content, ds from checkpoint order by 1", inputs)
    assert rows["method"].to_pylist() == ["0042", "increc", "true"]
    assert rows["content"].to_pylist() == [b"0042", b"increc", b"true"]


def test_relation_without_files_has_no_rows(tmp_path: Path, queries) -> None:
    inputs = {"history": Lakehouse(tmp_path).relation(USER_HISTORY, [])}
    rows = queries("select user_id, event_times, ds from history order by 1", inputs)
    assert rows.num_rows == 0
    assert rows.schema.field("event_times").type == pa.list_(TIME)


def test_parameters_are_values_and_never_text_of_the_query(queries) -> None:
    query = """
    select item_id, $name as name, $time as time, $day as day, $ratio * 2 as ratio, $big as big, $none as none
    from click where scenario != $name and event_time = $time order by item_id
    """
    name = "x' or '1' = '1"
    parameters = {"name": name, "time": TEN, "day": DAY, "ratio": 0.25, "big": 2**40, "none": None}
    (row,) = queries(query, {"click": clicks(1)}, parameters).to_pylist()
    assert row == {
        "item_id": 1,
        "name": name,
        "time": TEN,
        "day": DAY,
        "ratio": 0.5,
        "big": 2**40,
        "none": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select * from read_parquet('/etc/*.parquet')", "Permission Error|disabled by configuration"),
        ("select * from parquet.`/etc/hosts`", "Catalog Error"),
        ("select reflect('java.lang.System', 'getenv', 'HOME')", "Catalog Error.*reflect"),
        ("select java_method('java.lang.System', 'exit', 0)", "Catalog Error.*java_method"),
        ("select item_id from other", "Catalog Error.*other"),
    ],
)
def test_query_reaches_nothing_but_its_inputs(queries, text: str, message: str) -> None:
    queries("select item_id from other order by 1", {"other": clicks(5)})
    with pytest.raises(SqlError, match=message):
        queries(text, {"click": clicks(1)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("select item_id,\n  nope\nfrom click", 'line 2: Binder Error: .* column "nope" not found'),
        (
            "select levenshtein(scenario, 'x') as n from click",
            "the function levenshtein has no checked equal",
        ),
        ("select list(item_id) as ids from click", r"list\(\) needs an order by on Spark"),
        ("select list(item_id order by user_id desc, item_id) from click", r"must run one way"),
        ("select unnest([1]) as a, unnest([2, 3]) as b from click", "may unnest one list"),
        ("select date_diff('day', event_time, event_time) from click", "counts seconds on Spark, not DAY"),
        ("select item_id from click where item_id in $ids", "the parameter ids is a list"),
    ],
)
def test_what_has_no_equal_is_refused_and_named(queries, text: str, message: str) -> None:
    with pytest.raises(SqlError, match=message) as refused:
        queries(text, {"click": clicks(1)}, {"ids": [1]} if "$ids" in text else None)
    assert "\n" not in str(refused.value)


def test_failure_on_spark_names_the_query(queries) -> None:
    with pytest.raises(SqlError, match=r"query\.sql: .*(overflow|out of range)") as failed:
        queries("select item_id * item_id as square from click order by 1", {"click": clicks(2**62)})
    assert "\n" not in str(failed.value)


def test_data_file_that_is_gone_names_query_and_file(tmp_path: Path, queries) -> None:
    lakehouse = Lakehouse(tmp_path)
    lakehouse.replace(CLICK, DAY, clicks(1))
    relation = lakehouse.relation(CLICK, [DAY])
    Path(relation.files[0]).unlink()
    with pytest.raises(SqlError, match=rf"query\.sql.*{Path(relation.files[0]).name}"):
        queries("select item_id from click order by 1", {"click": relation})


def test_root_that_spark_cannot_read_is_told_in_one_line(queries) -> None:
    lakehouse = Lakehouse("memory://a/lakehouse")
    lakehouse.replace(CLICK, DAY, clicks(1))
    inputs = {"click": lakehouse.relation(CLICK, [DAY])}
    with pytest.raises(SqlError, match=r"query\.sql: .*memory") as failed:
        queries("select item_id from click order by 1", inputs)
    assert "\n" not in str(failed.value)
