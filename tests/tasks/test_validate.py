import shutil
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lakehouse import tables
from lakehouse.sources import SourceConfig
from lakehouse.store import Lakehouse, MissingPartition
from tasks.checks import BadCheck, Check, read_checks
from tasks.ingest import ingest_logs
from tasks.spark_config import SparkConfig
from tasks.suites import (
    EXPOSURE,
    INITIAL_HISTORY,
    ITEM,
    RANKING_LOG,
    RETRIEVAL_LOG,
    SUITES,
    USER,
    Expectation,
    n_bad_ids,
    n_not_finite,
    n_values,
)
from tasks.validate import BadData, BrokenCheck, UnknownExpectation, ValidationReport, validate_data
from tasks.validation_config import ValidationConfig

FIRST = date(2022, 5, 1)
DAY = date(2022, 5, 2)
START = datetime(2022, 5, 1, 16)  # of DAY in Shanghai, as UTC
N_USERS, N_ITEMS, N_ROWS = 20, 30, 200
META = {"source_first_day": str(FIRST), "timezone": "Asia/Shanghai", "primary_scenario": "home"}


@dataclass(frozen=True)
class StateSettings:
    var: Path
    lakehouse_root: str
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    source: SourceConfig = field(default_factory=SourceConfig)
    max_quarantine_share: float = 0.05
    engine: str = "duckdb"
    spark: SparkConfig = field(default_factory=SparkConfig)


DAILY = ("exposure", "ranking_log", "retrieval_log", "item", "user")


def exposures(day: date = DAY, n_rows: int = N_ROWS) -> pa.Table:
    start = START + (day - DAY)
    numbers = range(n_rows)
    return pa.table(
        {
            "request_id": [n // 4 for n in numbers],
            "user_id": [n // 4 % N_USERS for n in numbers],
            "item_id": [n % N_ITEMS for n in numbers],
            "scenario": ["home" if n % 4 else "search" for n in numbers],
            "event_time": pa.array([start + timedelta(seconds=n) for n in numbers], tables.TIME),
            "position": pa.array([n % 4 for n in numbers], pa.int32()),
            "is_click": [n % 3 == 0 for n in numbers],
            "is_order": [n % 9 == 0 for n in numbers],
        },
        schema=tables.EXPOSURE.schema,
    )


def rankings(day: date = DAY) -> pa.Table:
    start = START + (day - DAY)
    return pa.table(
        {
            "request_id": [1, 2],
            "user_id": [1, 2],
            "scenario": ["search", "search"],
            "event_time": pa.array([start, start], tables.TIME),
            "item_ids": [[3, 1, 2], [5]],
            "category_ids": [[0, 0, 1], [1]],
            "scores": [[0.9, 0.5, 0.1], [1.0]],
        },
        schema=tables.RANKING_LOG.schema,
    )


def retrievals(day: date = DAY) -> pa.Table:
    start = START + (day - DAY)
    columns = [[1, None], [1, 2], ["home", "home"], pa.array([start, start], tables.TIME)]
    columns += [["swing", None], [[3, 1, 2], []]]
    return pa.table(columns, schema=tables.RETRIEVAL_LOG.schema)


def items() -> pa.Table:
    ids = range(N_ITEMS)
    return pa.table(
        {
            "item_id": ids,
            "category_id": ids,
            "author_id": ids,
            "brand_id": pa.nulls(N_ITEMS, pa.int64()),
            "price": pa.array([float(n) for n in ids], pa.float32()),
            "is_available": [n > 0 for n in ids],
        },
        schema=tables.ITEM_SNAPSHOT.schema,
    )


def users() -> pa.Table:
    profiles = [["age=20", "sex=f"], []] * (N_USERS // 2)
    return pa.table({"user_id": range(N_USERS), "profile": profiles}, schema=tables.USER_SNAPSHOT.schema)


def pasts() -> pa.Table:
    before = START - timedelta(days=1, seconds=1)
    return pa.table(
        {
            "user_id": [1, 2],
            "item_ids": [[1, 2], [3]],
            "last_event_time": pa.array([before, before], tables.TIME),
        },
        schema=tables.INITIAL_HISTORY.schema,
    )


def with_value(rows: pa.Table, column: str, row: int, value: object) -> pa.Table:
    """Give the rows with one value replaced."""
    values = rows[column].to_pylist()
    values[row] = value
    field_ = rows.schema.field(column)
    return rows.set_column(rows.schema.get_field_index(column), field_, pa.array(values, field_.type))


@pytest.fixture
def settings(tmp_path: Path) -> StateSettings:
    """Two good days: the source's first day and the one after it."""
    settings = StateSettings(tmp_path / "var", str(tmp_path / "lakehouse"))
    lakehouse = Lakehouse(settings.lakehouse_root)
    lakehouse.replace(tables.INITIAL_HISTORY, FIRST, pasts())
    for day in (FIRST, DAY):
        lakehouse.replace(tables.EXPOSURE, day, exposures(day), meta=META)
        lakehouse.replace(tables.RANKING_LOG, day, rankings(day))
        lakehouse.replace(tables.RETRIEVAL_LOG, day, retrievals(day))
        lakehouse.replace(tables.ITEM_SNAPSHOT, day, items())
        lakehouse.replace(tables.USER_SNAPSHOT, day, users())
    return settings


def put(settings: StateSettings, table: tables.Table, rows: pa.Table, day: date = DAY) -> None:
    meta = META if table is tables.EXPOSURE else None
    Lakehouse(settings.lakehouse_root).replace(table, day, rows, meta=meta)


def warnings_of(report: ValidationReport) -> set[str]:
    failed = (failure for table in report.tables for failure in table.failed_warning)
    return {failure.split(":")[0] for failure in failed}


def test_good_day_passes_and_keeps_its_data_docs(settings: StateSettings) -> None:
    report = validate_data(DAY, settings)

    assert [table.table for table in report.tables] == [*DAILY, "checks"]
    assert not any(table.failed_critical or table.failed_warning for table in report.tables)
    assert report.skipped == ()
    assert {table.table: table.n_expectations for table in report.tables}["checks"] == len(read_checks())
    for table in report.tables:
        page = Path(table.docs.removeprefix("file://"))
        assert page.is_relative_to(settings.var / "data_docs" / str(DAY))
        assert table.table in page.read_text()
    assert "exposure.volume_low" in Path(report.tables[0].docs.removeprefix("file://")).read_text()
    assert Path(report.docs.removeprefix("file://")).name == "index.html"


def test_first_day_has_a_past_and_nothing_to_compare_with(settings: StateSettings) -> None:
    report = validate_data(FIRST, settings)

    assert "initial_history" in [table.table for table in report.tables]
    no_earlier_day = [f"{table}.volume_{end}" for table in DAILY for end in ("low", "high")]
    assert [line.split(":")[0] for line in report.skipped] == [*no_earlier_day, "checks.scenario_drift"]


def test_validating_again_gives_the_same_report_and_keeps_other_days(settings: StateSettings) -> None:
    first, report, again = (
        validate_data(day, settings, suites=[EXPOSURE], checks=[]) for day in (FIRST, DAY, DAY)
    )

    assert again == report
    assert sorted(p.name for p in (settings.var / "data_docs").iterdir()) == [str(FIRST), str(DAY)]
    assert Path(first.docs.removeprefix("file://")).is_file()


def constant(rows: pa.Table, column: str, value: object) -> pa.Table:
    """Give the rows with one value in the whole column."""
    field_ = rows.schema.field(column)
    values = pa.array([value] * rows.num_rows, field_.type)
    return rows.set_column(rows.schema.get_field_index(column), field_, values)


def bad_rankings() -> pa.Table:
    """Give one ranking per kind of bad list."""
    rows = rankings()
    bad = [
        with_value(rows, "item_ids", 1, []),
        with_value(rows, "category_ids", 1, [1, 2]),
        with_value(rows, "scores", 1, [float("nan")]),
        with_value(rows, "item_ids", 1, [-1]),
        with_value(rows, "user_id", 1, -1),
    ]
    table = pa.concat_tables([rows.slice(0, 1), *(each.slice(1) for each in bad)])
    ids = pa.array(range(table.num_rows), pa.int64())
    return table.set_column(0, rows.schema.field("request_id"), ids)


CRITICAL = {
    "bad values in exposures": (
        EXPOSURE,
        with_value(
            with_value(
                with_value(with_value(exposures(), "user_id", 7, -1), "item_id", 8, -1), "scenario", 9, ""
            ),
            "event_time",
            10,
            START + timedelta(days=1),
        ),
        {"user_id", "item_id", "scenario", "event_time"},
    ),
    "an event too early": (
        EXPOSURE,
        with_value(exposures(), "event_time", 0, START - timedelta(hours=1, microseconds=1)),
        {"event_time"},
    ),
    "an empty day": (
        EXPOSURE,
        exposures(n_rows=0),
        {"not_empty", "volume_low", "clicks", "primary_scenario"},
    ),
    "a day of few rows": (EXPOSURE, exposures(n_rows=50), {"volume_low"}),
    "a day without clicks or home feed": (
        EXPOSURE,
        constant(constant(exposures(), "is_click", False), "scenario", "search"),
        {"clicks", "primary_scenario"},
    ),
    "bad lists in rankings": (
        RANKING_LOG,
        bad_rankings(),
        {"n_items", "n_categories", "n_scores", "item_ids", "scores", "user_id"},
    ),
    "bad lists in retrievals": (
        RETRIEVAL_LOG,
        with_value(with_value(retrievals(), "item_ids", 0, [3, -1]), "user_id", 1, -1),
        {"item_ids", "user_id"},
    ),
    "a shortened item snapshot": (ITEM, items().slice(0, 5), {"volume_low"}),
    "no item that may be recommended": (ITEM, constant(items(), "is_available", False), {"is_available"}),
    "a padding user": (USER, with_value(users(), "user_id", 7, -1), {"user_id"}),
}


@pytest.mark.parametrize("kind", CRITICAL)
def test_bad_data_stops_the_day_and_is_told_in_one_line(kind: str, settings: StateSettings) -> None:
    suite, rows, expected = CRITICAL[kind]
    put(settings, suite.table, rows)

    with pytest.raises(BadData) as raised:
        validate_data(DAY, settings, suites=[suite], checks=[])

    told, _, docs = str(raised.value).removeprefix(f"{DAY}: bad data: ").partition("; see file://")
    assert "\n" not in told
    assert {each.split(": ")[0] for each in told.split("; ")} == {f"{suite.table.name}.{n}" for n in expected}
    assert Path(docs) == settings.var / "data_docs" / str(DAY) / "index.html"
    assert Path(docs).is_file()


def test_bad_data_shows_what_was_seen(settings: StateSettings) -> None:
    put(settings, tables.EXPOSURE, with_value(exposures(n_rows=50), "user_id", 7, -1))

    with pytest.raises(BadData) as raised:
        validate_data(DAY, settings, suites=[EXPOSURE], checks=[])

    assert "exposure.volume_low: observed 50" in str(raised.value)
    assert "exposure.user_id: 1 of 50 rows, e.g. -1" in str(raised.value)


def test_warnings_are_reported_and_the_day_goes_on(settings: StateSettings) -> None:
    rows = with_value(exposures(n_rows=N_ROWS * 3 + 1), "position", 7, -1)
    put(settings, tables.EXPOSURE, with_value(rows, "is_click", 0, False))
    put(settings, tables.ITEM_SNAPSHOT, with_value(items(), "price", 7, -1.0))
    put(settings, tables.USER_SNAPSHOT, users().slice(1))
    put(settings, tables.RANKING_LOG, rankings().slice(0, 0))
    config = ValidationConfig(severities={"ranking_log.volume_low": "warning"})

    report = validate_data(DAY, replace(settings, validation=config))

    assert warnings_of(report) == {
        "exposure.volume_high",
        "exposure.position",
        "ranking_log.not_empty",
        "ranking_log.volume_low",
        "item.price",
        "checks.exposed_user_missing",
        "checks.order_without_click",
    }
    told = "checks.order_without_click: 1 rows, e.g. user_id 0, item_id 0, event_time 2022-05-01 16:00:00"
    assert told in report.tables[-1].failed_warning


def test_real_days_pass(kuairand_pure: Path, tmp_path: Path) -> None:
    source = SourceConfig(preset="kuairand", data=str(kuairand_pure))
    settings = StateSettings(tmp_path / "var", str(tmp_path / "lakehouse"), source=source)
    first = date(2022, 4, 25)
    for day in (first, first + timedelta(days=1)):
        ingest_logs(day, settings)
        report = validate_data(day, settings)

        assert warnings_of(report) == set()
    assert [table.table for table in report.tables] == ["exposure", "item", "user", "checks"]


def test_event_up_to_one_hour_before_its_day_is_good(settings: StateSettings) -> None:
    put(settings, tables.EXPOSURE, with_value(exposures(), "event_time", 0, START - timedelta(hours=1)))

    assert warnings_of(validate_data(DAY, settings, suites=[EXPOSURE], checks=[])) == set()


def test_past_that_reaches_into_the_first_day_is_a_leak(settings: StateSettings) -> None:
    late = with_value(pasts(), "last_event_time", 0, START - timedelta(days=1))
    put(settings, tables.INITIAL_HISTORY, late, FIRST)

    with pytest.raises(BadData, match=r"initial_history\.last_event_time"):
        validate_data(FIRST, settings, suites=[INITIAL_HISTORY], checks=[])


def test_bounds_and_severities_are_settings(settings: StateSettings) -> None:
    put(settings, tables.EXPOSURE, exposures(n_rows=N_ROWS * 2))
    severe = ValidationConfig(volume_high=1.5, severities={"exposure.volume_high": "critical"})

    with pytest.raises(BadData, match=r"exposure\.volume_high: observed 400"):
        validate_data(DAY, replace(settings, validation=severe), suites=[EXPOSURE], checks=[])


def test_severity_of_an_unknown_expectation_is_refused(settings: StateSettings) -> None:
    config = ValidationConfig(severities={"exposure.volum": "warning"})

    with pytest.raises(UnknownExpectation, match=r"exposure\.volum is no expectation; known: "):
        validate_data(DAY, replace(settings, validation=config))


def test_volume_is_compared_with_the_median_of_the_trailing_days_that_are_there(
    settings: StateSettings,
) -> None:
    days = [DAY + timedelta(days=n) for n in (2, 4)]
    for day in days:
        put(settings, tables.EXPOSURE, exposures(day, 1000), day)
    week, two_days = ValidationConfig(), ValidationConfig(trailing_days=2)

    def warnings(config: ValidationConfig) -> set[str]:
        configured = replace(settings, validation=config)
        return warnings_of(validate_data(days[-1], configured, suites=[EXPOSURE], checks=[]))

    assert warnings(week) == {"exposure.volume_high"}  # 1000 against the median of 200, 200, 1000
    assert warnings(two_days) == set()


def test_day_that_was_not_ingested_is_named(settings: StateSettings) -> None:
    with pytest.raises(MissingPartition, match="exposure for 2022-05-09"):
        validate_data(date(2022, 5, 9), settings)


def test_optional_table_must_be_there_once_the_source_had_it(settings: StateSettings) -> None:
    of_day = Path(settings.lakehouse_root) / "ranking_log" / f"ds={DAY}"
    shutil.rmtree(of_day)
    with pytest.raises(MissingPartition, match="ranking_log for 2022-05-02"):
        validate_data(DAY, settings, checks=[])

    shutil.rmtree(of_day.parent)
    report = validate_data(DAY, settings)
    assert "ranking_log" not in [table.table for table in report.tables]
    assert {line.split(":")[0] for line in report.skipped} == {
        "ranking_log",
        "checks.ranked_item_missing",
        "checks.ranking_out_of_order",
        "checks.ranking_repeats_item",
    }


def test_expectation_that_crashes_is_a_broken_check_and_no_bad_data(settings: StateSettings) -> None:
    crashing = Expectation(
        "exposure.weight",
        "warning",
        "weights",
        "ExpectColumnMaxToBeBetween",
        {"column": "weight", "max_value": 1},
    )
    suite = replace(EXPOSURE, expectations=(*EXPOSURE.expectations, crashing))

    with pytest.raises(BrokenCheck, match=r"the check broke: exposure\.weight: .*weight"):
        validate_data(DAY, settings, suites=[suite], checks=[])


def test_check_whose_sql_does_not_run_is_a_broken_check(settings: StateSettings, tmp_path: Path) -> None:
    put(settings, tables.EXPOSURE, with_value(exposures(), "user_id", 7, -1))
    path = tmp_path / "checks" / "malformed.sql"
    path.parent.mkdir()
    path.write_text("select weight frm exposure")
    check = Check(path, "no weight", "exposure", "warning", ("exposure",), ("day",))

    with pytest.raises(BrokenCheck, match=r"the check broke: checks\.malformed") as raised:
        validate_data(DAY, settings, suites=[EXPOSURE], checks=[check])

    assert "malformed.sql" in str(raised.value)
    assert "besides, bad data: exposure.user_id: 1 of 200 rows, e.g. -1" in str(raised.value)
    assert "malformed" in "".join(
        page.read_text() for page in (settings.var / "data_docs" / str(DAY)).rglob("*checks*.html")
    )


def test_check_without_its_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bare.sql").write_text("select 1")

    with pytest.raises(BadCheck, match=r"bare\.sql: the header needs a line '-- meaning: \.\.\.'"):
        read_checks(tmp_path)


def test_every_expectation_has_a_name_of_its_own_and_says_what_it_means() -> None:
    expectations = [expectation for suite in SUITES for expectation in suite.expectations]
    names = [expectation.name for expectation in expectations]

    assert len(set(names)) == len(names)
    assert all(expectation.meaning for expectation in expectations)
    assert {suite.table.name for suite in SUITES} <= set(tables.TABLES)


def test_lists_become_one_number_per_row_also_in_a_slice() -> None:
    ids = pa.array([[9, 9], [], [1, -1, None], [2]], tables.IDS).slice(1)
    scores = pa.array([[1.0], [float("nan"), None, 1.0, float("inf")]], pa.list_(pa.float32()))

    assert n_values(ids).to_pylist() == [0, 3, 1]
    assert n_bad_ids(ids).to_pylist() == [0, 2, 0]
    assert n_not_finite(scores).to_pylist() == [0, 3]
    assert pc.sum(n_bad_ids(ids.slice(0, 0))).as_py() is None
