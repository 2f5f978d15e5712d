"""A day whose queries and Swing index run on Spark writes the partitions that one machine writes."""

from datetime import date, timedelta
from pathlib import Path

from lakehouse import tables
from lakehouse.store import Lakehouse
from tasks.histories import build_histories
from tasks.ingest import ingest_logs
from tasks.samples import construct_samples
from tasks.settings import Settings
from tasks.swing import rebuild_swing_index

FIRST = date(2026, 1, 1)
STEPS = (ingest_logs, build_histories, rebuild_swing_index, construct_samples)


def run_first_day(var: Path, engine: str) -> dict[str, str]:
    """Run the writing ones of steps 1-5 for the first day; give the digest of each partition."""
    world = {"n_users": 200, "n_items": 150, "n_days": 2, "n_clusters": 5, "first_day": FIRST}
    settings = Settings(
        var=var,
        engine=engine,
        source={"preset": "synthetic", "synthetic": world},
        methods={"base": {"variant": "TB-Online"}},
        channels={"swing": 5},
    )
    for step in STEPS:
        step(FIRST, settings)
    lakehouse = Lakehouse(settings.lakehouse_root)
    return {
        f"{table.name} {day}": lakehouse.require(table, day).digest
        for table in tables.TABLES.values()
        for day, _ in lakehouse.partitions(table)
    }


def test_day_on_spark_writes_the_same_partitions(tmp_path: Path, spark) -> None:
    expected = run_first_day(tmp_path / "duckdb", "duckdb")
    found = run_first_day(tmp_path / "spark", "spark")
    assert found == expected
    eve = FIRST - timedelta(days=1)
    assert {f"i2i_table {FIRST}", f"i2i_table {eve}", f"target_group {FIRST}"} <= set(expected)
