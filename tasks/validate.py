"""
Is the day's data good enough to build on?

The suites of ``tasks/suites.py`` look at the needed columns of each canonical table, and one expectation
per file of ``sql/checks`` at the number of rows that it selects. The data docs of the day are kept in
``<var>/data_docs/<day>/``. Running a day again gives the same report and replaces its docs.
"""

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from lakehouse import tables
from lakehouse.store import Commit, Lakehouse
from lakehouse.tables import Table
from tasks.checks import TRAILING_EXPOSURE, BadRows, Check, read_checks, select_bad_rows
from tasks.days import ONE_DAY, source_first_day, start_of, window
from tasks.expectations import DayOfSuites, Outcome
from tasks.spark import EngineSettings, spark_session
from tasks.suites import CRITICAL, SUITES, Expectation, Suite
from tasks.validation_config import Severity, ValidationConfig

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

CHECKS = "checks"
EARLIEST_EVENT = timedelta(hours=1)


class BadData(ValueError):
    """The day's data failed critical expectations; the message names them, what was seen, and the docs."""


class BrokenCheck(RuntimeError):
    """A check could not be evaluated, so nothing is known about the data; the message says why."""


class UnknownExpectation(LookupError):
    """The settings give a severity to an expectation that does not exist."""


class ValidationSettings(EngineSettings, Protocol):
    """The settings that the validation reads."""

    var: Path
    lakehouse_root: str
    validation: ValidationConfig


@dataclass(frozen=True)
class TableReport:
    """How one table fared (``checks``: the SQL checks); ``docs`` is the URL of its page."""

    table: str
    n_expectations: int
    failed_critical: tuple[str, ...]
    failed_warning: tuple[str, ...]
    docs: str


@dataclass(frozen=True)
class ValidationReport:
    """How the day fared: by table, what was skipped and why, and the URL of the data docs."""

    day: date
    tables: tuple[TableReport, ...]
    skipped: tuple[str, ...]
    docs: str


@dataclass(frozen=True)
class _Day:
    """What the validation of a day reads: where, when, the days before, and the bounds."""

    day: date
    lakehouse: Lakehouse
    exposure: Commit
    trailing: list[date]
    config: ValidationConfig

    def trailing_commits(self, table: Table) -> list[Commit]:
        commits = (self.lakehouse.commit(table, day) for day in self.trailing)
        return [commit for commit in commits if commit is not None]

    def has(self, suite: Suite) -> bool:
        """Tell whether the day has the suite's table; raises MissingPartition where it must have it."""
        if suite.expected == "first_day" and self.day != source_first_day(self.exposure):
            return False
        if self.lakehouse.commit(suite.table, self.day) is not None:
            return True
        if suite.expected == "daily" or self.trailing_commits(suite.table):
            self.lakehouse.require(suite.table, self.day)
        return False


def validate_data(
    day: date,
    settings: ValidationSettings,
    *,
    suites: Sequence[Suite] = SUITES,
    checks: Sequence[Check] | None = None,
) -> ValidationReport:
    """
    Validate the canonical tables of ``day`` and keep its data docs, whatever the outcome.

    ``checks`` are those of ``sql/checks`` unless given. A table that the source never had, and bounds that
    compare with days of which none is there, are skipped and named in the report.

    Raises:
        MissingPartition: a table of the day is not there.
        BadData: a critical expectation failed.
        BrokenCheck: an expectation or an SQL check crashed.
        UnknownExpectation: ``validation.severities`` names an expectation that does not exist.
    """
    context = _open_day(day, settings)
    checks = read_checks() if checks is None else checks
    _refuse_unknown(context.config.severities, suites, checks)
    results = DayOfSuites(day, settings.var / "data_docs")
    skipped: list[str] = []
    outcomes: dict[str, list[Outcome]] = {}
    present = [suite for suite in suites if context.has(suite)]
    skipped += [
        f"{suite.table.name}: the source has none"
        for suite in suites
        if suite.expected == "optional" and suite not in present
    ]
    for suite in present:
        expectations, parameters = _at_run_time(context, suite, skipped)
        frame = _frame(context.lakehouse, suite, day)
        outcomes[suite.table.name] = results.run(suite.table.name, frame, expectations, parameters)
    spark = spark_session(settings)
    bad_rows = _run_checks(context, checks, [suite.table for suite in present], skipped, spark)
    if bad_rows:
        outcomes[CHECKS] = _hold_against_none(results, bad_rows, context.config.severities)
    results.keep_docs()
    _raise_failures(day, outcomes, results.docs)
    return ValidationReport(
        day,
        tuple(_report(table, of_table, results.docs_of(table)) for table, of_table in outcomes.items()),
        tuple(skipped),
        results.docs,
    )


def _open_day(day: date, settings: ValidationSettings) -> _Day:
    lakehouse = Lakehouse(settings.lakehouse_root)
    exposure = lakehouse.require(tables.EXPOSURE, day)
    config = settings.validation
    before = window(day - ONE_DAY, config.trailing_days, source_first_day(exposure))
    trailing = [past for past in before if lakehouse.commit(tables.EXPOSURE, past) is not None]
    return _Day(day, lakehouse, exposure, trailing, config)


def _refuse_unknown(
    severities: dict[str, Severity], suites: Sequence[Suite], checks: Sequence[Check]
) -> None:
    known = {expectation.name for suite in suites for expectation in suite.expectations}
    known |= {f"{CHECKS}.{check.name}" for check in checks}
    for name in sorted(set(severities) - known):
        raise UnknownExpectation(
            f"validation.severities: {name} is no expectation; known: {', '.join(sorted(known))}"
        )


def _at_run_time(context: _Day, suite: Suite, skipped: list[str]) -> tuple[list[Expectation], dict[str, Any]]:
    """Give the expectations that can be run this day, with the severities of the settings, and the bounds."""
    config = context.config
    timezone = context.exposure.meta["timezone"]
    day_start, end_time = start_of(context.day, timezone), start_of(context.day + ONE_DAY, timezone)
    parameters: dict[str, Any] = {
        "first_time": pd.Timestamp(day_start - EARLIEST_EVENT),
        "day_start": pd.Timestamp(day_start),
        "end_time": pd.Timestamp(end_time),
        "primary_scenarios": [context.exposure.meta["primary_scenario"]],
        "max_position": config.max_positions,
    }
    n_rows = [commit.n_rows for commit in context.trailing_commits(suite.table)]
    if n_rows:
        median = statistics.median(n_rows)
        parameters["fewest_rows"] = math.ceil(median * config.volume_low)
        parameters["most_rows"] = math.floor(median * config.volume_high)
    runnable = []
    for expectation in suite.expectations:
        if expectation.parameters - parameters.keys():
            skipped.append(f"{expectation.name}: no earlier day to compare with")
        else:
            severity = config.severities.get(expectation.name, expectation.severity)
            runnable.append(replace(expectation, severity=severity))
    return runnable, parameters


def _frame(lakehouse: Lakehouse, suite: Suite, day: date) -> pd.DataFrame:
    """Read the columns of a suite, one column of lists at a time: each becomes one number per row."""
    frame = lakehouse.read(suite.table, day, columns=[*suite.columns]).to_pandas(strings_to_categorical=True)
    for name, (function, column) in suite.derived.items():
        lists = lakehouse.read(suite.table, day, columns=[column])[column]
        frame[name] = np.concatenate([np.empty(0, np.int64), *map(function, lists.chunks)])
    return frame


def _run_checks(
    context: _Day,
    checks: Sequence[Check],
    present: Sequence[Table],
    skipped: list[str],
    spark: "SparkSession | None",
) -> list[BadRows]:
    inputs = {table.name: context.lakehouse.relation(table, [context.day]) for table in present}
    if context.trailing:
        inputs[TRAILING_EXPOSURE] = context.lakehouse.relation(tables.EXPOSURE, context.trailing)
    parameters = {"day": context.day, "max_scenario_drift": context.config.max_scenario_drift}
    bad_rows = []
    for check in checks:
        missing = [name for name in check.inputs if name not in inputs]
        if missing:
            skipped.append(f"{CHECKS}.{check.name}: no {', '.join(missing)}")
        else:
            bad_rows.append(select_bad_rows(check, inputs, parameters, spark))
    return bad_rows


def _hold_against_none(
    results: DayOfSuites, bad_rows: Sequence[BadRows], severities: dict[str, Severity]
) -> list[Outcome]:
    """Expect that every check selected no row. A check that broke has no column, so it crashes there too."""
    frame = pd.DataFrame({bad.check.name: [bad.n_rows] for bad in bad_rows if bad.error is None})
    expectations = [_no_rows(bad, severities) for bad in bad_rows]
    outcomes = results.run(CHECKS, frame, expectations, {})
    return [
        replace(outcome, observed=str(bad), error=bad.error)
        for outcome, bad in zip(outcomes, bad_rows, strict=True)
    ]


def _no_rows(bad: BadRows, severities: dict[str, Severity]) -> Expectation:
    name = f"{CHECKS}.{bad.check.name}"
    return Expectation(
        name,
        severities.get(name, bad.check.severity),
        f"{bad.check.table} has none of these rows: {bad.check.meaning}. Found: {bad.error or bad}",
        "ExpectColumnMaxToBeBetween",
        {"column": bad.check.name, "max_value": 0},
    )


def _raise_failures(day: date, outcomes: dict[str, list[Outcome]], docs: str) -> None:
    failed = [outcome for of_table in outcomes.values() for outcome in of_table if not outcome.is_success]
    broken = [outcome for outcome in failed if outcome.error]
    critical = [outcome for outcome in failed if outcome.severity == CRITICAL and not outcome.error]
    for outcome in failed:
        if outcome not in broken and outcome not in critical:
            log.warning("%s: warning %s", day, outcome)
    if broken:
        besides = f"; besides, bad data: {_listed(critical)}" if critical else ""
        raise BrokenCheck(f"{day}: the check broke: {_listed(broken)}{besides}; see {docs}")
    if critical:
        raise BadData(f"{day}: bad data: {_listed(critical)}; see {docs}")


def _listed(outcomes: Sequence[Outcome]) -> str:
    return "; ".join(map(str, outcomes))


def _report(table: str, outcomes: Sequence[Outcome], docs: str) -> TableReport:
    failed = [outcome for outcome in outcomes if not outcome.is_success]
    return TableReport(
        table,
        len(outcomes),
        tuple(str(outcome) for outcome in failed if outcome.severity == CRITICAL),
        tuple(str(outcome) for outcome in failed if outcome.severity != CRITICAL),
        docs,
    )
