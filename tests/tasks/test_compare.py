"""A comparison on a small world: what it measures and keeps, and that a kill loses one training at most."""

import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.increc import backbones
from tasks import compare_command, tracking
from tasks.compare import conclude, measure_group, read_hits, train_unit, training_digest
from tasks.compare_kept import code_of
from tasks.comparison_plan import VARIANTS, BadComparison, Plan, Unit, make_plan
from tasks.evaluate import evaluate
from tasks.settings import Settings
from tasks.train import train
from tests.conftest import REPOSITORY
from tests.tasks.small_worlds import DAYS, prepare, world_settings


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Five days of a small world, ready to be compared on."""
    settings = world_settings(tmp_path_factory.mktemp("var"))
    prepare(settings)
    return settings


def beside(settings: Settings, var: Path, **changes: object) -> Settings:
    """Settings with the same tables and MLflow, and a state folder of their own."""
    shared = {"lakehouse_root": settings.lakehouse_root, "tracking_uri": settings.tracking_uri}
    return world_settings(var, **shared | changes)


def copied(settings: Settings, var: Path) -> Settings:
    """Settings with tables of their own, equal to those given, and the same MLflow."""
    shutil.copytree(settings.lakehouse_root, var / "lakehouse")
    return world_settings(var, tracking_uri=settings.tracking_uri)


def run_all(plan: Plan, settings: Settings) -> list[bool]:
    """Train and measure; tell of each training whether it was done now."""
    done = [train_unit(unit, plan, settings).is_new for unit in plan.units]
    for backbone in plan.backbones:
        for seed in plan.seeds:
            measure_group(backbone, seed, plan, settings)
    return done


def test_figures_are_those_of_the_daily_evaluation_of_the_same_models(prepared, tmp_path):
    settings = copied(prepared, tmp_path)
    day, backbone = DAYS[-1], settings.methods["base"].backbone
    for method in settings.methods:
        train(day, method, settings)
    evaluate(day, settings)
    daily = Lakehouse(settings.lakehouse_root).read(tables.METRIC, day, part="evaluate").to_pylist()

    plan = make_plan(settings, methods=["IncRec"], backbones=[backbone], seeds=[1, 2])
    run_all(plan, settings)
    found = {
        (figure.row, figure.k): figure.by_seed[1] for figure in conclude(plan, settings).comparison.figures
    }
    pairs = {
        ("base", "base"): "base",
        ("base", "sup"): "sup",
        ("base", "sup_minus_r_u"): "sup_minus_r_u",
        ("base_reseeded", "inc"): "reseeded",
        ("increc", "inc"): "inc/IncRec",
        ("increc", "inc_minus_r_u"): "inc_minus_r_u/IncRec",
        ("increc", "inc_exposure_hit"): "exposure/IncRec",
        ("increc", "inc_minus_sup"): "inc/IncRec - sup",
        ("increc", "filtered_inc_minus_sup"): "inc_minus_r_u/IncRec - sup_minus_r_u",
    }
    checked = 0
    for row in daily:
        name = pairs.get((row["method"], row["metric"]))
        if name:
            interval = found[name, row["k"]]
            for column in ("value", "low", "high", "n_users", "n_targets"):
                assert getattr(interval, column) == pytest.approx(row[column], abs=1e-12), (name, row["k"])
            checked += 1
    assert checked == len(pairs) * len(plan.ks)


def test_several_days_count_each_day_and_user(prepared, tmp_path):
    settings = beside(prepared, tmp_path)
    asked = {"methods": ["IncRec"], "backbones": ["dssm"], "seeds": [1]}
    both = make_plan(settings, first_day=DAYS[0], last_day=DAYS[4], n_evaluated=2, **asked)
    one = make_plan(settings, first_day=DAYS[0], last_day=DAYS[3], n_evaluated=1, **asked)
    assert run_all(both, settings) == [True] * 3
    assert run_all(one, settings) == [False] * 3  # the same training days: nothing is trained again
    together, first = (
        read_hits(measure_group("dssm", 1, plan, settings)[0], plan.ks) for plan in (both, one)
    )
    n_first = len(first.n_itg)
    assert len(together.n_itg) > n_first
    assert (together.n_itg[:n_first] == first.n_itg).all()
    for row, hits in first.by_row.items():
        assert (together.by_row[row][:n_first] == hits).all()
        assert (hits <= first.targets_of(row)[:, None]).all()


def test_every_method_over_every_backbone_is_measured(prepared, tmp_path):
    settings = beside(prepared, tmp_path)
    plan = make_plan(settings, seeds=[1])
    run_all(plan, settings)
    kept = conclude(plan, settings)
    text = (kept.folder / "comparison.md").read_text()
    assert {path.name for path in kept.folder.iterdir()} == {
        "comparison.md",
        "comparison.csv",
        "comparison.png",
    }
    for backbone in backbones.names():
        for method in VARIANTS:
            assert f"| {backbone} | {method} |" in text
    assert all(np.isfinite(figure.mean) for figure in kept.comparison.figures)


def test_what_is_kept_is_not_trained_again_and_other_inputs_are(prepared, tmp_path, monkeypatch):
    settings = copied(prepared, tmp_path)
    asked = {"methods": ["TB-ITG"], "backbones": ["dssm"], "seeds": [1, 2]}
    plan = make_plan(settings, **asked)
    assert run_all(plan, settings) == [True] * 4
    assert run_all(plan, settings) == [False] * 4
    first, again = (conclude(plan, settings) for _ in range(2))
    assert (first.is_new, again.is_new) == (True, False)
    assert first.comparison == again.comparison

    further = make_plan(settings, **asked | {"seeds": [1, 2, 3]})
    assert run_all(further, settings) == [False] * 4 + [True] * 2
    methods = {name: config.model_copy(update={"epochs": 2}) for name, config in settings.methods.items()}
    other = settings.model_copy(update={"methods": methods})
    assert run_all(plan, other) == [True] * 4

    # Other libraries, other code, other SQL: what depends on them.
    with monkeypatch.context() as patch:
        patch.setattr("tasks.compare.versions", lambda: {"torch": "0.1"})
        assert training_digest(Lakehouse(settings.lakehouse_root), plan.units[0], plan, settings) not in {
            path.name for path in (settings.var / "compare" / "models").iterdir()
        }
    with monkeypatch.context() as patch:
        patch.setattr("tasks.compare.code_of", lambda place: "other" if place == "sql" else code_of(place))
        assert measure_group("dssm", 1, plan, settings)[1]

    # Other behaviour on the measured day: the trainings never saw it, the counts are made anew.
    lakehouse = Lakehouse(settings.lakehouse_root)
    clicks = lakehouse.read(tables.CLICK, DAYS[-1])
    lakehouse.replace(tables.CLICK, DAYS[-1], clicks.slice(0, clicks.num_rows // 2))
    assert run_all(plan, settings) == [False] * 4
    assert measure_group("dssm", 1, plan, settings)[0] != measure_group("dssm", 1, plan, other)[0]
    # Another sample table of a training day: all of them again.
    samples = lakehouse.read(tables.INCREC_SAMPLE, DAYS[2])
    lakehouse.replace(tables.INCREC_SAMPLE, DAYS[2], samples.slice(1))
    with pytest.raises(
        BadComparison, match="TB-Online over dssm, seed 1 is not trained on the tables as they are"
    ):
        measure_group("dssm", 1, plan, settings)
    with pytest.raises(BadComparison, match="measure every backbone and seed first"):
        conclude(plan, settings)
    assert run_all(plan, settings) == [True] * 4


def test_what_is_damaged_is_named_and_made_anew_once_it_is_deleted(prepared, tmp_path):
    settings = beside(prepared, tmp_path)
    plan = make_plan(settings, methods=["TB-Online"], backbones=["dssm"], seeds=[1])
    run_all(plan, settings)
    hits, _ = measure_group("dssm", 1, plan, settings)
    folder = train_unit(plan.units[0], plan, settings).folder
    whole = conclude(plan, settings).comparison

    (folder / "report.json").write_text("{")
    with pytest.raises(BadComparison, match=f"the training in {folder} is damaged .*: delete it and run"):
        conclude(plan, settings)
    hits.write_bytes(hits.read_bytes()[:100])
    with pytest.raises(BadComparison, match=f"{hits} is damaged .*: delete it and run"):
        conclude(plan, settings)
    hits.unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BadComparison, match=f"the training in {folder} is damaged .*: delete it and run"):
        measure_group("dssm", 1, plan, settings)
    shutil.rmtree(folder)
    assert run_all(plan, settings) == [True, False]
    assert conclude(plan, settings).comparison == whole


def without_itg(prepared: Settings, var: Path, *days) -> Settings:
    """A copy of the tables in which no target of the days is incremental."""
    settings = copied(prepared, var)
    lakehouse = Lakehouse(settings.lakehouse_root)
    for day in days:
        for table in (tables.TARGET_GROUP, tables.INCREC_SAMPLE):
            rows = lakehouse.read(table, day)
            empty = pc.list_slice(rows["itg_item_ids"], 0, 0)
            place = rows.schema.get_field_index("itg_item_ids")
            rows = rows.set_column(place, table.schema.field("itg_item_ids"), empty.cast(tables.IDS))
            lakehouse.replace(table, day, rows)
    return settings


def test_a_measured_day_without_an_incremental_target_has_no_figure_and_the_other_day_counts(
    prepared, tmp_path
):
    settings = without_itg(prepared, tmp_path, DAYS[4])
    asked = {"methods": ["IncRec"], "backbones": ["dssm"], "seeds": [1]}
    alone = make_plan(settings, first_day=DAYS[0], last_day=DAYS[4], **asked)
    run_all(alone, settings)
    comparison = conclude(alone, settings).comparison
    (base,) = [f for f in comparison.figures if (f.row, f.k, f.table) == ("base", 10, "table1")]
    assert np.isnan(base.mean)
    assert "0 incremental targets of 0 users" in comparison.summary()
    both = make_plan(settings, first_day=DAYS[0], last_day=DAYS[4], n_evaluated=2, **asked)
    run_all(both, settings)
    figures = conclude(both, settings).comparison.figures
    assert all(np.isfinite(figure.mean) for figure in figures)


def test_a_training_day_without_an_incremental_target_is_learned_from_and_a_window_of_them_refused(
    prepared, tmp_path
):
    settings = without_itg(prepared, tmp_path, DAYS[1], DAYS[2])
    plan = make_plan(settings, n_days=4, methods=["TB-ITG", "IncRec"], backbones=["dssm"], seeds=[1])
    assert plan.training_days == DAYS[1:4]
    assert run_all(plan, settings) == [True] * 4
    none = make_plan(settings, first_day=DAYS[1], last_day=DAYS[3], backbones=["dssm"], seeds=[1])
    for method in VARIANTS:
        if method in ("TB-Online", "TB-boost"):
            assert train_unit(Unit(method, "dssm", 1), none, settings).is_new
        else:
            with pytest.raises(ValueError, match="has nothing to learn from"):
                train_unit(Unit(method, "dssm", 1), none, settings)


def test_mlflow_holds_one_parent_with_a_run_for_each_training(prepared, tmp_path):
    settings = beside(prepared, tmp_path)
    plan = make_plan(settings, methods=["IncRec"], backbones=["dssm"], seeds=[1, 2])
    run_all(plan, settings)
    run_id = conclude(plan, settings).address.rpartition("/")[2]
    with tracking.connection.connected(settings) as client:
        experiment = client.get_experiment_by_name("compare_methods")
        runs = client.search_runs([experiment.experiment_id])
        of_this = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == run_id]
        children = {run.info.run_name: run for run in of_this}
        assert set(children) == {str(unit) for unit in plan.units}
        assert len(children) == len(of_this)
        one = children["IncRec over dssm, seed 2"]
        history = client.get_metric_history(one.info.run_id, "inc")
        assert [metric.step for metric in sorted(history, key=lambda metric: metric.step)] == list(plan.ks)
        assert {"inc_minus_r_u", "exposure", "loss/incremental"} <= one.data.metrics.keys()
        artifacts = {artifact.path for artifact in client.list_artifacts(run_id)}
    assert artifacts == {"comparison.md", "comparison.csv", "comparison.png"}


COMMAND = """
import sys
from pathlib import Path
from tasks import compare_command
from tests.tasks.small_worlds import world_settings
if __name__ == "__main__":
    settings = world_settings(Path(sys.argv[1]), lakehouse_root=sys.argv[2], n_threads=2)
    compare_command.load_settings = lambda: settings
    sys.exit(compare_command.main(sys.argv[3:]))
"""
ASKED = ["--methods", "TB-boost,IncRec", "--seeds", "1,2", "--backbones", "dssm", "--k", "10"]


def kept_files(settings: Settings) -> dict[str, bytes]:
    """The files of the one comparison of a state folder."""
    (folder,) = (settings.var / "compare").glob("2026*")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def children_of(pid: int) -> list[int]:
    """The processes that a process started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in tasks for child in path.read_text().split()]


def test_a_killed_comparison_goes_on_and_ends_in_the_same_bytes(prepared, tmp_path, monkeypatch, capsys):
    killed, whole = (beside(prepared, tmp_path / name) for name in ("killed", "whole"))
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(killed.var), killed.lakehouse_root, *ASKED], cwd=REPOSITORY
    )
    models = killed.var / "compare" / "models"
    deadline = time.monotonic() + 300
    while not any(models.glob("[0-9a-f]*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    workers = children_of(process.pid)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    n_kept = len(list(models.glob("[0-9a-f]*")))
    assert 1 <= n_kept < 6

    monkeypatch.setattr(compare_command, "load_settings", lambda: killed)
    assert compare_command.main(ASKED) == 0
    assert capsys.readouterr().out.count("    kept  ") == n_kept
    monkeypatch.setattr(compare_command, "load_settings", lambda: whole)
    assert compare_command.main(ASKED) == 0
    output = capsys.readouterr().out
    assert "    kept  " not in output
    assert "### Table 3" in output
    assert kept_files(killed) == kept_files(whole)
    assert kept_files(whole).keys() == {"comparison.md", "comparison.csv", "comparison.png"}


@pytest.mark.parametrize("n_started", [1, 2])
def test_a_killed_training_process_is_told_in_one_line(prepared, tmp_path, monkeypatch, capsys, n_started):
    settings = beside(prepared, tmp_path, n_threads=2)
    monkeypatch.setattr(compare_command, "load_settings", lambda: settings)

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while len(multiprocessing.active_children()) < n_started and time.monotonic() < deadline:
            time.sleep(0.001)
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    assert compare_command.main(ASKED) == 1
    killer.join()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make compare: a training process was killed")
    assert "TRIBUTARY_N_THREADS=1" in line


def test_the_command_passes_on_what_is_typed(prepared, tmp_path, monkeypatch):
    settings = beside(prepared, tmp_path)
    monkeypatch.setattr(compare_command, "load_settings", lambda: settings)
    asked = []
    monkeypatch.setattr(compare_command, "compare", lambda plan, _: asked.append(plan))
    typed = ["--from", "2026-01-02", "--to", "2026-01-05", "--methods", "IncRec, TB-ITG", "--seeds", "7,8"]
    assert compare_command.main([*typed, "--k", "5,20", "--backbones", "dssm", "--evaluated", "2"]) == 0
    assert asked[0].to_json() == {
        "first_day": "2026-01-02",
        "last_day": "2026-01-05",
        "n_evaluated": 2,
        "methods": ["TB-Online", "IncRec", "TB-ITG"],
        "backbones": ["dssm"],
        "seeds": [7, 8],
        "ks": [5, 20],
    }
    json.dumps(asked[0].to_json())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "yesterday", "--to", "2026-01-02"], "FROM=yesterday is not a day; write YYYY-MM-DD"),
        (["--methods", "IncRec,Nope"], "unknown method Nope; known: TB-Online"),
        (["--backbones", "Nope"], "unknown backbone Nope; known: "),
        (["--seeds", "a"], "SEEDS=a is no list of whole numbers; write SEEDS=1,2,3"),
        (["--k", "5,"], "K=5, is no list of whole numbers"),
        (["--last", "x"], "LAST=x is no one whole number; write LAST=7"),
        (["--last", "1"], "has 1 of the 2 days"),
        (["--k", "5000"], "K = 5000 is too large"),
        (["--from", "2026-01-04", "--to", "2026-01-06"], "2026-01-06 not prepared below"),
    ],
)
def test_mistakes_are_told_in_one_line(prepared, arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(compare_command, "load_settings", lambda: prepared)
    assert compare_command.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make compare: ")
    assert message in line
