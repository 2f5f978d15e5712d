"""PI2I through the day: samples without a leak, scorer, figures, part of the release; and switched off."""

import json
import math
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lakehouse import tables
from lakehouse.releases import open_release
from lakehouse.store import Lakehouse, MissingPartition
from models.metrics import hit_rate, target_ranks
from models.pi2i.model import TrainedScorer
from models.pi2i.prices import log_prices
from models.pi2i.sampling import SCHEMA
from models.pi2i.trigger_index import trigger_index
from nearline.candidates import ClickedItems
from nearline.click_scorer import open_click_scorer
from tasks.champion import load_release, retrieve_champion
from tasks.channels import read_catalogue, restrict_to_known, retrieve_channels
from tasks.days import ONE_DAY
from tasks.evaluate import evaluate, read_behaviour
from tasks.gates import PASSED, WARMING_UP, check_gates
from tasks.pi2i_samples import construct_pi2i_samples, seed_of
from tasks.popular import read_item_statistics
from tasks.prepare import list_missing_days
from tasks.pyfunc import Retrieval, UnknownChannel
from tasks.records import COMPARED, ChampionStatus
from tasks.release import build_release
from tasks.settings import Settings
from tasks.train import UnknownMethod, read_losses, read_scorer, train
from tests.tasks.small_worlds import DAYS, FIRST, prepare, world_settings

DAY = DAYS[-1]
PI2I = {"epochs": 1, "dim": 8, "hidden_dim": 8, "n_author_buckets": 64, "n_profile_buckets": 64}
CHANNELS = {"swing": 20, "base": 20, "pi2i": 20}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A world whose last day is trained, evaluated and staged."""
    gates = tmp_path_factory.mktemp("gates") / "gates.toml"
    gates.write_text(
        "[pi2i]\nkind = 'ratio'\nmethod = 'pi2i'\nagainst = 'popularity'\nk = 40\nfloor = 0.1\n"
        "[losses]\nkind = 'finite_losses'\n"
    )
    base = {"base": {"variant": "TB-Online", "epochs": 1, "dim": 8}}
    changes = {"pi2i": PI2I, "channels": CHANNELS, "gates_file": gates, "methods": base}
    settings = world_settings(tmp_path_factory.mktemp("var"), **changes)
    prepare(settings)
    for method in settings.trained_methods:
        train(DAY, method, settings)
    evaluate(DAY, settings)
    build_release(DAY, settings)
    return settings


@pytest.fixture
def lakehouse(settings: Settings) -> Lakehouse:
    return Lakehouse(settings.lakehouse_root)


def rows_of(lakehouse: Lakehouse, part: str, method: str = "pi2i") -> dict[tuple[str, int], dict]:
    rows = lakehouse.read(tables.METRIC, DAY, part=part).to_pylist()
    return {
        (row["metric"], row["k"]): row for row in rows if row["method"] == method and row["cohort"] == "all"
    }


def test_the_table_keeps_what_sampling_gives() -> None:
    kept = tables.PI2I_SAMPLE.schema
    assert {(field.name, field.type) for field in SCHEMA} == {
        (field.name, field.type) for field in kept if field.name != "item_id"
    }


def test_samples_are_clicks_that_yesterday_s_table_reaches_from_what_came_before(
    lakehouse: Lakehouse,
) -> None:
    i2i = lakehouse.read(tables.I2I_TABLE, DAY - ONE_DAY)
    reached: dict[int, set[int]] = {}
    pairs = zip(i2i["trigger_item_id"].to_pylist(), i2i["target_item_id"].to_pylist(), strict=True)
    for trigger, target in pairs:
        reached.setdefault(trigger, set()).add(target)
    before = lakehouse.read(tables.USER_HISTORY, DAY - ONE_DAY).to_pylist()
    histories = {row["user_id"]: row["item_ids"] for row in before}
    clicks: dict[int, list[tuple]] = {}
    for row in lakehouse.read(tables.CLICK, DAY).to_pylist():
        clicks.setdefault(row["user_id"], []).append((row["event_time"], row["item_id"]))
    expected, n_clicks = set(), 0
    for user, own in clicks.items():
        seen = set(histories.get(user, []))
        for when, item in sorted(own):
            triggers = {*histories.get(user, []), *(other for at, other in own if at < when)}
            if item not in seen:
                n_clicks += 1
                if any(item in reached.get(trigger, ()) for trigger in triggers):
                    expected.add((user, item, when))
            seen.add(item)
    samples = lakehouse.read(tables.PI2I_SAMPLE, DAY).to_pylist()
    assert {(row["user_id"], row["item_id"], row["event_time"]) for row in samples} == expected
    assert len(expected) > 50
    for row in samples:
        own = clicks[row["user_id"]]
        allowed = {*histories.get(row["user_id"], []), *(item for at, item in own if at < row["event_time"])}
        assert set(row["trigger_item_ids"]) <= allowed
        assert row["item_ids"][0] == row["item_id"]
    report = json.loads(lakehouse.require(tables.PI2I_SAMPLE, DAY).meta["report"])
    assert (report["n_clicks"], report["n_samples"]) == (n_clicks, len(expected))
    assert report["dropped_share"] == pytest.approx(1 - len(expected) / n_clicks)
    figures = rows_of(lakehouse, "construct_samples")
    assert figures["sample_dropped_share", 0]["value"] == report["dropped_share"]
    n_hard = sum(row["n_hard"] for row in samples)
    n_easy = sum(len(row["item_ids"]) - 1 - row["n_hard"] for row in samples)
    assert (figures["sample_n_hard", 0]["value"], figures["sample_n_easy", 0]["value"]) == (n_hard, n_easy)


def test_the_same_day_gives_the_same_samples_and_each_day_and_seed_others(
    settings: Settings, lakehouse: Lakehouse
) -> None:
    digest = lakehouse.require(tables.PI2I_SAMPLE, DAY).digest
    construct_pi2i_samples(DAY, settings.pi2i, settings)
    assert lakehouse.require(tables.PI2I_SAMPLE, DAY).digest == digest
    construct_pi2i_samples(DAY, settings.pi2i.model_copy(update={"seed": 7}), settings)
    assert lakehouse.require(tables.PI2I_SAMPLE, DAY).digest != digest
    construct_pi2i_samples(DAY, settings.pi2i, settings)
    assert len({seed_of(seed, day) for seed in (0, 1) for day in DAYS}) == 2 * len(DAYS)


def test_no_sample_without_the_day_before(settings: Settings, lakehouse: Lakehouse) -> None:
    day = date(2027, 1, 1)
    with pytest.raises(MissingPartition, match="2027-01-01"):
        construct_pi2i_samples(day, settings.pi2i, settings)
    assert lakehouse.commit(tables.PI2I_SAMPLE, day) is None


def test_training_again_gives_the_same_checkpoint(settings: Settings, lakehouse: Lakehouse) -> None:
    digest = lakehouse.require(tables.CHECKPOINT, DAY, part="pi2i").digest
    report = train(DAY, "pi2i", settings)
    assert lakehouse.require(tables.CHECKPOINT, DAY, part="pi2i").digest == digest
    n_days = [lakehouse.require(tables.PI2I_SAMPLE, day).n_rows for day in DAYS[:-1]]
    assert report.n_samples == sum(n_days)
    assert read_losses(lakehouse, DAY, "pi2i") == {"total": [report.final_loss]}


def test_a_day_whose_window_has_no_samples_warms_up(tmp_path: Path) -> None:
    settings = world_settings(tmp_path / "var", pi2i=PI2I, channels=CHANNELS)
    prepare(settings, DAYS[:2])
    for method in settings.trained_methods:
        assert train(FIRST + ONE_DAY, method, settings).is_warming_up
    assert evaluate(FIRST + ONE_DAY, settings).status == WARMING_UP
    assert not build_release(FIRST + ONE_DAY, settings).folder


def test_the_row_is_that_of_the_scorer_on_yesterday_s_table(settings: Settings, lakehouse: Lakehouse) -> None:
    catalogue = read_catalogue(lakehouse, DAY - ONE_DAY, settings)
    behaviour = read_behaviour(lakehouse, DAY, catalogue, settings)
    scorer = read_scorer(lakehouse, DAY)
    lists = retrieve_channels(["pi2i"], {"pi2i": scorer}, catalogue, behaviour.users, 40, settings)["pi2i"]
    found = hit_rate(target_ranks(lists, behaviour.targets), behaviour.targets, 40, seed=1, n_resamples=100)
    rows = rows_of(lakehouse, "evaluate")
    assert rows["hit_rate", 40]["value"] == found.value > 0
    assert {"relative_to_popularity", "relative_to_swing", "relative_to_base", "marginal_hits"} <= {
        metric for metric, _ in rows
    }


def test_no_list_goes_beyond_the_ceiling(settings: Settings, lakehouse: Lakehouse) -> None:
    catalogue = read_catalogue(lakehouse, DAY - ONE_DAY, settings)
    users = read_behaviour(lakehouse, DAY, catalogue, settings).users
    everything = len(catalogue.item_ids)
    scorer = read_scorer(lakehouse, DAY)
    lists = retrieve_channels(["pi2i"], {"pi2i": scorer}, catalogue, users, everything, settings)["pi2i"]
    swing = retrieve_channels(["swing"], {}, catalogue, users, everything, settings)["swing"]
    assert np.array_equal(np.sort(lists, axis=1), np.sort(swing, axis=1))
    behaviour = read_behaviour(lakehouse, DAY, catalogue, settings)
    rows = rows_of(lakehouse, "evaluate")
    recall = hit_rate(
        target_ranks(lists, behaviour.targets), behaviour.targets, everything, seed=1, n_resamples=100
    )
    assert rows["candidate_recall", 0]["value"] == recall.value
    has_target = pc.list_value_length(behaviour.targets).to_numpy(zero_copy_only=False) > 0
    assert rows["mean_candidates", 0]["value"] == (lists[has_target] >= 0).sum(axis=1).mean()


def test_users_are_scored_block_by_block_alike(settings: Settings, lakehouse: Lakehouse, monkeypatch) -> None:
    catalogue = read_catalogue(lakehouse, DAY - ONE_DAY, settings)
    users = read_behaviour(lakehouse, DAY, catalogue, settings).users
    models = {"pi2i": read_scorer(lakehouse, DAY)}
    whole = retrieve_channels(["pi2i"], models, catalogue, users, 30, settings)["pi2i"]
    monkeypatch.setattr("tasks.channels.SCORED_AT_ONCE", 100)
    assert np.array_equal(retrieve_channels(["pi2i"], models, catalogue, users, 30, settings)["pi2i"], whole)
    nobody = retrieve_channels(["pi2i"], models, catalogue, users.slice(0, 0), 30, settings)["pi2i"]
    assert nobody.shape == (0, 30)


def test_the_release_serves_what_was_evaluated(settings: Settings, lakehouse: Lakehouse) -> None:
    release = open_release(settings.staged_root / str(DAY))
    scorer = TrainedScorer.from_bytes(release.scorer)
    assert release.scorer == read_scorer(lakehouse, DAY).to_bytes()
    assert scorer.config == settings.pi2i
    statistics = read_item_statistics(lakehouse, DAY, settings)
    assert release.item_statistics.equals(statistics)
    assert pc.sum(statistics["n_clicks_day"]).as_py() == lakehouse.require(tables.CLICK, DAY).n_rows
    assert release.user_profile.equals(lakehouse.read(tables.USER_SNAPSHOT, DAY))
    assert dict(release.manifest.quotas) == CHANNELS
    assert release.candidates("merged").item_ids.shape[1] == sum(CHANNELS.values())


def test_the_model_file_answers_from_the_release_alone(settings: Settings) -> None:
    folder = settings.staged_root / str(DAY)
    release, retrieval = open_release(folder), Retrieval()
    retrieval.load_context(SimpleNamespace(artifacts={"release": str(folder)}))
    histories = release.user_history["item_ids"].combine_chunks().slice(0, 20)
    given = pd.DataFrame({"item_ids": pd.Series(histories.to_pylist(), dtype=object)})
    index = trigger_index(
        release.i2i_table,
        allowed_item_ids=release.items["item_id"].to_numpy(),
        item_statistics=release.item_statistics,
    )
    expected = TrainedScorer.from_bytes(release.scorer).retrieve(
        index, release.items, histories, None, 15, log_prices=log_prices(release.items)
    )
    answers = retrieval.predict(None, given, {"k": 15, "channel": "pi2i"})["item_ids"].tolist()
    assert answers == [row[row >= 0].tolist() for row in expected]
    assert sum(map(len, answers)) > 20
    merged = retrieval.predict(None, given, {"k": 60})["item_ids"].tolist()
    assert all(set(answer[:5]) <= set(row) for answer, row in zip(answers, merged, strict=True))
    with pytest.raises(UnknownChannel, match="this release has merged, swing, popularity, base, pi2i"):
        retrieval.predict(None, given, {"channel": "pi2"})


def test_the_click_worker_answers_from_the_release_alone(settings: Settings) -> None:
    folder = settings.staged_root / str(DAY)
    release, scorer = open_release(folder), open_click_scorer(folder)
    users, histories = release.user_history["user_id"], release.user_history["item_ids"].combine_chunks()
    profiles = release.user_profile.to_pydict()
    profile_of = dict(zip(profiles["user_id"], profiles["profile"], strict=True))
    index = trigger_index(
        release.i2i_table,
        allowed_item_ids=release.items["item_id"].to_numpy(),
        item_statistics=release.item_statistics,
    )
    expected = TrainedScorer.from_bytes(release.scorer).retrieve(
        index,
        release.items,
        histories,
        pa.array([profile_of.get(user) for user in users.to_pylist()], pa.list_(pa.string())),
        15,
        log_prices=log_prices(release.items),
    )
    none = ClickedItems(np.empty(0, np.int64), np.empty(0, np.int64), 0, 0)
    answers = [scorer.answer(user, none, 15) for user in users.to_pylist()]
    for answer, row in zip(answers, expected, strict=True):
        assert answer.is_fallback or answer.item_ids.tolist() == row[row >= 0].tolist()
    assert sum(not answer.is_fallback for answer in answers) > 20


def test_a_champion_s_scorer_ranks_what_it_learned_of_today_s_candidates(
    settings: Settings, lakehouse: Lakehouse
) -> None:
    champion = load_release(settings.staged_root / str(DAY))
    assert set(champion.models) == {"base", "pi2i"}
    catalogue = read_catalogue(lakehouse, DAY - ONE_DAY, settings)
    users = read_behaviour(lakehouse, DAY, catalogue, settings).users
    theirs = retrieve_champion(champion, catalogue, users, 30, settings)
    known = restrict_to_known(catalogue, champion.models["pi2i"])
    ours = retrieve_channels(["pi2i"], champion.models, known, users, 30, settings)["pi2i"]
    assert np.array_equal(theirs["pi2i"], ours)
    assert set(ours[ours >= 0].tolist()) <= set(champion.models["pi2i"].known_item_ids.tolist())
    assert theirs["merged"].shape == (len(users.ids), sum(CHANNELS.values()))


def test_a_champion_s_scorer_is_measured_alike_where_pi2i_was_switched_off_since(
    settings: Settings, lakehouse: Lakehouse, monkeypatch
) -> None:
    champion = load_release(settings.staged_root / str(DAY))
    monkeypatch.setattr("tasks.evaluate.read_champion", lambda *_: (champion, ChampionStatus(COMPARED)))
    evaluate(DAY, settings.model_copy(update={"pi2i": None, "channels": {"swing": 20, "base": 20}}))
    off = [rows_of(lakehouse, "evaluate", name) for name in ("champion", "champion_pi2i")]
    evaluate(DAY, settings)
    on = [rows_of(lakehouse, "evaluate", name) for name in ("champion", "champion_pi2i")]
    for key in (("hit_rate", 10), ("hit_rate", 40)):
        for rows, same in zip(off, on, strict=True):
            assert rows[key]["value"] == same[key]["value"] > 0


def test_gates_look_at_it(settings: Settings) -> None:
    results = check_gates(DAY, settings).results
    assert results["pi2i"].figure > 0
    assert results["losses"].detail == "2 methods, all finite"


def test_where_it_is_off_nothing_asks_for_it(settings: Settings) -> None:
    off = settings.model_copy(update={"pi2i": None, "channels": {"swing": 20, "base": 20}})
    with pytest.raises(UnknownMethod, match=r"known: base$"):
        train(DAY, "pi2i", off)
    evaluate(DAY, off)
    assert (
        "pi2i"
        not in pc.unique(
            Lakehouse(off.lakehouse_root).read(tables.METRIC, DAY, part="evaluate")["method"]
        ).to_pylist()
    )
    off_gates = off.model_copy(update={"gates_file": settings.gates_file})
    result = check_gates(DAY, off_gates).results if build_release(DAY, off).folder else {}
    assert (result["pi2i"].status, result["pi2i"].detail) == (PASSED, "PI2I is off in the settings")
    assert not open_release(settings.staged_root / str(DAY)).has_scorer
    evaluate(DAY, settings)
    build_release(DAY, settings)


def test_days_that_lack_its_samples_alone_are_brought_in_when_it_is_switched_on(tmp_path: Path) -> None:
    off = world_settings(tmp_path / "var")
    prepare(off, DAYS[:2])
    assert list_missing_days(DAYS[3], off) == [DAYS[2]]
    on = world_settings(tmp_path / "var", pi2i=PI2I)
    assert list_missing_days(DAYS[3], on) == DAYS[:3]
    with pytest.raises(MissingPartition, match="pi2i_sample for 2026-01-01"):
        train(DAYS[1], "pi2i", on)
    prepare(on, DAYS[:1])
    assert list_missing_days(DAYS[3], on) == DAYS[1:3]


def test_a_day_without_clicks_has_no_dropped_share(settings: Settings, tmp_path: Path) -> None:
    own = world_settings(tmp_path / "var", pi2i=PI2I)
    prepare(own, DAYS[:1])
    lakehouse = Lakehouse(own.lakehouse_root)
    lakehouse.replace(tables.CLICK, FIRST, tables.CLICK.schema.empty_table())
    report = construct_pi2i_samples(FIRST, own.pi2i, own)
    assert (report.n_clicks, report.n_samples) == (0, 0)
    assert math.isnan(report.dropped_share)
    rows = lakehouse.read(tables.METRIC, FIRST, part="construct_samples").to_pylist()
    assert next(row for row in rows if row["metric"] == "sample_dropped_share")["value"] is None
