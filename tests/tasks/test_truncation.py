"""The truncation study: what it says of its figures, on the days of a small world, twice the same."""

from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lakehouse import tables
from lakehouse.store import Lakehouse, MissingPartition
from models.metrics import Interval, hit_rate, target_ranks
from models.truncation import BadTruncations
from tasks import truncation
from tasks.channels import read_catalogue, retrieve_channels
from tasks.evaluate import read_behaviour
from tasks.histories import build_histories
from tasks.ingest import ingest_logs
from tasks.samples import construct_samples
from tasks.settings import Settings
from tasks.study import Study, make_steps
from tasks.swing import rebuild_swing_index
from tasks.truncation import BadStudy, truncation_study

FIRST = date(2026, 1, 1)
DAY = FIRST + timedelta(days=2)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Three days of a small world, ready to be measured."""
    world = {"n_users": 300, "n_items": 200, "n_days": 4, "n_clusters": 6, "first_day": FIRST}
    settings = Settings(
        var=tmp_path_factory.mktemp("var"),
        source={"preset": "synthetic", "synthetic": world},
        swing={"truncation": 20},
        methods={"base": {"variant": "TB-Online"}},
        channels={"swing": 5},
    )
    for n in range(3):
        day = FIRST + timedelta(days=n)
        for step in (ingest_logs, build_histories, rebuild_swing_index, construct_samples):
            step(day, settings)
    return settings


def rate(value: float) -> Interval:
    return Interval(value, value, value, 10, 20)


def study(values: list[float], *, truncations: tuple[int, ...] = (1, 2, 3, 4)) -> Study:
    steps = make_steps(truncations, [rate(value) for value in values], [1.0, 2.0, 3.0, 4.0])
    return Study(DAY, DAY, "test", 100, steps)


def test_steps_tell_the_share_of_the_largest_and_the_gain_of_the_next() -> None:
    steps = study([0.2, 0.3, 0.399, 0.4]).steps
    assert [step.share_of_largest for step in steps] == pytest.approx([0.5, 0.75, 0.9975, 1.0])
    assert [step.gain for step in steps[:3]] == pytest.approx([0.5, 0.33, 1 / 399])
    assert steps[3].gain is None


def test_saturated_where_the_next_step_gains_less_than_half_a_percent() -> None:
    assert study([0.2, 0.3, 0.399, 0.4]).saturated_at == 3
    assert study([0.2, 0.3, 0.35, 0.4]).saturated_at is None
    assert "not enough to tell" in study([0.2, 0.3, 0.35, 0.4]).table()
    assert (
        "from T = 3 on a step gains less than 0.5%; it keeps 99.8%" in study([0.2, 0.3, 0.399, 0.4]).table()
    )


def test_hit_rates_of_zero_have_no_gain() -> None:
    of_none = study([0.0, 0.0, 0.0, 0.0])
    assert of_none.saturated_at is None
    assert all(step.gain is None and np.isnan(step.share_of_largest) for step in of_none.steps)


def test_study_agrees_with_what_the_evaluation_retrieves(settings: Settings) -> None:
    lakehouse = Lakehouse(settings.lakehouse_root)
    catalogue = read_catalogue(lakehouse, DAY - timedelta(days=1), settings)
    behaviour = read_behaviour(lakehouse, DAY, catalogue, settings)
    everything = len(catalogue.item_ids)
    lists = retrieve_channels(["swing"], {}, catalogue, behaviour.users, everything, settings)["swing"]
    ranks = target_ranks(lists, behaviour.targets)
    expected = hit_rate(
        ranks,
        behaviour.targets,
        everything,
        seed=settings.evaluation.seed,
        n_resamples=settings.evaluation.n_bootstrap,
    )
    has_target = np.diff(behaviour.targets.offsets.to_numpy()) > 0
    (at_settings,) = (
        step for step in truncation_study(DAY, DAY, settings, (5, 20, 60)).steps if step.truncation == 20
    )
    assert at_settings.hit_rate == expected
    assert at_settings.mean_candidates == (lists >= 0).sum(axis=1)[has_target].mean()
    assert 0 < expected.value < 1


def test_study_twice_is_the_same_and_writes_no_table(settings: Settings) -> None:
    lakehouse = Lakehouse(settings.lakehouse_root)
    before = {table.name: lakehouse.partitions(table) for table in tables.TABLES.values()}
    one, other = (truncation_study(DAY - timedelta(days=1), DAY, settings, (5, 20, 60)) for _ in range(2))
    assert one == other
    assert one.table() == other.table()
    assert {table.name: lakehouse.partitions(table) for table in tables.TABLES.values()} == before


def test_more_targets_reach_more(settings: Settings) -> None:
    steps = truncation_study(DAY, DAY, settings).steps
    for one, next_one in pairwise(steps):
        assert one.hit_rate.value <= next_one.hit_rate.value
        assert one.mean_candidates <= next_one.mean_candidates


def test_day_without_partitions_is_named(settings: Settings) -> None:
    with pytest.raises(MissingPartition, match="target_group for 2026-01-04"):
        truncation_study(DAY, DAY + timedelta(days=1), settings)
    with pytest.raises(BadTruncations, match="twice"):
        truncation_study(DAY, DAY, settings, (5, 5))
    with pytest.raises(BadStudy, match="the first must not be after the last"):
        truncation_study(DAY, FIRST, settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the days: DAY="),
        (["--day", "2026-01-03", "--from", "2026-01-02"], "name the days: DAY="),
        (["--from", "2026-01-02"], "name the days: DAY="),
        (["--day", "03.01.2026"], "a day is written YYYY-MM-DD"),
        (["--day", "2026-01-03", "--truncations", "a,b"], "T=a,b is no list of whole numbers"),
        (
            ["--day", "2026-01-03", "--truncations", "0,5"],
            "at least 1 and below 2^31, got 0, 5",
        ),
        (["--day", "2026-01-03", "--truncations", "9,5"], "the T must ascend, but 5 comes after 9"),
        (["--day", "2026-03-03"], "no committed partition of target_group for 2026-03-03"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    message: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(truncation, "load_settings", lambda: settings)
    assert truncation.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make truncation-study: ")
    assert message in line


def test_command_keeps_table_and_figure_and_logs_them_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(truncation, "load_settings", lambda: settings)
    folder = settings.var / "truncation" / f"{DAY}-T5_20_60"

    def run() -> tuple[str, dict[str, bytes]]:
        assert truncation.main(["--day", str(DAY), "--truncations", "5,20,60"]) == 0
        kept = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
        return capsys.readouterr().out, kept

    first, kept = run()
    again, kept_again = run()
    assert "| 20 |" in first
    assert set(kept) == {"study.md", "study.json", "study.png"}
    assert kept == kept_again
    assert again.rstrip() == f"{first.rstrip()} (as before)"
