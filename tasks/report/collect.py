"""Where do the facts of the page come from? The day's partitions, and what MLflow keeps of the champion."""

from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.store import Lakehouse
from tasks import tracking
from tasks.records import ALL, NO_CHAMPION, DayRecord
from tasks.report.changes import changes_since
from tasks.report.facts import (
    Changes,
    Difference,
    Drift,
    Embeddings,
    Example,
    Facts,
    Feature,
    Item,
    Moved,
    Recommended,
)
from tasks.settings import Settings

FEATURES = {"category": "category_id", "author": "author_id", "brand": "brand_id", "price": "price"}
NEW_USERS = "users=new"


def collect_facts(record: DayRecord, lakehouse: Lakehouse, settings: Settings) -> Facts:
    """
    Collect what the page of a day shows. The same partitions and champion give the same facts.

    What a day does not have (no release yet, no champion, a champion whose run is gone) is left out, with
    the reason.

    Raises:
        TrackingUnavailable: MLflow does not answer.
    """
    changes, no_changes = _changes(record, settings)
    return Facts(
        record=record,
        quotas=settings.channels,
        release=_release_figures(lakehouse, record.day),
        differences=_differences(record),
        examples=_examples(lakehouse, record.day),
        drift=_drift(lakehouse, record.day),
        list_overlap=_list_overlap(record),
        changes=changes,
        no_changes=no_changes,
        new_users=_new_users(record),
    )


def _changes(record: DayRecord, settings: Settings) -> tuple[Changes | None, str]:
    champion = record.champion
    if champion.status == NO_CHAMPION:
        return None, "There is no champion yet."
    try:
        origin = tracking.find_origin(champion.version, settings)
    except tracking.UnknownVersion as error:
        return None, f"The champion's record is gone: {error}."
    return changes_since(champion, origin, record), ""


def _differences(record: DayRecord) -> tuple[Difference, ...]:
    """Give the deciding comparison per cohort: all users first, then cohorts, then scenarios by users."""
    deciding = record.deciding
    if deciding is None:
        return ()
    challenger = record.cohort_rows(deciding.method, "hit_rate", deciding.k)
    champion = record.cohort_rows("champion", "hit_rate", deciding.k)
    rows = record.cohort_rows(deciding.method, "relative_to_champion", deciding.k)
    found = [
        Difference(
            cohort,
            row["n_users"],
            challenger.get(cohort, {}).get("value"),
            champion.get(cohort, {}).get("value"),
            *(row[part] for part in ("value", "low", "high")),
            is_small=row["n_users"] < deciding.min_users,
        )
        for cohort, row in rows.items()
        if row["n_users"]
    ]
    return tuple(sorted(found, key=_cohort_order))


def _cohort_order(difference: Difference) -> tuple:
    is_scenario = difference.cohort.startswith("scenario=")
    n_users = difference.n_users if is_scenario else 0
    return difference.cohort != ALL, is_scenario, -n_users, difference.cohort


def _release_figures(lakehouse: Lakehouse, day: date) -> dict[str, float | None]:
    if lakehouse.commit(tables.METRIC, day, part="build_release") is None:
        return {}
    rows = lakehouse.read(tables.METRIC, day, part="build_release").to_pylist()
    return {row["metric"]: row["value"] for row in rows}


def _list_overlap(record: DayRecord) -> dict[str, tuple[int, float]]:
    """Give each method's overlap at its largest K, at most the deciding one."""
    most = record.deciding.k if record.deciding else 0
    rows = [row for row in record.metric_rows("overlap_with_champion") if row["k"] <= most]
    return {row["method"]: (row["k"], row["value"]) for row in rows}


def _new_users(record: DayRecord) -> tuple[float, float] | None:
    if record.deciding is None:
        return None
    found = [
        record.cohort_rows(method, "hit_rate", record.deciding.k).get(NEW_USERS, {}).get("value")
        for method in (record.deciding.method, "popularity")
    ]
    return None if None in found else tuple(found)


def _examples(lakehouse: Lakehouse, day: date) -> tuple[Example, ...]:
    if lakehouse.commit(tables.EXAMPLE, day) is None:
        return ()
    rows = lakehouse.read(tables.EXAMPLE, day).to_pylist()
    shown = {
        item_id
        for row in rows
        for column in ("history_item_ids", "item_ids", "target_item_ids")
        for item_id in row[column]
    }
    items = _read_items(lakehouse, day, shown)
    kinds = {kind: place for place, kind in enumerate(("long history", "short history", "no history"))}
    return tuple(
        Example(
            row["user_id"],
            row["kind"],
            row["n_history"],
            tuple(items[item_id] for item_id in row["history_item_ids"]),
            tuple(
                Recommended(place, items[item_id], channel, item_id in row["target_item_ids"])
                for place, (item_id, channel) in enumerate(
                    zip(row["item_ids"], row["channels"], strict=True), start=1
                )
            ),
            tuple(
                (items[item_id], place)
                for item_id, place in zip(row["target_item_ids"], row["target_places"], strict=True)
            ),
        )
        for row in sorted(rows, key=lambda row: (kinds[row["kind"]], row["user_id"]))
    )


def _read_items(lakehouse: Lakehouse, day: date, shown: set[int]) -> dict[int, Item]:
    """Read the features of the shown items; those that no shown item has are left out."""
    snapshot = lakehouse.read(tables.ITEM_SNAPSHOT, day, columns=["item_id", *FEATURES.values()])
    is_shown = pc.is_in(snapshot["item_id"], value_set=pa.array(sorted(shown), pa.int64()))
    rows = snapshot.filter(is_shown).to_pylist()
    found = {row["item_id"]: Item(row["item_id"], _features(row)) for row in rows}
    return {item_id: Item(item_id, {}) for item_id in shown} | found


def _features(row: dict) -> dict[str, str]:
    return {
        name: f"{row[column]:.2f}" if name == "price" else str(row[column])
        for name, column in FEATURES.items()
        if row[column] is not None
    }


def _drift(lakehouse: Lakehouse, day: date) -> Drift | None:
    commit = lakehouse.commit(tables.METRIC, day, part="drift")
    if commit is None:
        return None
    rows = lakehouse.read(tables.METRIC, day, part="drift").to_pylist()
    of_input = {(row["metric"], row["cohort"]): row["value"] for row in rows if row["method"] == "input"}
    towers = dict.fromkeys(row["method"] for row in rows if row["method"] != "input")
    return Drift(
        days_before=tuple(day for day in commit.meta["days_before"].split(", ") if day),
        rows=_moved(of_input, "rows", "table="),
        click_rates=_moved(of_input, "click_rate", "scenario="),
        features=tuple(
            Feature(cohort, psi, _moved(of_input, "share", f"{cohort}="))
            for (metric, cohort), psi in of_input.items()
            if metric == "psi"
        ),
        embeddings=tuple(_embeddings(tower, rows) for tower in towers),
        no_embeddings=commit.meta["champion"],
    )


def _moved(figures: dict[tuple[str, str], float | None], metric: str, prefix: str) -> tuple[Moved, ...]:
    """Pair ``metric`` with ``<metric>_before``, of the cohort of all and those with the prefix."""
    return tuple(
        Moved(cohort.removeprefix(prefix), now, figures.get((f"{metric}_before", cohort)))
        for (name, cohort), now in figures.items()
        if name == metric and (cohort.startswith(prefix) or cohort == ALL)
    )


def _embeddings(tower: str, rows: list[dict]) -> Embeddings:
    own = {row["metric"]: row for row in rows if row["method"] == tower}
    return Embeddings(
        tower,
        int(own["common_items"]["value"]),
        own["common_items"]["n_targets"],
        own["neighbour_overlap"]["value"],
        own["neighbour_overlap"]["k"],
        Moved("norm", own["norm"]["value"], own["norm_before"]["value"]),
    )
