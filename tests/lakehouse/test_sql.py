"""A query reads what the store has committed, and nothing else."""

from datetime import date, datetime
from pathlib import Path

import fsspec
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
def queries(tmp_path: Path):
    """Run a query given as text, as the file ``test/query.sql``."""

    def run(text: str, inputs: dict, parameters: dict | None = None, **options: object) -> pa.Table:
        (tmp_path / "test").mkdir(exist_ok=True)
        (tmp_path / "test" / "query.sql").write_text(text)
        return run_sql("test/query", inputs, parameters, folder=tmp_path, **options)

    return run


def test_relation_gives_committed_rows_with_their_day(root: str, queries) -> None:
    lakehouse = Lakehouse(root)
    lakehouse.replace(CLICK, DAY, clicks(9, 9, 9))
    lakehouse.replace(CLICK, DAY, clicks(1, 2))
    lakehouse.replace(CLICK, NEXT_DAY, clicks(3))
    lakehouse._storage.write_parquet(f"click/ds={DAY}/stray.parquet", clicks(4))
    inputs = {"click": lakehouse.relation(CLICK, [DAY, NEXT_DAY])}
    rows = queries("select ds, item_id from click order by all", inputs)
    assert rows.schema == pa.schema({"ds": pa.date32(), "item_id": pa.int64()})
    assert rows.to_pylist() == [
        {"ds": DAY, "item_id": 1},
        {"ds": DAY, "item_id": 2},
        {"ds": NEXT_DAY, "item_id": 3},
    ]
    rows = queries("select item_id from click where ds = $day order by 1", inputs, {"day": NEXT_DAY})
    assert rows["item_id"].to_pylist() == [3]


def test_nested_columns_and_times_come_through_and_can_be_stored_again(root: str, queries) -> None:
    lakehouse = Lakehouse(root)
    histories = pa.table(
        {
            "user_id": [1, 2],
            "item_ids": [[5, 6], []],
            "event_times": pa.array([[TEN, TEN], []], pa.list_(TIME)),
            "scenarios": pa.array([["home", ""], []], pa.list_(pa.string())),
        }
    )
    digest = lakehouse.replace(USER_HISTORY, DAY, histories).digest
    inputs = {"history": lakehouse.relation(USER_HISTORY, [DAY])}
    rows = queries("select * exclude (ds) from history order by user_id desc", inputs)
    assert rows.schema.field("event_times").type.value_type == TIME
    assert lakehouse.replace(USER_HISTORY, NEXT_DAY, rows).digest == digest


def test_relation_of_parts_has_their_column(root: str, queries) -> None:
    lakehouse = Lakehouse(root)
    for part in ("increc", "0042", "true"):
        rows = pa.table({"name": ["w"], "content": [part.encode()]})
        lakehouse.replace(CHECKPOINT, DAY, rows, part=part)
    inputs = {"checkpoint": lakehouse.relation(CHECKPOINT, [DAY])}
    rows = queries("select method, decode(content) as content, ds from checkpoint order by 1", inputs)
    assert rows["method"].to_pylist() == rows["content"].to_pylist() == ["0042", "increc", "true"]


def test_relations_without_rows_keep_columns_and_types(root: str, queries) -> None:
    lakehouse = Lakehouse(root)
    lakehouse.replace(USER_HISTORY, DAY, USER_HISTORY.schema.empty_table())
    query = "select *, event_times[1] as first_time, ds + 1 as next_day from history order by user_id"
    of_empty_day, of_no_day = (
        queries(query, {"history": lakehouse.relation(USER_HISTORY, days)}) for days in ([DAY], [])
    )
    assert of_empty_day.num_rows == of_no_day.num_rows == 0
    assert of_empty_day.schema == of_no_day.schema
    assert of_no_day.schema.field("event_times").type == pa.list_(TIME)
    assert of_no_day.schema.field("ds").type == pa.date32()
    checkpoint = queries("from checkpoint", {"checkpoint": lakehouse.relation(CHECKPOINT, [])})
    assert checkpoint.column_names == ["name", "content", "method", "ds"]


def test_tables_and_relations_of_two_roots_are_joined(root: str, tmp_path: Path, queries) -> None:
    one, other = Lakehouse(root), Lakehouse(tmp_path / "other root's = [1]")
    one.replace(CLICK, DAY, clicks(1, 2))
    other.replace(CLICK, DAY, clicks(2, 3))
    inputs = {
        "one": one.relation(CLICK, [DAY]),
        "other": other.relation(CLICK, [DAY]),
        "price": pa.table({"item_id": [1, 2, 3], "price": [0.5, 1.5, 2.5]}),
    }
    query = (
        "select item_id, price from one semi join other using (item_id) join price using (item_id) order by 1"
    )
    assert queries(query, inputs).to_pylist() == [{"item_id": 2, "price": 1.5}]


def test_parameters_of_every_kind_are_bound(queries) -> None:
    query = """
    select item_id, $day + 1 as next_day, $time as time, $name as name, $ratio * 2 as ratio, $big as big
    from click where item_id in $item_ids and not item_id = any($none) and scenario = $name order by all
    """
    parameters = {
        "day": DAY,
        "time": TEN,
        "name": "home",
        "ratio": 0.25,
        "big": 2**40,
        "item_ids": [2, 3, 7],
        "none": [],
    }
    (row,) = queries(query, {"click": clicks(1, 2)}, parameters).to_pylist()
    assert row == {
        "item_id": 2,
        "next_day": NEXT_DAY,
        "time": TEN,
        "name": "home",
        "ratio": 0.5,
        "big": 2**40,
    }


def test_times_with_a_zone_are_told_in_utc(queries) -> None:
    query = (
        "select hour(timestamptz '2022-05-01 00:00:00+08') as hour, ($time at time zone $zone)::text as utc"
    )
    rows = queries(query, {}, {"time": TEN, "zone": "Asia/Shanghai"})
    assert rows.to_pylist() == [{"hour": 16, "utc": "2022-05-01 02:00:00+00"}]


@pytest.mark.parametrize(
    ("text", "parameters", "message"),
    [
        ("select item_id,\n  nope\nfrom click", None, 'line 2: Binder Error: .* column "nope" not found'),
        ("-- grain: item\nselect item_id fro click", None, "line 2: Parser Error: syntax error"),
        ("select * from clicks", None, "line 1: Catalog Error: Table with name clicks does not exist"),
        ("select 1 / $n", None, "Values were not provided for the following parameters: n"),
        ("select 1", {"n": 1}, "[Pp]arameter"),
        ("select scenario::int from click", None, "Conversion Error: Could not convert string 'home'"),
        ("select 1; select 2", None, "the file must hold one SELECT and nothing else"),
        ("-- nothing", None, "the file must hold one SELECT and nothing else"),
        ("drop view click", None, "the file must hold one SELECT and nothing else"),
        ("copy click to 'x.csv'", None, "the file must hold one SELECT and nothing else"),
    ],
)
def test_broken_query_is_named_with_its_line(
    queries, tmp_path: Path, text: str, parameters: dict | None, message: str
) -> None:
    with pytest.raises(SqlError, match=message) as broken:
        queries(text, {"click": clicks(1)}, parameters)
    assert str(broken.value).startswith(str(tmp_path / "test" / "query.sql"))
    assert "\n" not in str(broken.value)


def test_missing_query_is_named(tmp_path: Path) -> None:
    with pytest.raises(SqlError, match=f"no query marts/nope: there is no file {tmp_path}/marts/nope.sql"):
        run_sql("marts/nope", {}, folder=tmp_path)


def test_query_reaches_no_file_but_its_inputs(root: str, queries) -> None:
    lakehouse = Lakehouse(root)
    lakehouse.replace(CLICK, DAY, clicks(1))
    lakehouse.replace(CLICK, NEXT_DAY, clicks(2))
    inputs = {"click": lakehouse.relation(CLICK, [DAY])}
    folder = inputs["click"].files[0].rpartition("/ds=")[0]
    (other,) = lakehouse.relation(CLICK, [NEXT_DAY]).files
    for path in (f"{folder}/*/*.parquet", other, "https://example.invalid/x.parquet"):
        with pytest.raises(SqlError, match=r"Permission Error|disabled by configuration"):
            queries(f"select * from read_parquet('{path}')", inputs)


def test_data_file_that_is_gone_names_query_and_file(root: str, queries) -> None:
    lakehouse = Lakehouse(root)
    lakehouse.replace(CLICK, DAY, clicks(1))
    relation = lakehouse.relation(CLICK, [DAY])
    filesystem, path = fsspec.url_to_fs(relation.files[0])
    filesystem.rm(path)
    with pytest.raises(SqlError, match=rf"query.sql.*{Path(path).name}"):
        queries("select * from click", {"click": relation})


def test_more_rows_than_memory_go_through_temporary_files_in_the_same_order(tmp_path: Path, queries) -> None:
    lakehouse = Lakehouse(tmp_path / "lakehouse")
    n = 400_000
    rows = {"user_id": range(n), "item_id": [i * 7919 % n for i in range(n)], "scenario": ["home"] * n}
    lakehouse.replace(CLICK, DAY, pa.table(rows | {"event_time": pa.array([TEN] * n, TIME)}))
    inputs = {"click": lakehouse.relation(CLICK, [DAY])}
    query = "select item_id, repeat('x', 100) || item_id as name from click order by name"
    free = queries(query, inputs)
    assert queries(query, inputs, memory_limit="40MB", threads=1) == free
    with pytest.raises(SqlError, match=r"query\.sql: .*Memory must have a number"):
        queries(query, inputs, memory_limit="lots")
