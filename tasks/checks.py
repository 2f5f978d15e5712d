"""
Which rows of a day are bad by a rule that takes SQL?

``sql/checks/<name>.sql`` selects them. Its header tells the rule (``-- key: value``): ``meaning``,
``table`` (the table at fault), ``severity``, ``inputs`` (canonical tables of the day;
``trailing_exposure`` is the exposures of the days before) and ``parameters`` (``$day``: the day;
``$max_scenario_drift``: the setting of that name).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa

from lakehouse.relation import Relation
from lakehouse.sql import SQL_FOLDER, SqlError, run_sql
from lakehouse.tables import TABLES
from tasks.validation_config import Severity

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CHECKS = SQL_FOLDER / "checks"
TRAILING_EXPOSURE = "trailing_exposure"
INPUTS = (*TABLES, TRAILING_EXPOSURE)
PARAMETERS = ("day", "max_scenario_drift")
N_SHOWN = 3


class BadCheck(ValueError):
    """The header of a check cannot be read; the message names the file and the line it lacks."""


@dataclass(frozen=True)
class Check:
    """One file that selects bad rows, and what its header tells."""

    path: Path
    meaning: str
    table: str
    severity: Severity
    inputs: tuple[str, ...]
    parameters: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its file's name."""
        return self.path.stem


@dataclass(frozen=True)
class BadRows:
    """What a check selected: how many rows, the first few of them as text, or why it broke."""

    check: Check
    n_rows: int
    first_rows: tuple[str, ...]
    error: str | None = None

    def __str__(self) -> str:
        """Tell the number of rows and show the first few."""
        examples = "; ".join(self.first_rows)
        return f"{self.n_rows} rows, e.g. {examples}" if examples else "no rows"


def read_checks(folder: Path = CHECKS) -> tuple[Check, ...]:
    """
    Read the header of every check, by file name.

    Raises:
        BadCheck: a header lacks a line, or its severity is unknown.
    """
    return tuple(_read_check(path) for path in sorted(folder.glob("*.sql")))


def select_bad_rows(
    check: Check,
    inputs: dict[str, Relation],
    parameters: dict[str, Any],
    spark: "SparkSession | None" = None,
) -> BadRows:
    """
    Run one check, on Spark where a session is given.

    That it did not run is kept in ``BadRows.error``: other checks still tell theirs.
    """
    try:
        rows = run_sql(
            check.name,
            {name: inputs[name] for name in check.inputs},
            {name: parameters[name] for name in check.parameters},
            folder=check.path.parent,
            spark=spark,
        )
    except SqlError as error:
        return BadRows(check, 0, (), str(error))
    return BadRows(check, rows.num_rows, _as_text(rows.slice(0, N_SHOWN)))


def _read_check(path: Path) -> Check:
    header = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("--"):
            break
        key, _, value = line.removeprefix("--").partition(":")
        header[key.strip()] = value.strip()
    for key in ("meaning", "table", "severity", "inputs", "parameters"):
        if not header.get(key):
            raise BadCheck(f"{path}: the header needs a line '-- {key}: ...'")
    return Check(
        path,
        header["meaning"],
        *_known(path, "table", header["table"], tuple(TABLES)),
        *_known(path, "severity", header["severity"], get_args(Severity)),
        _known(path, "inputs", header["inputs"], INPUTS),
        _known(path, "parameters", header["parameters"].replace("$", ""), PARAMETERS),
    )


def _known(path: Path, key: str, value: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in value.split(","))
    for name in names:
        if name not in known:
            raise BadCheck(f"{path}: {key} has {name!r}; known: {', '.join(known)}")
    return names


def _as_text(rows: pa.Table) -> tuple[str, ...]:
    return tuple(", ".join(f"{name} {value}" for name, value in row.items()) for row in rows.to_pylist())
