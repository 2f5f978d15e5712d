"""
May this release serve? The day's figures held against ``mlflow/gates.toml``.

Kinds of gates:
    ratio: Hit@K of ``method`` over Hit@K of ``against``, same users, at least ``floor``; one on ``pi2i``
        passes where PI2I is off
    champion: lower end of the paired interval of (challenger - champion) / champion above ``-margin``
    release: a figure of the staged release (``tasks/release.py``), at least ``floor``
    finite_losses: every loss of every trained method is finite
    volume: rows of ``table`` over the median of the window's days before, at least ``floor``
"""

import json
import math
import statistics
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lakehouse import tables
from lakehouse.store import Lakehouse
from tasks.days import ONE_DAY, ingested, source_first_day, window
from tasks.records import PASSED, Deciding
from tasks.settings import PI2I, Settings
from tasks.train import read_losses

FAILED = "failed"
LEAST_USERS = 200
NOT_DECIDABLE, NO_COMPARISON, WARMING_UP = "not decidable", "no comparison", "warming up"


class BadGates(ValueError):
    """The gates file cannot be used, or a gate names a figure that the day does not have."""


class _Gate(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RatioGate(_Gate):
    """Floor of a ratio of two methods' Hit@K."""

    kind: Literal["ratio"]
    method: str
    against: str
    k: int = Field(ge=1)
    floor: float


class ChampionGate(_Gate):
    """Non-inferiority to the champion."""

    kind: Literal["champion"]
    method: str
    k: int = Field(ge=1)
    margin: float = Field(0.05, ge=0, lt=1)
    min_users: int = Field(LEAST_USERS, ge=2)


class ReleaseGate(_Gate):
    """Floor of a figure of the staged release."""

    kind: Literal["release"]
    figure: str
    floor: float


class FiniteLossesGate(_Gate):
    """Every loss is finite."""

    kind: Literal["finite_losses"]


class VolumeGate(_Gate):
    """Floor of the day's rows over the trailing median."""

    kind: Literal["volume"]
    table: str
    floor: float


Gate = Annotated[
    RatioGate | ChampionGate | ReleaseGate | FiniteLossesGate | VolumeGate, Field(discriminator="kind")
]


@dataclass(frozen=True)
class Result:
    """What one gate found; the row of ``lakehouse.tables.GATE`` without its name."""

    status: str
    figure: float | None
    floor: float | None
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The day's verdict and every gate's result by name."""

    verdict: str
    results: dict[str, Result]


@dataclass(frozen=True)
class Figures:
    """What the gates look at: metric rows by (method, metric, k) and the champion's status."""

    day: date
    settings: Settings
    lakehouse: Lakehouse
    metrics: dict[tuple[str, str, int], dict]
    champion: dict[str, str]

    def metric(self, method: str, name: str, k: int = 0) -> dict:
        """
        Give one metric row.

        Raises:
            BadGates: the day has no such figure.
        """
        try:
            return self.metrics[method, name, k]
        except KeyError:
            figure = f"{name}@{k} of {method}" if k else f"{name} of {method}"
            ks = sorted(at for of, metric, at in self.metrics if (of, metric) == (method, name))
            there = (
                f"it has K = {', '.join(map(str, ks))}"
                if ks
                else (f"methods: {', '.join(sorted({of for of, _, _ in self.metrics}))}")
            )
            raise BadGates(f"a gate asks for {figure}, which {self.day} does not have; {there}") from None


def load_gates(path: Path) -> dict[str, Gate]:
    """
    Read the gates by name.

    Raises:
        BadGates: unreadable, empty, or an unknown kind or option.
    """
    try:
        gates = TypeAdapter(dict[str, Gate]).validate_python(tomllib.loads(path.read_text()))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadGates(f"cannot read the gates file {path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadGates(f"{path}: {where}: {first['msg']}") from error
    if not gates:
        raise BadGates(f"the gates file {path} has no gates, so everything would pass; name at least one")
    return gates


def deciding_comparison(settings: Settings) -> Deciding:
    """
    Tell which comparison with the champion decides: the first champion gate's, else the merged list's.

    Raises:
        BadGates: the gates file is wrong.
    """
    for gate in load_gates(settings.gates_file).values():
        if isinstance(gate, ChampionGate):
            return Deciding(gate.method, gate.k, gate.margin, gate.min_users)
    ks = [k for k in settings.evaluation.ks if k <= sum(settings.channels.values())]
    return Deciding("merged", max(ks, default=settings.evaluation.ks[0]), None, LEAST_USERS)


def check_gates(day: date, settings: Settings) -> Verdict:
    """
    Replace ``gate/ds=<day>`` with every gate's figure; the commit's meta carries the verdict.

    A failed gate does not fail the task: it is a finding about the release, which is registered with it.

    Raises:
        BadGates: the gates file is wrong.
        MissingPartition: the day was not evaluated.
    """
    gates = load_gates(settings.gates_file)
    lakehouse = Lakehouse(settings.lakehouse_root)
    evaluated = lakehouse.require(tables.METRIC, day, part="evaluate")
    if evaluated.meta["status"] == WARMING_UP:
        verdict = Verdict(WARMING_UP, {})
    else:
        figures = _read_figures(day, settings, lakehouse, json.loads(evaluated.meta["champion"]))
        verdict = decide({name: _CHECKS[gate.kind](gate, figures) for name, gate in gates.items()})
    rows = [{"gate": name, **vars(result)} for name, result in verdict.results.items()]
    lakehouse.replace(
        tables.GATE,
        day,
        pa.Table.from_pylist(rows, tables.GATE.schema),
        meta={"verdict": verdict.verdict},
    )
    return verdict


def decide(results: dict[str, Result]) -> Verdict:
    """Give the verdict: failed, else no comparison, else not decidable, else passed."""
    statuses = {result.status for result in results.values()}
    for status in (FAILED, NO_COMPARISON, NOT_DECIDABLE):
        if status in statuses:
            return Verdict(status, results)
    return Verdict(PASSED, results)


def _read_figures(day: date, settings: Settings, lakehouse: Lakehouse, champion: dict) -> Figures:
    rows = [
        row
        for part in ("evaluate", "build_release")
        for row in lakehouse.read(tables.METRIC, day, part=part).to_pylist()
        if row["cohort"] == "all"
    ]
    metrics = {(row["method"], row["metric"], row["k"]): row for row in rows}
    return Figures(day, settings, lakehouse, metrics, champion)


def _at_least(figure: float | None, floor: float, what: str) -> Result:
    if figure is None or not math.isfinite(figure):
        return Result(NOT_DECIDABLE, None, floor, f"{what} is not defined on this day")
    status = PASSED if figure >= floor else FAILED
    return Result(status, figure, floor, f"{what} is {figure:.4f}, floor {floor:g}")


def _check_ratio(gate: RatioGate, figures: Figures) -> Result:
    if gate.method == PI2I and figures.settings.pi2i is None:
        return Result(PASSED, None, gate.floor, "PI2I is off in the settings")
    ours = figures.metric(gate.method, "hit_rate", gate.k)["value"]
    theirs = figures.metric(gate.against, "hit_rate", gate.k)["value"]
    ratio = ours / theirs if ours is not None and theirs else None
    return _at_least(ratio, gate.floor, f"Hit@{gate.k} of {gate.method} over {gate.against}")


def _check_champion(gate: ChampionGate, figures: Figures) -> Result:
    champion, floor = figures.champion, -gate.margin
    if champion["status"] == "none":
        return Result(PASSED, None, floor, "there is no champion yet: the floors alone decide")
    if champion["status"] == NO_COMPARISON:
        was = f"the champion is of {champion['day']}, not of a day before {figures.day}"
        return Result(NO_COMPARISON, None, floor, champion.get("reason") or was)
    what = f"Hit@{gate.k} of {gate.method} against version {champion['version']} of {champion['day']}"
    figures.metric(gate.method, "hit_rate", gate.k)
    row = figures.metrics.get((gate.method, "relative_to_champion", gate.k))
    if row is None:
        return Result(NOT_DECIDABLE, None, floor, f"{what}: the champion has no such list of {gate.k} items")
    if row["n_users"] < gate.min_users or row["low"] is None or math.isnan(row["low"]):
        detail = f"{what}: {row['n_users']} users, {gate.min_users} needed"
        return Result(NOT_DECIDABLE, row["low"], floor, detail)
    status = PASSED if row["low"] > floor else FAILED
    detail = f"{what}: {row['value']:+.2%} [{row['low']:+.2%}, {row['high']:+.2%}], floor {floor:+.0%}"
    return Result(status, row["low"], floor, detail)


def _check_release(gate: ReleaseGate, figures: Figures) -> Result:
    return _at_least(figures.metric("release", gate.figure)["value"], gate.floor, gate.figure)


def _check_finite_losses(gate: FiniteLossesGate, figures: Figures) -> Result:
    losses = {
        method: [
            loss for term in read_losses(figures.lakehouse, figures.day, method).values() for loss in term
        ]
        for method in figures.settings.trained_methods
    }
    broken = [method for method, of_method in losses.items() if not all(map(math.isfinite, of_method))]
    detail = f"not finite: {', '.join(broken)}" if broken else f"{len(losses)} methods, all finite"
    return Result(FAILED if broken else PASSED, float(len(broken)), 0.0, detail)


def _check_volume(gate: VolumeGate, figures: Figures) -> Result:
    lakehouse, day = figures.lakehouse, figures.day
    if gate.table not in tables.TABLES:
        raise BadGates(f"volume gate: no table {gate.table!r}; known: {', '.join(tables.TABLES)}")
    table = tables.TABLES[gate.table]
    first_day = source_first_day(ingested(lakehouse, day))
    days = window(day - ONE_DAY, figures.settings.window_days, first_day)
    median = statistics.median(lakehouse.require(table, d).n_rows for d in days)
    figure = lakehouse.require(table, day).n_rows / median if median else None
    return _at_least(figure, gate.floor, f"rows of {gate.table} over the window's median")


_CHECKS: dict[str, Callable[..., Result]] = {
    "ratio": _check_ratio,
    "champion": _check_champion,
    "release": _check_release,
    "finite_losses": _check_finite_losses,
    "volume": _check_volume,
}
