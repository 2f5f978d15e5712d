"""Days and windows."""

from datetime import date, datetime

import pyarrow as pa
import pytest

from lakehouse.store import Lakehouse, MissingPartition
from lakehouse.tables import EXPOSURE
from tasks.days import day_range, ingested, start_of, window

FIRST = date(2022, 4, 25)


def test_a_window_ends_on_its_last_day():
    assert window(date(2022, 5, 2), 3, FIRST) == [date(2022, 4, 30), date(2022, 5, 1), date(2022, 5, 2)]


def test_a_window_starts_at_the_first_day_of_the_source():
    assert window(date(2022, 4, 26), 14, FIRST) == [FIRST, date(2022, 4, 26)]
    assert window(date(2022, 4, 24), 14, FIRST) == []


def test_a_range_backwards_is_empty():
    assert day_range(date(2022, 4, 26), FIRST) == []


def test_a_day_starts_at_midnight_of_the_zone_of_the_source():
    assert start_of(date(2022, 5, 1), "Asia/Shanghai") == datetime(2022, 4, 30, 16)
    assert start_of(date(2022, 5, 1), "UTC") == datetime(2022, 5, 1)


def test_the_eve_of_the_source_has_the_facts_of_its_first_day(tmp_path):
    lakehouse = Lakehouse(tmp_path)
    no_rows = pa.Table.from_pylist([], EXPOSURE.schema)
    lakehouse.replace(EXPOSURE, FIRST, no_rows, meta={"source_first_day": FIRST.isoformat()})
    assert ingested(lakehouse, date(2022, 4, 24)).day == FIRST
    for day in (date(2022, 4, 23), date(2022, 4, 26)):
        with pytest.raises(MissingPartition, match=str(day)):
            ingested(lakehouse, day)
