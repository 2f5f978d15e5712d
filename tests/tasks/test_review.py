"""The page that a reviewer decides from."""

from pathlib import Path

import pyarrow as pa

from lakehouse import tables
from tasks.records import MethodRecord
from tasks.review import describe_release
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
