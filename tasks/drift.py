"""
Has what comes in, or what was learned, moved? Figures beside the gates, for the reviewer.

Inputs are compared with the days before in the window: rows and click rates with the median day, the shares
of scenarios, hours and item features with those days together, user profiles with the day before.
Embeddings are compared with the champion's by the nearest neighbours of the items that both have.

Rows of ``metric``, step ``drift`` (``<name>_before`` is what the figure is compared with):

    input    rows, rows_before               cohort table=<table>
    input    click_rate, click_rate_before   all and scenario=<scenario>
    input    psi                             cohort <feature>, user <profile feature>
    input    share, share_before             cohort <feature>=<value>: every scenario, else what moved most
    <tower>  neighbour_overlap (k = 10), common_items, norm, norm_before
"""

import statistics
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lakehouse import tables
from lakehouse.releases import Release, ReleaseCorrupt, TowerContents, open_release
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from models.drift import Distribution, distribution, mean_norm, neighbour_overlap, population_stability_index
from tasks.days import ONE_DAY, ingested, source_first_day, window
from tasks.records import ALL, COMPARED, ChampionStatus
from tasks.settings import Settings
from tasks.spark import spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

STEP = "drift"
INPUT = "input"
UNKNOWN = "unknown"
BEFORE_DAYS = 7
NEIGHBOURS, SAMPLED_ITEMS = 10, 1000
MOST_MOVED = 3
COUNTED = (tables.EXPOSURE, tables.CLICK, tables.ITEM_SNAPSHOT, tables.USER_SNAPSHOT, tables.INCREC_SAMPLE)

Counts = dict[str, int]


def measure_drift(
    day: date, towers: Mapping[str, TowerContents], champion: ChampionStatus, settings: Settings
) -> None:
    """
    Replace ``metric/ds=<day>/step=drift``; its meta tells why embeddings are not compared, if so.

    Nothing here fails a day: days before that are not there any more are left out, and so is a champion
    whose artifacts are gone.

    Raises:
        MissingPartition: the day was not ingested.
        TrackingUnavailable: the champion has to be fetched, and MLflow does not answer.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    first_day = source_first_day(ingested(lakehouse, day))
    n_days = min(BEFORE_DAYS, settings.window_days)
    counted = (*COUNTED, *([tables.PI2I_SAMPLE] if settings.pi2i else []))
    before = [
        earlier
        for earlier in window(day - ONE_DAY, n_days, first_day)
        if all(lakehouse.commit(table, earlier) for table in counted)
    ]
    spark = spark_session(settings)
    rows = _row_counts(lakehouse, day, before, counted) + _input_shares(lakehouse, day, before, spark)
    rows += _profile_shares(lakehouse, day, before[-1:], spark)
    release, reason = _champion_release(champion, settings)
    if release:
        rows += [row for name, tower in towers.items() for row in _embeddings(name, tower, release)]
    table = pa.Table.from_pylist(rows, tables.METRIC.schema)
    meta = {"champion": reason or "", "days_before": ", ".join(map(str, before))}
    lakehouse.replace(tables.METRIC, day, table, part=STEP, meta=meta)


def _row_counts(
    lakehouse: Lakehouse, day: date, before: list[date], counted: Iterable[tables.Table]
) -> list[dict]:
    rows = []
    for table in counted:
        cohort = f"table={table.name}"
        now = lakehouse.require(table, day).n_rows
        rows.append(_row(INPUT, "rows", cohort, now, now))
        if before:
            median = statistics.median(lakehouse.require(table, earlier).n_rows for earlier in before)
            rows.append(_row(INPUT, "rows_before", cohort, median, len(before)))
    return rows


def _input_shares(
    lakehouse: Lakehouse, day: date, before: list[date], spark: "SparkSession | None"
) -> list[dict]:
    days = [*before, day]
    counted = run_sql(
        "marts/input_share",
        {
            "exposure": lakehouse.relation(tables.EXPOSURE, days),
            "item": lakehouse.relation(tables.ITEM_SNAPSHOT, days),
        },
        spark=spark,
    ).to_pylist()
    rows = _click_rates([row for row in counted if row["feature"] == "scenario"], day)
    for feature, (now, earlier) in _by_feature(counted, day).items():
        found = distribution(now, earlier)
        rows += _feature_rows(feature, found, len(found.values) if feature == "scenario" else MOST_MOVED)
    return rows


def _profile_shares(
    lakehouse: Lakehouse, day: date, before: list[date], spark: "SparkSession | None"
) -> list[dict]:
    days = [*before, day]
    counted = run_sql(
        "marts/profile_share",
        {
            "exposure": lakehouse.relation(tables.EXPOSURE, days),
            "user": lakehouse.relation(tables.USER_SNAPSHOT, days),
        },
        spark=spark,
    ).to_pylist()
    return [
        row
        for feature, (now, earlier) in _by_feature(counted, day).items()
        for row in _feature_rows(f"user {feature}", distribution(now, earlier), MOST_MOVED)
    ]


def _by_feature(counted: list[dict], day: date) -> dict[str, tuple[Counts, Counts]]:
    """Give rows per value, now and before, of every feature that is known anywhere."""
    features: dict[str, tuple[Counts, Counts]] = {}
    for row in counted:
        counts = features.setdefault(row["feature"], ({}, {}))[row["ds"] != day]
        value = UNKNOWN if row["value"] is None else row["value"]
        counts[value] = counts.get(value, 0) + row["n_rows"]
    return {feature: counts for feature, counts in features.items() if {*counts[0], *counts[1]} - {UNKNOWN}}


def _feature_rows(feature: str, found: Distribution, n_shown: int) -> list[dict]:
    """Give the feature's PSI and the shares of the values that moved most."""
    n_rows = int(found.now.sum())
    now, before = found.shares
    psi = population_stability_index(found.now, found.before)
    moved = np.argsort(-np.abs(np.nan_to_num(now - before)), kind="stable")[:n_shown]
    rows = [_row(INPUT, "psi", feature, psi, n_rows)]
    for value in sorted(moved.tolist()):
        cohort = f"{feature}={found.values[value]}"
        rows.append(_row(INPUT, "share", cohort, now[value], n_rows))
        rows.append(_row(INPUT, "share_before", cohort, before[value], int(found.before.sum())))
    return rows


def _click_rates(counted: list[dict], day: date) -> list[dict]:
    """Give clicks / exposures of the day and of the median day before, overall and per scenario."""
    rates: dict[str, dict[date, tuple[int, int]]] = {}
    for row in counted:
        for cohort in (ALL, f"scenario={row['value']}"):
            clicks, shown = rates.setdefault(cohort, {}).get(row["ds"], (0, 0))
            rates[cohort][row["ds"]] = (clicks + row["n_clicks"], shown + row["n_rows"])
    rows = []
    for cohort, by_day in rates.items():
        clicks, shown = by_day.pop(day, (0, 0))
        rows.append(_row(INPUT, "click_rate", cohort, clicks / shown if shown else None, shown))
        if by_day:
            median = statistics.median(clicks / shown for clicks, shown in by_day.values())
            rows.append(_row(INPUT, "click_rate_before", cohort, median, len(by_day)))
    return rows


def _champion_release(champion: ChampionStatus, settings: Settings) -> tuple[Release | None, str | None]:
    """Open the champion that the day was measured against; else tell why not."""
    if champion.status != COMPARED:
        return None, champion.reason or "there is no champion yet"
    try:
        return open_release(_local_copy(champion, settings)), None
    except (ReleaseCorrupt, LookupError) as error:
        return None, f"the champion cannot be read: {error}"


def _local_copy(champion: ChampionStatus, settings: Settings) -> Path:
    """Give the copy that the evaluation verified; another machine fetches its own."""
    folder = settings.local_root / str(champion.release_digest)
    if folder.is_dir():
        return folder
    from tasks import tracking

    return tracking.download_release(champion.version, settings.local_root, settings)


def _embeddings(name: str, tower: TowerContents, champion: Release) -> Iterable[dict]:
    if name not in champion.towers:
        return
    theirs = champion.channel(name)
    common, ours_at, theirs_at = np.intersect1d(tower.item_ids, theirs.item_ids, return_indices=True)
    vectors, others = tower.item_embeddings[ours_at], np.asarray(theirs.item_embeddings)[theirs_at]
    overlap = neighbour_overlap(vectors, others, k=NEIGHBOURS, n_sample=SAMPLED_ITEMS)
    yield _row(name, "common_items", ALL, len(common), len(tower.item_ids))
    yield _row(name, "neighbour_overlap", ALL, overlap, min(SAMPLED_ITEMS, len(common)), k=NEIGHBOURS)
    yield _row(name, "norm", ALL, mean_norm(vectors), len(common))
    yield _row(name, "norm_before", ALL, mean_norm(others), len(common))


def _row(method: str, metric: str, cohort: str, value: float | None, n: int, k: int = 0) -> dict:
    """Make a row of ``metric``; its ``n_targets`` says of how many it is."""
    is_defined = value is not None and np.isfinite(value)
    return {
        "method": method,
        "metric": metric,
        "k": k,
        "cohort": cohort,
        "value": float(value) if is_defined else None,
        "low": None,
        "high": None,
        "n_users": 0,
        "n_targets": int(n),
    }
