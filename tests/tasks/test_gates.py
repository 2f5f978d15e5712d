"""Gates: every kind, every status, and what a mistake in gates.toml says."""

import json
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse.store import Lakehouse, MissingPartition
from lakehouse.tables import CHECKPOINT, CLICK, EXPOSURE, GATE, METRIC
from tasks.gates import BadGates, Result, check_gates, decide, load_gates
from tasks.settings import REPOSITORY, Settings

DAY = date(2026, 1, 5)


def figure(method, metric, k, value, *, low=None, n_users=1000):
    return {
        "method": method,
        "metric": metric,
        "k": k,
        "cohort": "all",
        "value": value,
        "low": low,
        "high": None if low is None else value + (value - low),
        "n_users": n_users,
        "n_targets": n_users,
    }


GOOD = [
    figure("popularity", "hit_rate", 100, 0.2),
    figure("base", "hit_rate", 100, 0.3),
    figure("merged", "hit_rate", 200, 0.4),
    figure("merged", "relative_to_champion", 200, 0.01, low=-0.02),
]
GATES = """
[towers]
kind = "ratio"
method = "base"
against = "popularity"
k = 100
floor = 1.2
[champion]
kind = "champion"
method = "merged"
k = 200
margin = 0.05
min_users = 200
[recall]
kind = "release"
figure = "index_recall"
floor = 0.95
[losses]
kind = "finite_losses"
[volume]
kind = "volume"
table = "click"
floor = 0.5
"""
CHAMPION = {"status": "compared", "version": "3", "day": "2026-01-04"}


class World:
    """A lakehouse with one evaluated day, and the gates file beside it."""

    def __init__(self, folder: Path):
        gates_file = folder / "gates.toml"
        gates_file.write_text(GATES)
        self.settings = Settings(
            var=folder,
            gates_file=gates_file,
            methods={"base": {"variant": "TB-Online"}},
            channels={"base": 200},
        )
        self.lakehouse = Lakehouse(self.settings.lakehouse_root)

    def day(self, metrics=GOOD, champion=None, loss=1.0, n_clicks=10, recall=1.0, status="evaluated"):
        meta = {"status": status, "champion": json.dumps(champion or {"status": "none"})}
        self._write(METRIC, metrics, part="evaluate", meta=meta)
        self._write(METRIC, [figure("release", "index_recall", 0, recall)], part="build_release")
        report = json.dumps({"epoch_losses": {"total": [2.0, loss]}}).encode()
        self._write(CHECKPOINT, [{"name": "report.json", "content": report}], part="base")
        for n in range(4):
            day = DAY - timedelta(days=n)
            meta = {"source_first_day": "2026-01-02"}
            self.lakehouse.replace(EXPOSURE, day, EXPOSURE.schema.empty_table(), meta=meta)
            clicks = self._clicks(n_clicks if n == 0 else 10, day)
            self.lakehouse.replace(CLICK, day, clicks)
        return self

    def verdict(self):
        verdict = check_gates(DAY, self.settings)
        stored = self.lakehouse.read(GATE, DAY).to_pylist()
        assert {row["gate"]: row["status"] for row in stored} == {
            name: result.status for name, result in verdict.results.items()
        }
        return verdict

    def _write(self, table, rows, **options):
        self.lakehouse.replace(table, DAY, pa.Table.from_pylist(rows, table.schema), **options)

    @staticmethod
    def _clicks(n, day):
        noon = datetime.combine(day, time(12))
        rows = [{"user_id": u, "item_id": 1, "scenario": "home", "event_time": noon} for u in range(n)]
        return pa.Table.from_pylist(rows, CLICK.schema)


@pytest.fixture
def world(tmp_path):
    """An empty world."""
    return World(tmp_path)


def test_the_committed_gates_are_valid():
    assert "merged_against_champion" in load_gates(REPOSITORY / "mlflow" / "gates.toml")


def test_without_a_champion_the_floors_alone_decide(world):
    verdict = world.day().verdict()
    assert verdict.verdict == "passed"
    assert verdict.results["towers"].figure == pytest.approx(1.5)
    assert "no champion yet" in verdict.results["champion"].detail


def test_challenger_within_the_margin_of_the_champion_passes(world):
    verdict = world.day(champion=CHAMPION).verdict()
    assert verdict.verdict == "passed"
    assert verdict.results["champion"].figure == pytest.approx(-0.02)
    assert verdict.results["champion"].floor == pytest.approx(-0.05)


def test_challenger_whose_interval_reaches_below_the_margin_fails(world):
    worse = [*GOOD[:3], figure("merged", "relative_to_champion", 200, 0.01, low=-0.06)]
    assert world.day(worse, champion=CHAMPION).verdict().verdict == "failed"


def test_too_few_users_cannot_be_decided(world):
    few = [*GOOD[:3], figure("merged", "relative_to_champion", 200, 0.01, low=-0.02, n_users=199)]
    assert world.day(few, champion=CHAMPION).verdict().verdict == "not decidable"


def test_a_champion_with_shorter_lists_cannot_be_decided(world):
    verdict = world.day(GOOD[:3], champion=CHAMPION).verdict()
    assert verdict.verdict == "not decidable"
    assert "no such list of 200" in verdict.results["champion"].detail


def test_a_gate_on_an_unknown_k_names_those_there_are(world):
    world.day([GOOD[0], figure("base", "hit_rate", 50, 0.2)])
    with pytest.raises(BadGates, match=r"hit_rate@100 of base.*it has K = 50"):
        check_gates(DAY, world.settings)


def test_champion_of_the_day_or_later_is_no_comparison(world):
    verdict = world.day(champion={"status": "no comparison", "version": "9", "day": "2026-01-05"}).verdict()
    assert verdict.verdict == "no comparison"


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"metrics": [GOOD[0], figure("base", "hit_rate", 100, 0.23), GOOD[2]]}, "towers"),
        ({"recall": 0.94}, "recall"),
        ({"loss": float("nan")}, "losses"),
        ({"n_clicks": 4}, "volume"),
    ],
)
def test_a_figure_below_its_floor_fails(world, change, gate):
    verdict = world.day(**change).verdict()
    assert verdict.verdict == "failed"
    assert [name for name, result in verdict.results.items() if result.status == "failed"] == [gate]


def test_a_ratio_to_nothing_is_not_decidable(world):
    none = [figure("popularity", "hit_rate", 100, 0.0), *GOOD[1:]]
    assert world.day(none).verdict().results["towers"].status == "not decidable"


def test_a_warming_up_day_has_no_gates(world):
    verdict = world.day([], status="warming up").verdict()
    assert (verdict.verdict, verdict.results) == ("warming up", {})


def test_failed_outweighs_the_other_verdicts():
    results = {s: Result(s, None, None, "") for s in ("passed", "failed", "no comparison", "not decidable")}
    assert decide(results).verdict == "failed"
    del results["failed"]
    assert decide(results).verdict == "no comparison"


def test_a_gate_on_an_unknown_method_names_those_there_are(world):
    world.day([GOOD[0]])
    with pytest.raises(BadGates, match=r"hit_rate@100 of base.*methods: popularity, release"):
        check_gates(DAY, world.settings)
    assert world.lakehouse.commit(GATE, DAY) is None


def test_a_day_that_was_not_evaluated_is_named(world):
    with pytest.raises(MissingPartition, match="2026-01-05"):
        check_gates(DAY, world.settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[x]\nkind = "vibes"\n', "x.*vibes"),
        ('[x]\nkind = "release"\nfigure = "a"\nfloor = 1\nroof = 2\n', "roof"),
        ('[x]\nkind = "champion"\nmethod = "m"\nk = 5\nmargin = -1\n', "margin"),
        ("[x\n", "cannot read the gates file"),
        ("", "has no gates"),
    ],
)
def test_a_mistake_in_the_gates_file_is_named(tmp_path, text, message):
    path = tmp_path / "gates.toml"
    path.write_text(text)
    with pytest.raises(BadGates, match=message):
        load_gates(path)


def test_a_volume_gate_on_an_unknown_table_names_those_there_are(world):
    world.settings.gates_file.write_text('[x]\nkind = "volume"\ntable = "clicks"\nfloor = 1\n')
    world.day()
    with pytest.raises(BadGates, match="no table 'clicks'; known: exposure"):
        check_gates(DAY, world.settings)
