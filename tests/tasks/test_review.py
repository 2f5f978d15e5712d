"""The page that a reviewer decides from."""

from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse import tables
from tasks.records import MethodRecord
from tasks.review import describe_day, describe_release
from tests.tasks.small_releases import metric_rows, small_contents, small_record, write_small


def test_page_of_a_version_fits_into_a_registry_on_postgresql(tmp_path: Path) -> None:
    many = [
        {
            "gate": f"gate_{n}",
            "status": "failed" if n == 3 else "passed",
            "figure": 1.0,
            "floor": 0.5,
            "detail": "x" * 40,
        }
        for n in range(12)
    ]
    methods = tuple(MethodRecord(f"method_{n}", {}, metric_rows(f"method_{n}", 0.3)) for n in range(60))
    record = small_record(gates=pa.Table.from_pylist(many, tables.GATE.schema), methods=methods)
    manifest = write_small(tmp_path / "release", small_contents())
    page = describe_release(record, manifest, "#/run")
    assert len(page) <= 5_000
    assert "gate_3" in page
    assert "### Where it comes from" not in page
    assert "The rest is on the [page of the run](#/run)" in page
    assert f"`{manifest.digest}`" in page


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("/state/data_docs/index.html", "| Data docs | `/state/data_docs/index.html` |"),
        (
            "https://docs.example.com/3",
            "| Data docs | [https://docs.example.com/3](https://docs.example.com/3) |",
        ),
        (None, "| Data docs | none |"),
    ],
)
def test_only_what_a_browser_can_open_is_a_link(place: str | None, shown: str) -> None:
    assert shown in describe_day(small_record(data_docs=place))


def test_run_of_a_backfill_is_shown_with_its_day() -> None:
    page = describe_day(small_record(dag_run_id="backfill__2026-01-01T00:00:00+00:00"))
    assert "| DAG run | `backfill__2026-01-01T00:00:00+00:00` for 2022-05-03 |" in page


def test_an_interval_of_too_few_users_is_shown_as_undefined() -> None:
    rows = metric_rows("merged", 0.3).to_pylist()
    rows = [row | {"metric": "relative_to_champion", "low": None, "high": None} for row in rows]
    method = MethodRecord("merged", {}, pa.Table.from_pylist(rows, metric_rows("merged", 0.3).schema))
    page = describe_day(small_record(methods=(method,)))
    assert "| +30.00% | - | - |" in page
