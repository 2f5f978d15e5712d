"""What the tables say of given hits, by hand."""

import csv
import io
from datetime import date

import numpy as np
import pytest

from models.comparison import Hits
from tasks.comparison import Comparison, make_comparison
from tasks.comparison_plan import VARIANTS, Plan, Unit

DAY = date(2026, 1, 5)
ROWS = ("base", "sup", "sup_minus_r_u", "reseeded")


def plan(methods: tuple[str, ...] = VARIANTS, seeds: tuple[int, ...] = (1, 2)) -> Plan:
    return Plan(date(2026, 1, 3), DAY, 1, methods, ("dssm",), seeds, (10,))


def hits(methods: tuple[str, ...], **by_row: int) -> Hits:
    """Four users with 25 targets of each kind; hits of each by row, 0 unless told."""
    names = [*ROWS, *(f"{kind}/{m}" for kind in ("inc", "inc_minus_r_u", "exposure") for m in methods)]
    told = {name.replace("__", "/").replace("_of_", "-"): n for name, n in by_row.items()}
    assert told.keys() <= set(names)
    n_targets = np.full(4, 25)
    return Hits(
        (10,), n_targets, n_targets.copy(), {name: np.full((4, 1), told.get(name, 0)) for name in names}
    )


def compared(first: Hits, second: Hits, methods: tuple[str, ...] = VARIANTS) -> Comparison:
    given = {("dssm", 1): first, ("dssm", 2): second}
    return make_comparison(plan(methods), "test", given, seed=1, n_resamples=100)


def lines_of(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines() if "|" in line]
    return {first: rest for first, *rest in cells}


def test_tables_show_the_mean_and_the_deviation_of_the_seeds_in_percent():
    first = hits(VARIANTS, base=5, sup=2, inc__IncRec_of_NA=4, inc_minus_r_u__IncRec=6)
    second = hits(VARIANTS, base=6, sup=2, inc__IncRec_of_NA=5, inc_minus_r_u__IncRec=6)
    found = lines_of(compared(first, second).table("table1"))
    assert found["Base"] == ["22.00 ± 2.83"]  # 20 and 24: sd = 4 / sqrt(2)
    assert found["Sup"] == ["8.00 ± 0.00"]
    assert found["Inc (IncRec-NA)"] == ["18.00 ± 2.83"]
    assert found["IncRec minus R_u"] == ["24.00 ± 0.00"]
    assert {"re-seeded base", "Sup minus R_u", "IncRec-NA minus R_u"} <= found.keys()


def test_tables_two_and_three_have_the_methods_of_the_paper():
    comparison = compared(hits(VARIANTS, exposure__IncRec=10), hits(VARIANTS, exposure__IncRec=10))
    second, third = (lines_of(comparison.table(name)) for name in ("table2", "table3"))
    assert [row for row in second if row in VARIANTS] == list(VARIANTS)
    assert {f"{method} minus R_u" for method in VARIANTS} <= second.keys()
    assert third["IncRec: exposure hit"] == ["40.00 ± 0.00"]
    aligned = ("IncRec-NA", "IncRec-ori", "IncRec")
    shown = [f"{method}: {what} hit" for method in aligned for what in ("order", "exposure")]
    assert [row for row in third if "hit" in row] == shown


def test_a_difference_is_above_zero_only_if_it_is_at_every_seed():
    methods = ("TB-Online", "TB-boost", "IncRec-NA", "IncRec")
    first = hits(methods, sup=2, inc__TB_of_boost=3, inc__IncRec_of_NA=5, exposure__IncRec=4)
    second = hits(methods, sup=2, inc__TB_of_boost=1, inc__IncRec_of_NA=5, exposure__IncRec=4)
    found = lines_of(compared(first, second, methods).table("differences"))
    assert found["IncRec-NA - Sup"][1:] == [
        "+12.00 ± 0.00",
        *["+12.00 [+12.00, +12.00]"] * 2,
        "at every seed",
    ]
    assert found["TB-boost - Sup"][2:] == ["+4.00 [+4.00, +4.00]", "-4.00 [-4.00, -4.00]", ""]
    assert found["IncRec-NA - TB-boost"][1] == "+12.00 ± 5.66"
    assert found["exposure hit: IncRec - IncRec-NA"][-1] == "at every seed"
    assert found["IncRec minus R_u - Sup minus R_u"][-1] == ""


def test_what_was_not_compared_is_not_shown():
    few = ("TB-Online", "TB-ITG")
    comparison = compared(hits(few), hits(few), few)
    assert "None of its methods was compared" in comparison.table("table3")
    assert not [row for row in lines_of(comparison.table("table1")) if "IncRec" in row]


def test_days_without_an_incremental_target_show_no_figure():
    nothing = np.zeros(4, int)
    empty = hits(VARIANTS)
    empty = Hits(empty.ks, nothing, empty.n_exposed, empty.by_row)
    comparison = compared(empty, empty)
    assert lines_of(comparison.table("table1"))["Base"] == ["-"]
    assert lines_of(comparison.table("differences"))["IncRec - Sup"][1:] == ["-", "-", "-", ""]
    assert "0 incremental targets of 0 users" in comparison.summary()


def test_csv_has_every_figure_at_every_seed():
    comparison = compared(hits(VARIANTS, base=5), hits(VARIANTS, base=6))
    rows = list(csv.DictReader(io.StringIO(comparison.csv())))
    assert len(rows) == 2 * len(comparison.figures)
    (one,) = [row for row in rows if (row["row"], row["seed"]) == ("Base", "2")]
    assert (one["table"], one["backbone"], one["k"], one["value"]) == ("table1", "dssm", "10", "0.24")
    assert (float(one["mean"]), one["n_users"], one["n_targets"]) == (pytest.approx(0.22), "4", "100")


def test_a_training_finds_its_own_figures():
    comparison = compared(hits(VARIANTS, inc__IncRec=5), hits(VARIANTS, inc__IncRec=6))
    found = {name: interval.value for name, k, interval in comparison.figures_of(Unit("IncRec", "dssm", 2))}
    assert found == {"inc": 0.24, "inc_minus_r_u": 0.0, "exposure": 0.0}
    own = {name for name, _, _ in comparison.figures_of(Unit("TB-Online", "dssm", 1))}
    assert own == {"base", "sup", "sup_minus_r_u"}
    assert not list(comparison.figures_of(Unit("TB-Online", "dssm", 3)))
