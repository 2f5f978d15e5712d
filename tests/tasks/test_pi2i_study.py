"""The study of PI2I: figures as in the evaluation, files that say the same, mistakes in one line."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.metrics import Interval
from models.pi2i.firing import Decay
from tasks import pi2i_study_command
from tasks.evaluate import evaluate
from tasks.pi2i_figure import study_figure
from tasks.pi2i_results import PI2IStudy, Row, UserFirings
from tasks.pi2i_study import FULL, SWING, Plan, pi2i_study, variant_config
from tasks.pi2i_study_command import study_folder
from tasks.settings import Settings
from tasks.tracking import log_pi2i_study
from tasks.train import train
from tests.tasks.small_worlds import DAYS, prepare, world_settings

DAY = DAYS[-1]
PI2I = {"epochs": 1, "dim": 8, "hidden_dim": 8, "n_author_buckets": 64, "n_profile_buckets": 64}
PLAN = Plan(DAY, DAY, (0,), ("no_trigger", "hard_only"), (5, 40))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A world whose last day is trained and evaluated."""
    base = {"base": {"variant": "TB-Online", "epochs": 1, "dim": 8}}
    settings = world_settings(
        tmp_path_factory.mktemp("var"), pi2i=PI2I, swing={"truncation": 40}, methods=base
    )
    prepare(settings)
    for method in settings.trained_methods:
        train(DAY, method, settings)
    evaluate(DAY, settings)
    return settings


@pytest.fixture(scope="module")
def study(settings: Settings) -> PI2IStudy:
    return pi2i_study(PLAN, settings)


def measured(settings: Settings, method: str) -> dict[tuple[str, int], tuple]:
    rows = Lakehouse(settings.lakehouse_root).read(tables.METRIC, DAY, part="evaluate").to_pylist()
    return {
        (row["metric"], row["k"]): (row["value"], row["low"], row["high"])
        for row in rows
        if row["method"] == method and row["cohort"] == "all"
    }


def values(found: Interval) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def test_the_full_model_and_swing_are_those_of_the_evaluation(settings: Settings, study: PI2IStudy) -> None:
    by_name = {row.name: row for row in study.rows}
    assert list(by_name) == [FULL, "no_trigger", "hard_only", "base", SWING]
    for name, method in ((FULL, "pi2i"), (SWING, "swing")):
        expected = measured(settings, method)
        assert {k: values(found) for k, found in by_name[name].hit_rates.items()} == {
            k: expected["hit_rate", k] for k in settings.evaluation.ks
        }
    for k in settings.evaluation.ks:
        lead = by_name[SWING].full_leads[k].value
        assert lead == pytest.approx(by_name[FULL].hit_rates[k].value - by_name[SWING].hit_rates[k].value)
    assert by_name[FULL].full_leads == {}


def test_the_largest_truncation_is_the_full_model_and_less_reaches_less(
    settings: Settings, study: PI2IStudy
) -> None:
    small, large = study.cuts
    assert large.hit_rates == study.rows[0].hit_rates
    assert large.mean_candidates == measured(settings, "pi2i")["mean_candidates", 0][0]
    assert values(large.candidate_recall) == measured(settings, "pi2i")["candidate_recall", 0]
    assert small.mean_candidates < large.mean_candidates
    assert small.candidate_recall.value < large.candidate_recall.value
    assert small.hit_rates[40].value <= small.candidate_recall.value


def test_every_reached_click_has_one_firing_trigger(study: PI2IStudy) -> None:
    n_reached = round(study.cuts[-1].candidate_recall.n_targets)
    assert 0 < study.decay.n_fired.sum() <= n_reached
    assert study.decay.n_targets[0] == study.decay.n_fired.sum()
    assert (study.decay.n_fired <= study.decay.n_reached).all()
    assert len(study.users) == 3
    assert all(user.n_fired.sum() > 0 for user in study.users)


def test_several_seeds_have_rows_of_their_mean(settings: Settings) -> None:
    rows = pi2i_study(Plan(DAY, DAY, (0, 1), (), (40,), ()), settings).rows
    assert [(row.name, row.seed) for row in rows] == [(n, s) for s in (0, 1, None) for n in (FULL, SWING)]
    leads = [row.full_leads[40] for row in rows if row.name == SWING]
    assert leads[2].value == pytest.approx((leads[0].value + leads[1].value) / 2)
    assert leads[0].value != leads[1].value
    assert leads[2].n_users == leads[0].n_users


def test_a_variant_changes_one_thing(settings: Settings) -> None:
    changed = variant_config(settings.pi2i, "self_attention", 3)
    assert changed == settings.pi2i.model_copy(update={"attention": "self", "seed": 3})


def test_tables_show_what_was_measured() -> None:
    def interval(value: float) -> Interval:
        return Interval(value, value - 0.01, value + 0.01, 7, 9)

    decay = Decay(np.array([10, 8, 4]), np.array([9, 8, 4]), np.array([6, 2, 1]))
    full = Row(FULL, 1, {50: interval(0.5)}, {})
    swing = Row(SWING, 1, {50: interval(0.4)}, {50: interval(0.1)})
    user = UserFirings(3, np.array([3, 0, 1]))
    mean = Row(SWING, None, {50: interval(0.45)}, {50: interval(0.2)})
    shown = PI2IStudy(DAY, DAY, "world", 99, (50,), (full, swing, mean), (), decay, (user,)).markdown()
    assert "7 users and 9 targets of world, 2026-01-05; learned from 99 clicks" in shown
    assert "| swing | 1 | 0.4000 [0.3900, 0.4100]<br>+0.1000 [+0.0900, +0.1100] |" in shown
    assert "| swing | mean | 0.4500 [0.4400, 0.4600]<br>+0.2000 [+0.1900, +0.2100] |" in shown
    assert "| 1 | 10 | 0.6000 | 1.00 |" in shown
    assert "| 2 | 8 | 0.2500 | 2.40 |" in shown
    assert "| 3 | 4 | 1 | 1 | 1 |" in shown


def test_the_command_keeps_the_same_figures_logs_them_once_and_writes_no_table(
    settings: Settings, study: PI2IStudy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(pi2i_study_command, "load_settings", lambda: settings)
    lakehouse = Lakehouse(settings.lakehouse_root)
    before = {table.name: lakehouse.partitions(table) for table in tables.TABLES.values()}
    arguments = ["--day", str(DAY), "--variants", "no_trigger,hard_only", "--truncations", "5,40"]
    assert pi2i_study_command.main(arguments) == 0
    out = capsys.readouterr().out
    assert "hard_only, seed 0: " in out
    assert study.markdown() in out
    folder = study_folder(PLAN, settings)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(kept) == {"study.md", "study.csv", "study.png"}
    assert kept["study.csv"].decode() == study.csv()
    assert {table.name: lakehouse.partitions(table) for table in tables.TABLES.values()} == before
    rows = list(csv.DictReader(kept["study.csv"].decode().splitlines()))
    assert {row["part"] for row in rows} == {"hit_rate", "full_leads", "truncation", "fires", "user_fires"}
    again = log_pi2i_study(study, study_figure(study), settings)
    assert not again.is_new
    assert again.address in out


def test_studies_that_differ_in_anything_keep_files_of_their_own(settings: Settings) -> None:
    folder = study_folder(PLAN, settings)
    assert folder.parent == settings.var / "pi2i_study"
    assert folder.name.startswith(f"{DAY}-")
    others = [
        {"first": DAYS[-2]},
        {"seeds": (0, 1)},
        {"variants": ("no_trigger",)},
        {"truncations": (40,)},
        {"towers": ()},
    ]
    plans = [PLAN, *(replace(PLAN, **changes) for changes in others)]
    wider = settings.model_copy(update={"pi2i": settings.pi2i.model_copy(update={"dim": 16})})
    longer = settings.model_copy(update={"window_days": settings.window_days + 1})
    folders = {study_folder(plan, settings) for plan in plans}
    assert len(folders | {study_folder(PLAN, wider), study_folder(PLAN, longer)}) == 8
    assert study_folder(replace(PLAN, variants=PLAN.variants[::-1]), settings) == folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the days: DAY="),
        (["--day", "05.01.2026"], "a day is written YYYY-MM-DD"),
        (["--from", "2026-01-05", "--to", "2026-01-04"], "the first must not be after the last"),
        (["--day", "2026-03-03"], "no committed partition of target_group for 2026-03-03"),
        (["--day", "2026-01-01"], "before 2026-01-01 there is nothing to learn from: begin later"),
        (["--day", "2026-01-05", "--variants", "tiny"], "unknown variant tiny; known: full, self_attention"),
        (["--day", "2026-01-05", "--towers", "tall"], "unknown tower tall; the settings have base"),
        (["--day", "2026-01-05", "--seeds", "a"], "SEEDS=a is no list of whole numbers"),
        (["--day", "2026-01-05", "--seeds", "1,-1"], "seed -1 is not from 0 to 2**32 - 1: choose another"),
        (["--day", "2026-01-05", "--truncations", "9,41"], "T = 41 is not from 1 to the i2i table's own, 40"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str],
    message: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(pi2i_study_command, "load_settings", lambda: settings)
    assert pi2i_study_command.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make pi2i-study: ")
    assert message in line


def test_where_pi2i_is_off_it_says_so(settings: Settings, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        pi2i_study_command, "load_settings", lambda: settings.model_copy(update={"pi2i": None})
    )
    assert pi2i_study_command.main(["--day", str(DAY)]) == 1
    assert "PI2I is off: add the section [pi2i]" in capsys.readouterr().err
