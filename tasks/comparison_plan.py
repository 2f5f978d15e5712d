"""
What is compared with what? Methods, backbones and seeds on a window of days, checked before training begins.

The last days of the window are measured, the ones before them learned from. A method is a name: one of the
paper's (its variant over the hyperparameters of ``methods.base``), or a method of the settings with its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.increc import backbones as known_backbones
from models.increc.config import IncRecConfig, Variant
from tasks.days import ONE_DAY, day_range
from tasks.settings import BASE, Settings

VARIANTS: tuple[str, ...] = get_args(Variant)
ONLINE = "TB-Online"
SEEDS = (1, 2, 3)
MOST_K = 10_000
LEAST_DAYS = 2


class BadComparison(ValueError):
    """A comparison that cannot be made as asked; the message says what to give."""


@dataclass(frozen=True)
class Unit:
    """One training: a method over a backbone, with a seed."""

    method: str
    backbone: str
    seed: int

    def __str__(self) -> str:
        """Tell it in words."""
        return f"{self.method} over {self.backbone}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """What is compared; ``make_plan`` checks it."""

    first_day: date
    last_day: date
    n_evaluated: int
    methods: tuple[str, ...]
    backbones: tuple[str, ...]
    seeds: tuple[int, ...]
    ks: tuple[int, ...]

    @property
    def training_days(self) -> list[date]:
        """The days whose samples are learned from."""
        return day_range(self.first_day, self.last_day - timedelta(days=self.n_evaluated))

    @property
    def evaluated_days(self) -> list[date]:
        """The days that are measured, all after the last training day."""
        return day_range(self.last_day - timedelta(days=self.n_evaluated - 1), self.last_day)

    @property
    def units(self) -> tuple[Unit, ...]:
        """Every training, in order; the base of a further seed is among them where only one is asked for."""
        named = [Unit(m, b, s) for b in self.backbones for s in self.seeds for m in self.methods]
        reseeded = [Unit(ONLINE, b, self.other_seed(s)) for b in self.backbones for s in self.seeds]
        return tuple(dict.fromkeys([*named, *reseeded]))

    def other_seed(self, seed: int) -> int:
        """Give the seed of the re-seeded base beside ``seed``: the next of those compared, in a circle."""
        place = self.seeds.index(seed)
        following = self.seeds[(place + 1) % len(self.seeds)]
        return following if following != seed else seed + 1

    def to_json(self) -> dict[str, Any]:
        """Give plain values, which ``from_json`` reads."""
        lists = {name: list(getattr(self, name)) for name in ("methods", "backbones", "seeds", "ks")}
        days = {name: getattr(self, name).isoformat() for name in ("first_day", "last_day")}
        return {**days, "n_evaluated": self.n_evaluated, **lists}

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Plan":
        """Read what ``to_json`` gave."""
        days = {name: date.fromisoformat(values[name]) for name in ("first_day", "last_day")}
        lists = {name: tuple(values[name]) for name in ("methods", "backbones", "seeds", "ks")}
        return Plan(**days, n_evaluated=values["n_evaluated"], **lists)


def make_plan(
    settings: Settings,
    *,
    first_day: date | None = None,
    last_day: date | None = None,
    n_days: int | None = None,
    n_evaluated: int = 1,
    methods: Sequence[str] = VARIANTS,
    backbones: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    ks: Sequence[int] = (),
) -> Plan:
    """
    Check what is asked for and complete it.

    The window is ``first_day`` to ``last_day``; else the last ``n_days`` that are prepared; else as many as a
    daily training sees, and those measured. TB-Online is always among the methods: Base@K and Sup@K are its.
    Without names all backbones are compared; without ``ks`` those of the daily evaluation.

    Raises:
        BadComparison: a name, number or window that cannot be compared, or days that are not prepared.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    known = (*VARIANTS, *(name for name in settings.methods if name not in VARIANTS))
    chosen = _known("method", methods, known)
    plan = Plan(
        *_window(lakehouse, settings, first_day, last_day, n_days, n_evaluated),
        n_evaluated,
        tuple(dict.fromkeys((ONLINE, *chosen))),
        _known("backbone", backbones or known_backbones.names(), known_backbones.names()),
        _whole_numbers("seed", seeds, 0, 2**32 - 2),
        _whole_numbers("K", ks or settings.evaluation.ks, 1, MOST_K),
    )
    if list(plan.ks) != sorted(plan.ks):
        raise BadComparison(f"the K must ascend, not {_listed(plan.ks)}")
    for unit in plan.units:
        config_of(unit, settings)
    _require_prepared(lakehouse, plan)
    _require_items(lakehouse, plan)
    return plan


def plan_of(values: Mapping[str, Any], settings: Settings) -> Plan:
    """
    Make the plan that the parameters of the DAG ask for; what is unset has its default.

    Raises:
        BadComparison: as ``make_plan``.
    """
    days = {name: values.get(name) and date.fromisoformat(values[name]) for name in ("from_day", "to_day")}
    lists = {
        name: values[name] for name in ("methods", "backbones", "seeds", "ks") if values.get(name) is not None
    }
    return make_plan(
        settings,
        first_day=days["from_day"],
        last_day=days["to_day"],
        n_days=values.get("last_days"),
        n_evaluated=values.get("evaluated_days", 1),
        **lists,
    )


def config_of(unit: Unit, settings: Settings) -> IncRecConfig:
    """
    Give the hyperparameters of one training: from scratch, its lists unfiltered: both are measured.

    Raises:
        BadComparison: the settings name no such method, or its hyperparameters do not fit the backbone.
    """
    if unit.method in VARIANTS:
        values = settings.methods[BASE].model_dump() | {"variant": unit.method}
    elif unit.method in settings.methods:
        values = settings.methods[unit.method].model_dump()
    else:
        raise BadComparison(f"unknown method {unit.method}; known: {_listed((*VARIANTS, *settings.methods))}")
    values |= {"backbone": unit.backbone, "seed": unit.seed, "start": "scratch", "filter_retrieved": False}
    try:
        return IncRecConfig(**values)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise BadComparison(f"{unit.method} over {unit.backbone}: {reason}") from error


def _known(kind: str, names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    if not names:
        raise BadComparison(f"name at least one {kind}; known: {_listed(known)}")
    for name in names:
        if name not in known:
            raise BadComparison(f"unknown {kind} {name}; known: {_listed(known)}")
    return _distinct(kind, names)


def _whole_numbers(name: str, numbers: Sequence[int], least: int, most: int) -> tuple[int, ...]:
    for number in numbers:
        if not least <= number <= most:
            raise BadComparison(f"{name} {number} must be from {least} to {most}")
    if not numbers:
        raise BadComparison(f"give at least one {name}")
    return _distinct(name, numbers)


def _distinct(name: str, values: Sequence) -> tuple:
    for value in values:
        if list(values).count(value) > 1:
            raise BadComparison(f"{name} {value} is given twice in {_listed(values)}")
    return tuple(values)


def _window(
    lakehouse: Lakehouse,
    settings: Settings,
    first_day: date | None,
    last_day: date | None,
    n_days: int | None,
    n_evaluated: int,
) -> tuple[date, date]:
    """Give first and last day of the window, long enough to learn from and to measure on."""
    if n_evaluated < 1:
        raise BadComparison(
            f"EVALUATED={n_evaluated} must be at least 1: the last days of the window are measured"
        )
    if bool(first_day) != bool(last_day) or (first_day and n_days):
        raise BadComparison("name the window by FROM= and TO=, or by LAST= days")
    needed = n_evaluated + 1
    if not first_day:
        there = lakehouse.days(tables.TARGET_GROUP)
        if not there:
            raise BadComparison(f"no day is prepared below {lakehouse.root}: run `make run` first")
        n_days = settings.window_days + n_evaluated if n_days is None else n_days
        last_day = there[-1]
        first_day = last_day - timedelta(days=n_days - 1)
        if n_days >= needed:
            first_day = max(first_day, there[0])
    elif first_day > last_day:
        raise BadComparison(f"FROM={first_day} is after TO={last_day}")
    n_given = (last_day - first_day).days + 1
    if n_given < needed:
        raise BadComparison(
            f"the window {first_day} .. {last_day} has {n_given} of the {needed} days that are needed: "
            f"at least 1 to learn from and {n_evaluated} to measure on"
        )
    return first_day, last_day


def _require_prepared(lakehouse: Lakehouse, plan: Plan) -> None:
    days = [*plan.training_days, *plan.evaluated_days]
    missing = [
        day
        for day in days
        if not (lakehouse.commit(tables.INCREC_SAMPLE, day) and lakehouse.commit(tables.TARGET_GROUP, day))
    ]
    if missing:
        raise BadComparison(
            f"{_listed(missing)} not prepared below {lakehouse.root}: run `make run "
            f"FROM={plan.evaluated_days[0]} TO={plan.last_day}` first, which brings in the days before"
        )
    if not any(lakehouse.require(tables.INCREC_SAMPLE, day).n_rows for day in plan.training_days):
        raise BadComparison(
            f"{plan.training_days[0]} .. {plan.training_days[-1]} have no training samples (a log's first "
            "day has none without a warm start): begin the window earlier, or end it later"
        )


def _require_items(lakehouse: Lakehouse, plan: Plan) -> None:
    """Refuse K whose Sup@K and filtered rows the catalogue cannot fill: they would be no lists of K."""
    for day in plan.evaluated_days:
        is_available = lakehouse.read(tables.ITEM_SNAPSHOT, day - ONE_DAY, columns=["is_available"])
        n_items = pc.sum(is_available["is_available"]).as_py() or 0
        retrieved = lakehouse.read(tables.TARGET_GROUP, day, columns=["retrieved_item_ids"])
        histories = lakehouse.read(tables.USER_HISTORY, day - ONE_DAY, columns=["item_ids"])
        longest = _longest(retrieved["retrieved_item_ids"]) + _longest(histories["item_ids"])
        largest = (n_items - longest) // 2
        if plan.ks[-1] > largest:
            raise BadComparison(
                f"K = {plan.ks[-1]} is too large: Base@K, Sup@K, R_u and a history ({longest}) need "
                f"{2 * plan.ks[-1] + longest} items, and {n_items} are available on {day}; the largest K is "
                f"{max(largest, 0)}"
            )


def _longest(lists: pa.ChunkedArray) -> int:
    return pc.max(pc.list_value_length(lists)).as_py() or 0


def _listed(values: Sequence) -> str:
    return ", ".join(map(str, values))
