"""
What is expected of a day of each canonical table?

The one place where expectations are declared, as data. ``type`` and ``kwargs`` are Great Expectations' own
names; ``{"$PARAMETER": name}`` is given at run time by ``validate_data``, and an expectation whose
parameter is not known that day is skipped. The store itself refuses wrong types, nulls and repeated keys,
so the suites look at values; what takes a join is in ``sql/checks``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.tables import Table
from tasks.validation_config import Severity

CRITICAL: Severity = "critical"
WARNING: Severity = "warning"


@dataclass(frozen=True)
class Expectation:
    """One expectation: its name in reports and settings, how bad a failure is, and what it means."""

    name: str
    severity: Severity
    meaning: str
    type: str
    kwargs: dict[str, Any]

    @property
    def parameters(self) -> frozenset[str]:
        """The run-time parameters that it needs."""
        values = (value for value in self.kwargs.values() if isinstance(value, dict))
        return frozenset(value["$PARAMETER"] for value in values)


@dataclass(frozen=True)
class Suite:
    """
    The expectations of one table and the columns that they look at.

    ``derived`` turns a nested column into one number per row: name -> (function, column). ``expected``
    tells on which days the table has to be there: all, all of a source that has it, its first day only.
    """

    table: Table
    columns: tuple[str, ...]
    expectations: tuple[Expectation, ...]
    derived: dict[str, tuple[Callable[[pa.Array], pa.Array], str]] = field(default_factory=dict)
    expected: Literal["daily", "optional", "first_day"] = "daily"


def n_values(lists: pa.Array) -> pa.Array:
    """Count the values of each list."""
    return pc.list_value_length(lists)


def n_bad_ids(lists: pa.Array) -> pa.Array:
    """Count the null or negative ids in each list (-1 means padding everywhere else)."""
    return _count_true(lists, lambda ids: pc.fill_null(pc.less(ids, 0), True))


def n_not_finite(lists: pa.Array) -> pa.Array:
    """Count the null, NaN or infinite values in each list."""
    return _count_true(lists, lambda values: pc.invert(pc.fill_null(pc.is_finite(values), False)))


def _count_true(lists: pa.Array, predicate: Callable[[pa.Array], pa.Array]) -> pa.Array:
    rows = pc.list_parent_indices(lists).filter(predicate(pc.list_flatten(lists)))
    return pa.array(np.bincount(rows.to_numpy(), minlength=len(lists)))


def _parameter(name: str) -> dict[str, str]:
    return {"$PARAMETER": name}


def _expect(name: str, severity: Severity, meaning: str, type: str, **kwargs: Any) -> Expectation:
    return Expectation(name, severity, meaning, type, kwargs)


def _rows(table: str, if_empty: Severity) -> tuple[Expectation, ...]:
    count = "ExpectTableRowCountToBeBetween"
    return (
        _expect(f"{table}.not_empty", if_empty, "the table has rows", count, min_value=1),
        _expect(
            f"{table}.volume_low",
            CRITICAL,
            "not far fewer rows than the median of the days before: nothing was lost",
            count,
            min_value=_parameter("fewest_rows"),
        ),
        _expect(
            f"{table}.volume_high",
            WARNING,
            "not far more rows than the median of the days before: nothing was loaded twice",
            count,
            max_value=_parameter("most_rows"),
        ),
    )


def _id(table: str, column: str) -> Expectation:
    return _expect(
        f"{table}.{column}",
        CRITICAL,
        f"{column} is not negative: -1 means padding",
        "ExpectColumnValuesToBeBetween",
        column=column,
        min_value=0,
    )


def _event_time(table: str) -> Expectation:
    return _expect(
        f"{table}.event_time",
        CRITICAL,
        "events lie in the day of the source's time zone, or at most one hour before it",
        "ExpectColumnValuesToBeBetween",
        column="event_time",
        min_value=_parameter("first_time"),
        max_value=_parameter("end_time"),
        strict_max=True,
    )


def _scenario(table: str) -> Expectation:
    return _expect(
        f"{table}.scenario",
        CRITICAL,
        "every row names its scenario",
        "ExpectColumnValuesToNotBeInSet",
        column="scenario",
        value_set=["", "nan", "None", "null"],
    )


def _zero(name: str, meaning: str, column: str) -> Expectation:
    return _expect(
        name, CRITICAL, meaning, "ExpectColumnValuesToBeBetween", column=column, min_value=0, max_value=0
    )


def _same_length(column: str) -> Expectation:
    return _expect(
        f"ranking_log.{column}",
        CRITICAL,
        f"as many {column.removeprefix('n_')} as items in each ranking",
        "ExpectColumnPairValuesToBeEqual",
        column_A=column,
        column_B="n_items",
    )


def _unique(table: str, column: str) -> Expectation:
    return _expect(
        f"{table}.{column}_unique", CRITICAL, "one row each", "ExpectColumnValuesToBeUnique", column=column
    )


EXPOSURE = Suite(
    tables.EXPOSURE,
    ("user_id", "item_id", "scenario", "event_time", "position", "is_click"),
    (
        *_rows("exposure", CRITICAL),
        _id("exposure", "user_id"),
        _id("exposure", "item_id"),
        _scenario("exposure"),
        _event_time("exposure"),
        _expect(
            "exposure.position",
            WARNING,
            "positions, where known, are those of a plausible page",
            "ExpectColumnValuesToBeBetween",
            column="position",
            min_value=0,
            max_value=_parameter("max_position"),
        ),
        _expect(
            "exposure.clicks",
            CRITICAL,
            "something was clicked: without clicks there is nothing to learn from or to measure on",
            "ExpectColumnDistinctValuesToContainSet",
            column="is_click",
            value_set=[True],
        ),
        _expect(
            "exposure.primary_scenario",
            CRITICAL,
            "the primary scenario, which training and evaluation look at, has exposures",
            "ExpectColumnDistinctValuesToContainSet",
            column="scenario",
            value_set=_parameter("primary_scenarios"),
        ),
    ),
)

RANKING_LOG = Suite(
    tables.RANKING_LOG,
    ("user_id", "scenario", "event_time"),
    (
        *_rows("ranking_log", WARNING),
        _id("ranking_log", "user_id"),
        _scenario("ranking_log"),
        _event_time("ranking_log"),
        _expect(
            "ranking_log.n_items",
            CRITICAL,
            "a ranking holds at least one item and is of plausible length",
            "ExpectColumnValuesToBeBetween",
            column="n_items",
            min_value=1,
            max_value=_parameter("max_position"),
        ),
        _same_length("n_categories"),
        _same_length("n_scores"),
        _zero("ranking_log.item_ids", "no null or negative item in a ranking", "n_bad_item_ids"),
        _zero("ranking_log.scores", "no null, NaN or infinite score in a ranking", "n_bad_scores"),
    ),
    {
        "n_items": (n_values, "item_ids"),
        "n_categories": (n_values, "category_ids"),
        "n_scores": (n_values, "scores"),
        "n_bad_item_ids": (n_bad_ids, "item_ids"),
        "n_bad_scores": (n_not_finite, "scores"),
    },
    expected="optional",
)

RETRIEVAL_LOG = Suite(
    tables.RETRIEVAL_LOG,
    ("user_id", "scenario", "event_time"),
    (
        *_rows("retrieval_log", WARNING),
        _id("retrieval_log", "user_id"),
        _scenario("retrieval_log"),
        _event_time("retrieval_log"),
        _expect(
            "retrieval_log.n_items",
            CRITICAL,
            "a retrieval is of plausible length",
            "ExpectColumnValuesToBeBetween",
            column="n_items",
            min_value=0,
            max_value=_parameter("max_position"),
        ),
        _zero("retrieval_log.item_ids", "no null or negative item in a retrieval", "n_bad_item_ids"),
    ),
    {"n_items": (n_values, "item_ids"), "n_bad_item_ids": (n_bad_ids, "item_ids")},
    expected="optional",
)

ITEM = Suite(
    tables.ITEM_SNAPSHOT,
    ("item_id", "price", "is_available"),
    (
        *_rows("item", CRITICAL),
        _id("item", "item_id"),
        _unique("item", "item_id"),
        _expect(
            "item.price",
            WARNING,
            "prices, where known, are not negative",
            "ExpectColumnValuesToBeBetween",
            column="price",
            min_value=0,
        ),
        _expect(
            "item.is_available",
            CRITICAL,
            "some item may be recommended",
            "ExpectColumnDistinctValuesToContainSet",
            column="is_available",
            value_set=[True],
        ),
    ),
)

USER = Suite(
    tables.USER_SNAPSHOT,
    ("user_id",),
    (*_rows("user", WARNING), _id("user", "user_id"), _unique("user", "user_id")),
)

INITIAL_HISTORY = Suite(
    tables.INITIAL_HISTORY,
    ("user_id", "last_event_time"),
    (
        _expect(
            "initial_history.not_empty",
            WARNING,
            "the table has rows",
            "ExpectTableRowCountToBeBetween",
            min_value=1,
        ),
        _id("initial_history", "user_id"),
        _unique("initial_history", "user_id"),
        _expect(
            "initial_history.n_items",
            WARNING,
            "a past holds at least one item and is of plausible length",
            "ExpectColumnValuesToBeBetween",
            column="n_items",
            min_value=1,
            max_value=_parameter("max_position"),
        ),
        _zero("initial_history.item_ids", "no null or negative item in a past", "n_bad_item_ids"),
        _expect(
            "initial_history.last_event_time",
            CRITICAL,
            "the past ends before the first day starts: later items would leak into the evaluation",
            "ExpectColumnValuesToBeBetween",
            column="last_event_time",
            max_value=_parameter("day_start"),
            strict_max=True,
        ),
    ),
    {"n_items": (n_values, "item_ids"), "n_bad_item_ids": (n_bad_ids, "item_ids")},
    expected="first_day",
)

SUITES = (EXPOSURE, RANKING_LOG, RETRIEVAL_LOG, ITEM, USER, INITIAL_HISTORY)
