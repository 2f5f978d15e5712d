"""MNR by replay: what a study says, that nothing of the future is in it, and what R_u holds of MNR."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lakehouse import tables
from lakehouse.store import Lakehouse, MissingPartition
from models.mnr import worth
from models.mnr.replay import candidates_at
from tasks import mnr_study as command
from tasks.mnr_study import ALL, STREAMING, mnr_study
from tasks.mnr_tables import MNRStudy
from tasks.rankings import read_visits
from tasks.samples import construct_samples
from tasks.settings import Settings
from tasks.truncation import BadStudy
from tests.tasks.small_worlds import DAYS, FIRST, prepare, world_settings

DAY, K = DAYS[3], 20
CHANNELS = ["mnr@detail", "mnr@search", "mnr@shop", "mnr"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Four prepared days of a small world."""
    world = {"n_users": 150, "n_items": 300, "n_days": 5, "n_clusters": 6, "first_day": FIRST}
    settings = world_settings(
        tmp_path_factory.mktemp("var"), source={"preset": "synthetic", "synthetic": world}
    )
    prepare(settings, DAYS[:4])
    return settings


@pytest.fixture
def settings(prepared: Settings, tmp_path: Path) -> Settings:
    """The same with the day's tables as they were, whatever a test does to them."""
    lakehouse = Lakehouse(prepared.lakehouse_root)
    kept = [(table, lakehouse.read(table, DAY)) for table in (tables.RANKING_LOG, tables.TARGET_GROUP)]
    yield prepared
    for table, rows in kept:
        lakehouse.replace(table, DAY, rows)


def plant(settings: Settings, seconds_from_last_request: float) -> None:
    """Let search rank what each user turns to, so long after the user's last request of the day."""
    lakehouse = Lakehouse(settings.lakehouse_root)
    groups = lakehouse.read(tables.TARGET_GROUP, DAY).to_pylist()
    last = {row["user_id"]: row for row in groups}
    planted = [
        {
            "request_id": -1 - user,
            "user_id": user,
            "scenario": "search",
            "event_time": row["event_time"] + timedelta(seconds=seconds_from_last_request),
            "item_ids": items,
            "category_ids": [-1] * len(items),
            "scores": [1.0] * len(items),
        }
        for user, row in last.items()
        if (items := row["rtg_item_ids"] + row["itg_item_ids"])
    ]
    assert len(planted) > 20
    rows = pa.Table.from_pylist(planted, tables.RANKING_LOG.schema)
    lakehouse.replace(
        tables.RANKING_LOG, DAY, pa.concat_tables([lakehouse.read(tables.RANKING_LOG, DAY), rows])
    )


def hit_rate(study: MNRStudy, channel: str = ALL) -> float:
    return study.find("table1", channel, STREAMING).figures["hit_rate"].value


def test_a_signal_of_the_future_changes_nothing_and_one_of_the_past_is_found(settings):
    before = mnr_study(DAY, DAY, settings, K)
    plant(settings, seconds_from_last_request=0)
    assert mnr_study(DAY, DAY, settings, K) == before
    plant(settings, seconds_from_last_request=-settings.mnr_daily.delay_seconds / 2)
    assert mnr_study(DAY, DAY, settings, K) == before, "the store does not have it yet"
    plant(settings, seconds_from_last_request=-2 * settings.mnr_daily.delay_seconds - 1)
    after = mnr_study(DAY, DAY, settings, K)
    assert hit_rate(after) > 1.2 * hit_rate(before)
    assert after.find("table2", ALL, "daily") == before.find("table2", ALL, "daily")


def test_figures_agree_with_a_count_by_hand(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    study = mnr_study(DAY, DAY, settings, K)
    groups = lakehouse.read(tables.TARGET_GROUP, DAY)
    config = settings.mnr.model_copy(update={"k": K})
    held: dict[int, set[int]] = {}
    moments = groups.select(["user_id", "event_time"])
    for row in candidates_at(read_visits(lakehouse, DAY, settings), moments, config, 1.0).to_pylist():
        held.setdefault(row["moment"], set()).update(row["item_ids"])
    n_hits = n_items = n_exposed = n_held = 0
    for number, row in enumerate(groups.to_pylist()):
        items = held.get(number, set()) - set(row["history_item_ids"])
        n_items += len(items)
        n_hits += len(items & {*row["rtg_item_ids"], *row["itg_item_ids"]})
        n_exposed += len(row["etg_item_ids"])
        n_held += len(items & set(row["etg_item_ids"]))
    figures = study.find("table1", ALL, STREAMING).figures
    assert figures["hit_rate"].value == pytest.approx(n_hits / n_items)
    assert figures["pvr"].value == pytest.approx(n_held / n_exposed)
    assert (study.n_requests, study.n_exposed) == (groups.num_rows, n_exposed)


def test_study_twice_is_the_same_writes_no_table_and_names_what_was_not_trained(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    before = {table.name: lakehouse.partitions(table) for table in tables.TABLES.values()}
    one, other = (mnr_study(DAYS[2], DAY, settings, K) for _ in range(2))
    assert one == other
    assert one.csv() == other.csv()
    assert {table.name: lakehouse.partitions(table) for table in tables.TABLES.values()} == before
    assert one.not_trained == ("base", "base_reseeded", "increc")
    assert "Not trained, so not here: base, base_reseeded, increc" in one.summary()


def test_tables_have_the_papers_rows(settings):
    study = mnr_study(DAY, DAY, settings, K)
    first = [(row.channel, row.variant) for row in study.of_table("table1")]
    assert first == [("swing", "daily"), ("glare", "daily"), *((name, STREAMING) for name in CHANNELS)]
    assert [row.variant for row in study.of_table("table2")] == ["daily", STREAMING] * len(CHANNELS)
    assert [row.variant for row in study.of_table("table3")] == ["random", "fifo", "score"] * len(CHANNELS)
    alphas = [f"alpha = {alpha}" for alpha in (10, 20, 50, 200, 500)]
    assert [row.variant for row in study.of_table("table4")] == alphas * len(CHANNELS)
    at_alpha, scored = study.find("table4", ALL, "alpha = 50"), study.find("table3", ALL, "score")
    assert at_alpha.figures == scored.figures == study.find("table2", ALL, STREAMING).figures
    assert "Rankings are the source's ranking_log." in study.summary()
    assert study.markdown().count("| mnr | ") == 1 + 2 + 3 + 5


def test_study_without_rankings_says_that_visits_stand_in(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    kept = {day: lakehouse.read(tables.RANKING_LOG, day) for day in DAYS[:4]}
    try:
        for day in kept:
            lakehouse.remove(tables.RANKING_LOG, day)
        study = mnr_study(DAY, DAY, settings, K)
    finally:
        for day, rows in kept.items():
            lakehouse.replace(tables.RANKING_LOG, day, rows)
    assert study.is_stand_in
    assert "Visits stand in for rankings, each visible from its last exposure on" in study.summary()


def retrieved(settings: Settings, *channels: str) -> tuple[list[list[int]], dict[str, str]]:
    samples = settings.samples.model_copy(update={"simulated_channels": channels})
    construct_samples(DAY, settings.model_copy(update={"samples": samples}))
    lakehouse = Lakehouse(settings.lakehouse_root)
    lists = lakehouse.read(tables.TARGET_GROUP, DAY)["retrieved_item_ids"].to_pylist()
    return lists, lakehouse.require(tables.TARGET_GROUP, DAY).meta


def test_a_simulated_r_u_unites_its_channels(settings):
    swing, _ = retrieved(settings, "swing")
    mnr, _ = retrieved(settings, "mnr")
    both, meta = retrieved(settings, "swing", "mnr")
    assert meta["retrieved_by"] == "simulated swing+mnr"
    for one, other, united in zip(swing, mnr, both, strict=True):
        assert united == list(dict.fromkeys([*one, *other]))
    assert any(set(other) - set(one) for one, other in zip(swing, mnr, strict=True))
    assert max(len(items) for items in mnr) == settings.samples.retrieved_per_user


def test_rankings_from_a_request_on_are_not_in_its_r_u(settings):
    before, _ = retrieved(settings, "mnr")
    plant(settings, seconds_from_last_request=0)
    assert retrieved(settings, "mnr")[0] == before
    plant(settings, seconds_from_last_request=-5)
    assert retrieved(settings, "mnr")[0] != before


@pytest.mark.parametrize(
    ("first", "last", "k", "error", "message"),
    [
        (DAY, FIRST, K, BadStudy, "the first must not be after the last"),
        (FIRST, FIRST, K, BadStudy, "is the source's first day"),
        (DAY, DAY, 0, BadStudy, "K=0 is no length of a list"),
        (DAY, DAY, 10_001, BadStudy, "K=10001 is no length of a list: give 1 to 10000"),
        (DAYS[4], DAYS[4], K, MissingPartition, "target_group for 2026-01-05"),
    ],
)
def test_what_cannot_be_measured_is_named(settings, first, last, k, error, message):
    with pytest.raises(error, match=message):
        mnr_study(first, last, settings, k)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the days: DAY="),
        (["--day", "2026-01-04", "--k", "x"], "K=x is no whole number"),
        (["--day", "2026-03-03"], "no committed partition of target_group for 2026-03-03"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, settings, monkeypatch, capsys):
    monkeypatch.setattr(command, "load_settings", lambda: settings)
    assert command.main(arguments) == 1
    said = capsys.readouterr()
    assert said.err.startswith("make mnr-study: ") and message in said.err
    assert said.err.count("\n") == 1 and not said.out


def test_a_study_is_kept_in_files_and_once_in_mlflow(settings, monkeypatch, capsys):
    monkeypatch.setattr(command, "load_settings", lambda: settings)
    arguments = ["--day", DAY.isoformat(), "--k", str(K)]
    assert command.main(arguments) == 0
    assert command.main(arguments) == 0
    said = capsys.readouterr().out
    assert said.count("(as before)") == 1
    folder = settings.var / "mnr" / f"{DAY}-K{K}"
    assert {path.name for path in folder.iterdir()} == {"study.md", "study.csv", "study.png"}
    assert (folder / "study.md").read_text().startswith("MNR by replay on synthetic, 2026-01-04: ")


def test_replayed_requests_are_those_of_the_day(settings):
    lakehouse = Lakehouse(settings.lakehouse_root)
    groups = lakehouse.read(tables.TARGET_GROUP, DAY)
    users = np.unique(groups["user_id"].to_numpy())
    study = mnr_study(DAY, DAY, settings, K)
    assert (study.n_users, study.first_day) == (len(users), date(2026, 1, 4))
    assert study.click_rate == pytest.approx(
        pc.mean(
            lakehouse.read(tables.EXPOSURE, DAY)
            .filter(pc.field("scenario") == "home")["is_click"]
            .cast(pa.float64())
        ).as_py(),
        abs=0.01,
    )
    assert tuple(study.find("table1", "mnr", STREAMING).figures) == worth.FIGURES
