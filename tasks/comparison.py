"""
What does a comparison of methods say? The paper's Tables 1-3 and the stated differences (IncRec, section 3).

Every figure is given at every seed with its 95% interval over the (day, user) pairs; a table shows the mean
over seeds and their standard deviation.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev

from models.comparison import Hits, difference, rate
from models.metrics import Interval
from tasks.comparison_plan import ONLINE, Plan, Unit

NA, FULL, BOOST, ITG_ONLY = "IncRec-NA", "IncRec", "TB-boost", "TB-ITG"
TITLES = {
    "table1": "Table 1: Base@K, Sup@K and Inc@K on the incremental targets, %",
    "table2": "Table 2: Inc@K of the methods, %; TB-Online's is Sup@K",
    "table3": "Table 3: alignment: order hit (Inc@K) and exposure hit of it, %",
    "differences": "Differences, percentage points, with the paired 95% interval at each seed",
}
NOTHING = "-"


@dataclass(frozen=True)
class Figure:
    """
    One row of a table for one backbone and K: its interval at each seed.

    ``row`` is as in ``models.comparison``, ``label`` as it is shown.
    """

    table: str
    backbone: str
    label: str
    row: str
    k: int
    by_seed: Mapping[int, Interval]

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return fmean(interval.value for interval in self.by_seed.values())

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds (n - 1); NaN with a single one."""
        values = [interval.value for interval in self.by_seed.values()]
        return stdev(values) if len(values) > 1 else float("nan")

    @property
    def is_above_zero(self) -> bool:
        """Whether the interval lies above zero at every seed."""
        return all(interval.low > 0 for interval in self.by_seed.values())


@dataclass(frozen=True)
class Comparison:
    """The figures of all tables, in their order."""

    plan: Plan
    source: str
    figures: tuple[Figure, ...]

    def figures_of(self, unit: Unit) -> Iterator[tuple[str, int, Interval]]:
        """Give name, K and interval of one training's own rows; none of a seed that is a control only."""
        own = ("base", "sup", "sup_minus_r_u") if unit.method == ONLINE else f"/{unit.method}"
        found = {}
        for figure in (figure for figure in self.figures if figure.table != "differences"):
            is_own = figure.row in own if unit.method == ONLINE else figure.row.endswith(own)
            if figure.backbone == unit.backbone and is_own and unit.seed in figure.by_seed:
                found[figure.row.partition("/")[0], figure.k] = figure.by_seed[unit.seed]
        yield from ((*key, interval) for key, interval in found.items())

    def table(self, name: str) -> str:
        """Give one table as Markdown: a column per K, or of the differences one per seed."""
        figures = [figure for figure in self.figures if figure.table == name]
        if not figures:
            return f"### {TITLES[name]}\n\nNone of its methods was compared."
        head, rows = (
            _difference_rows(figures, self.plan.seeds)
            if name == "differences"
            else _rate_rows(figures, self.plan.ks)
        )
        lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *rows]
        return "\n".join([f"### {TITLES[name]}", "", *("| " + " | ".join(line) + " |" for line in lines)])

    def summary(self) -> str:
        """Tell what was compared, on what."""
        plan = self.plan
        measured = self.figures[0].by_seed[plan.seeds[0]]
        days = plan.evaluated_days
        return (
            f"{self.source}: learned from {plan.training_days[0]} .. {plan.training_days[-1]}, measured on "
            f"{days[0]} .. {days[-1]}: {measured.n_targets} incremental targets of {measured.n_users} users "
            f"(each day counts its own). Means over the seeds {', '.join(map(str, plan.seeds))} ± their "
            "standard deviation. Sup@K is TB-Online's Inc@K."
        )

    def markdown(self) -> str:
        """Give all tables, below what was compared."""
        return "\n\n".join([self.summary(), *(self.table(name) for name in TITLES)]) + "\n"

    def csv(self) -> str:
        """Give every figure at every seed, one line each."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = ("value", "low", "high", "n_users", "n_targets")
        writer.writerow(("table", "backbone", "row", "k", "seed", *names, "mean", "deviation"))
        for figure in self.figures:
            for seed, interval in figure.by_seed.items():
                values = [getattr(interval, name) for name in names]
                line = (figure.table, figure.backbone, figure.label, figure.k, seed, *values)
                writer.writerow((*line, figure.mean, figure.deviation))
        return text.getvalue()


def make_comparison(
    plan: Plan, source: str, hits: Mapping[tuple[str, int], Hits], *, seed: int, n_resamples: int
) -> Comparison:
    """
    Compute every figure from the hits of each (backbone, seed).

    ``seed`` and ``n_resamples`` are those of the bootstrap.
    """
    figures = []
    for backbone in plan.backbones:
        for table, label, row, other in _rows(plan.methods):
            for k in plan.ks:
                by_seed = {}
                for each in plan.seeds:
                    of_seed = hits[backbone, each]
                    if other:
                        by_seed[each] = difference(of_seed, row, other, k, seed=seed, n_resamples=n_resamples)
                    else:
                        by_seed[each] = rate(of_seed, row, k, seed=seed, n_resamples=n_resamples)
                name = f"{row} - {other}" if other else row
                figures.append(Figure(table, backbone, label, name, k, by_seed))
    order = list(TITLES)
    return Comparison(plan, source, tuple(sorted(figures, key=lambda figure: order.index(figure.table))))


def _rows(methods: tuple[str, ...]) -> Iterator[tuple[str, str, str, str | None]]:
    """Give table, label and row of ``models.comparison``; of a difference the other row too."""
    others = [method for method in methods if method != ONLINE]
    yield from (("table1", "Base", "base", None), ("table1", "Sup", "sup", None))
    if NA in others:
        yield "table1", f"Inc ({NA})", f"inc/{NA}", None
    yield "table1", "re-seeded base", "reseeded", None
    yield "table1", "Sup minus R_u", "sup_minus_r_u", None
    for method in others:
        if method not in (BOOST, ITG_ONLY):
            yield "table1", f"{method} minus R_u", f"inc_minus_r_u/{method}", None
    yield from (
        ("table2", ONLINE, "sup", None),
        ("table2", f"{ONLINE} minus R_u", "sup_minus_r_u", None),
    )
    for method in others:
        yield "table2", method, f"inc/{method}", None
        yield "table2", f"{method} minus R_u", f"inc_minus_r_u/{method}", None
    for method in others:
        if method not in (BOOST, ITG_ONLY):
            yield "table3", f"{method}: order hit", f"inc/{method}", None
            yield "table3", f"{method}: exposure hit", f"exposure/{method}", None
    yield from (("differences", *each) for each in _differences(others))


def _differences(others: list[str]) -> Iterator[tuple[str, str, str]]:
    yield "re-seeded base - Sup", "reseeded", "sup"
    for method in others:
        yield f"{method} - Sup", f"inc/{method}", "sup"
    if NA in others and BOOST in others:
        yield f"{NA} - {BOOST}", f"inc/{NA}", f"inc/{BOOST}"
    for method in others:
        yield f"{method} minus R_u - Sup minus R_u", f"inc_minus_r_u/{method}", "sup_minus_r_u"
    if FULL in others and NA in others:
        yield f"exposure hit: {FULL} - {NA}", f"exposure/{FULL}", f"exposure/{NA}"


def _rate_rows(figures: list[Figure], ks: tuple[int, ...]) -> tuple[list[str], list[list[str]]]:
    cells: dict[tuple[str, str], list[str]] = {}
    for figure in figures:
        cells.setdefault((figure.backbone, figure.label), []).append(_mean(figure))
    return ["backbone", "row", *(f"K = {k}" for k in ks)], [[*names, *row] for names, row in cells.items()]


def _difference_rows(figures: list[Figure], seeds: tuple[int, ...]) -> tuple[list[str], list[list[str]]]:
    head = ["backbone", "difference", "K", "mean", *(f"seed {seed}" for seed in seeds), "above zero"]
    rows = []
    for figure in figures:
        at_seeds = [_points(figure.by_seed[seed]) for seed in seeds]
        above = "at every seed" if figure.is_above_zero else ""
        rows.append([figure.backbone, figure.label, str(figure.k), _mean(figure, "+"), *at_seeds, above])
    return head, rows


def _mean(figure: Figure, sign: str = "") -> str:
    if math.isnan(figure.mean):
        return NOTHING
    deviation = "" if math.isnan(figure.deviation) else f" ± {100 * figure.deviation:.2f}"
    return f"{100 * figure.mean:{sign}.2f}{deviation}"


def _points(interval: Interval) -> str:
    if math.isnan(interval.value):
        return NOTHING
    return f"{100 * interval.value:+.2f} [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
