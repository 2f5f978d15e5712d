"""
How do the methods compare on a window of days? Train each, measure all on the same users, write the tables.

What is trained and what is counted is kept in ``<var>/compare`` under the digest of what it was made from: a
comparison that was interrupted, or a later one with equal parts, does none of it again.
"""

import json
import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.comparison import Behaviour, Hits, count_base, count_method, count_reseeded
from models.increc.epochs import NonFiniteLoss
from models.increc.model import TrainedModel
from models.increc.samples import NoSamples
from models.increc.training import train as train_towers
from models.increc.weights import CorruptModel
from tasks.channels import read_catalogue, retrieve_channels
from tasks.compare_kept import (
    code_of,
    digest,
    digest_of,
    keep_whole,
    remove_unfinished,
    unfinished,
    versions,
)
from tasks.comparison import Comparison, make_comparison
from tasks.comparison_plan import ONLINE, BadComparison, Plan, Unit, config_of
from tasks.days import ONE_DAY, ingested
from tasks.evaluate import read_behaviour, widest
from tasks.settings import Settings
from tasks.train import read_items

REPORT = "report.json"
KEYS = ("day", "user_id", "n_itg", "n_exposed")


@dataclass(frozen=True)
class UnitReport:
    """One training: where it is kept, and whether it was done now."""

    unit: Unit
    folder: Path
    is_new: bool
    seconds: float


@dataclass(frozen=True)
class Kept:
    """Where a comparison's tables are, and the comparison."""

    comparison: Comparison
    folder: Path
    address: str
    is_new: bool


def train_unit(unit: Unit, plan: Plan, settings: Settings) -> UnitReport:
    """
    Train one method on the plan's training days, unless an equal training is kept.

    As the daily training: the samples of the days, items and users as of the last of them.

    Raises:
        MissingPartition: a table of the training days is not there.
        BadComparison: the method finds nothing to learn from, or diverges.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    eve, config = plan.training_days[-1], config_of(unit, settings)
    folder = _root(settings) / "models" / training_digest(lakehouse, unit, plan, settings)
    if folder.exists():
        return UnitReport(unit, folder, is_new=False, seconds=0.0)
    tables_read = (
        lakehouse.read_days(tables.INCREC_SAMPLE, plan.training_days),
        read_items(lakehouse, eve, settings),
        lakehouse.read(tables.USER_SNAPSHOT, eve),
    )
    try:
        model, report = train_towers(*tables_read, config, device=settings.device)
    except (NoSamples, NonFiniteLoss) as error:
        raise BadComparison(f"{unit}: {error}") from error
    keep_whole(folder, {**model.for_serving().to_files(), REPORT: report.to_json()})
    return UnitReport(unit, folder, is_new=True, seconds=report.seconds)


def training_digest(lakehouse: Lakehouse, unit: Unit, plan: Plan, settings: Settings) -> str:
    """Digest what a training is made from: hyperparameters, device, code, libraries, the tables read."""
    eve = plan.training_days[-1]
    made_from = {
        "config": config_of(unit, settings).model_dump(mode="json"),
        "device": settings.device,
        "code": code_of("models/increc"),
        "versions": versions(),
        "samples": [digest_of(lakehouse, tables.INCREC_SAMPLE, day) for day in plan.training_days],
        "eve": [
            digest_of(lakehouse, table, eve)
            for table in (tables.ITEM_INDEX, tables.ITEM_SNAPSHOT, tables.USER_SNAPSHOT)
        ],
    }
    return digest(made_from)


def measure_group(backbone: str, seed: int, plan: Plan, settings: Settings) -> tuple[Path, bool]:
    """
    Count the hits of every method of one backbone and seed, all on the same users; unless they are kept.

    Lists are as the daily evaluation makes them: histories and catalogue as of the day before.

    Returns:
        Where they are kept, and whether they were counted now.

    Raises:
        MissingPartition: a table of an evaluated day, or of the day before it, is not there.
        BadComparison: a method is not trained yet, or what is kept of its training is damaged.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    path = (
        _root(settings) / "hits" / f"{_measuring_digest(lakehouse, backbone, seed, plan, settings)}.parquet"
    )
    if path.exists():
        return path, False
    pieces = [_count_day(lakehouse, day, backbone, seed, plan, settings) for day in plan.evaluated_days]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    pq.write_table(pa.concat_tables(pieces), temporary)
    os.replace(temporary, path)
    return path, True


def conclude(plan: Plan, settings: Settings) -> Kept:
    """
    Make the tables of what was measured; write them below the state folder and log them to MLflow.

    Raises:
        BadComparison: a backbone and seed is not measured yet.
        TrackingUnavailable: MLflow does not answer.
    """
    from tasks.figures import comparison_figure
    from tasks.tracking import log_comparison

    lakehouse, paths = Lakehouse(settings.lakehouse_root), {}
    for backbone in plan.backbones:
        for seed in plan.seeds:
            name = f"{_measuring_digest(lakehouse, backbone, seed, plan, settings)}.parquet"
            paths[backbone, seed] = _root(settings) / "hits" / name
    config = settings.evaluation
    comparison = make_comparison(
        plan,
        ingested(lakehouse, plan.last_day).meta["source"],
        {key: read_hits(path, plan.ks) for key, path in paths.items()},
        seed=config.seed,
        n_resamples=config.n_bootstrap,
    )
    key = digest([str(path.name) for path in paths.values()] + [plan.to_json(), config.model_dump()])
    folder = _root(settings) / f"{plan.evaluated_days[0]}_{plan.last_day}-{key[:8]}"
    figure = comparison_figure(comparison)
    remove_unfinished(_root(settings))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.md").write_text(comparison.markdown())
    (folder / "comparison.csv").write_text(comparison.csv())
    figure.savefig(folder / "comparison.png", metadata={"Software": None})
    trained = {
        unit: (config_of(unit, settings), _losses(lakehouse, unit, plan, settings)) for unit in plan.units
    }
    logged = log_comparison(comparison, trained, figure, key, settings)
    return Kept(comparison, folder, logged.address, logged.is_new)


def read_hits(path: Path, ks: tuple[int, ...]) -> Hits:
    """
    Read what ``measure_group`` kept.

    Raises:
        BadComparison: there is nothing, or it is damaged.
    """
    if not path.exists():
        raise BadComparison(f"{path} is not there: measure every backbone and seed first, on the same tables")
    try:
        rows = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise BadComparison(f"{path} is damaged ({error}): delete it and run the comparison again") from error
    names = list(dict.fromkeys(name.rpartition("@")[0] for name in rows.column_names if name not in KEYS))
    by_row = {name: np.column_stack([rows[f"{name}@{k}"].to_numpy() for k in ks]) for name in names}
    return Hits(ks, rows["n_itg"].to_numpy(), rows["n_exposed"].to_numpy(), by_row)


def _count_day(
    lakehouse: Lakehouse, day: date, backbone: str, seed: int, plan: Plan, settings: Settings
) -> pa.Table:
    """Count the hits of one day: one row per user, one column per row of the tables and K."""
    catalogue = read_catalogue(lakehouse, day - ONE_DAY, settings)
    done = read_behaviour(lakehouse, day, catalogue, settings)
    users = Behaviour(done.itg, done.retrieved, done.exposed)
    depth = 2 * plan.ks[-1] + widest(done.retrieved)

    def lists_of(unit: Unit) -> np.ndarray:
        model = _read_model(lakehouse, unit, plan, settings)
        return retrieve_channels(["it"], {"it": model}, catalogue, done.users, depth, settings)["it"]

    base = lists_of(Unit(ONLINE, backbone, seed))
    counted = count_base(base, users, plan.ks)
    other_seed = Unit(ONLINE, backbone, plan.other_seed(seed))
    counted |= count_reseeded(lists_of(other_seed), base, users, plan.ks)
    for method in plan.methods:
        if method != ONLINE:
            counted |= count_method(method, lists_of(Unit(method, backbone, seed)), base, users, plan.ks)
    columns = {
        "day": pa.array([day] * len(done.users.ids), pa.date32()),
        "user_id": done.users.ids,
        "n_itg": np.diff(done.itg.offsets.to_numpy()).astype(np.int64),
        "n_exposed": np.diff(done.exposed.offsets.to_numpy()).astype(np.int64),
    }
    for name, hits in counted.items():
        columns |= {f"{name}@{k}": hits[:, place] for place, k in enumerate(plan.ks)}
    return pa.table(columns)


def _read_model(lakehouse: Lakehouse, unit: Unit, plan: Plan, settings: Settings) -> TrainedModel:
    folder = _model_folder(lakehouse, unit, plan, settings)
    try:
        return TrainedModel.from_files(
            {path.name: path.read_bytes() for path in folder.iterdir() if path.name != REPORT}
        )
    except CorruptModel as error:
        raise _damaged(folder, error) from error


def _losses(lakehouse: Lakehouse, unit: Unit, plan: Plan, settings: Settings) -> dict[str, list[float]]:
    folder = _model_folder(lakehouse, unit, plan, settings)
    try:
        return json.loads((folder / REPORT).read_text())["epoch_losses"]
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> BadComparison:
    return BadComparison(
        f"the training in {folder} is damaged ({error}): delete it and run the comparison again"
    )


def _model_folder(lakehouse: Lakehouse, unit: Unit, plan: Plan, settings: Settings) -> Path:
    folder = _root(settings) / "models" / training_digest(lakehouse, unit, plan, settings)
    if not folder.exists():
        raise BadComparison(f"{unit} is not trained on the tables as they are now: train it first")
    return folder


def _measuring_digest(lakehouse: Lakehouse, backbone: str, seed: int, plan: Plan, settings: Settings) -> str:
    """Digest what a group's hits are made from: the models, the tables read, K, code, SQL, libraries."""
    units = [Unit(method, backbone, seed) for method in plan.methods]
    units.append(Unit(ONLINE, backbone, plan.other_seed(seed)))
    of_day = (tables.CLICK, tables.EXPOSURE, tables.TARGET_GROUP)
    of_eve = (tables.USER_HISTORY, tables.USER_SNAPSHOT, tables.ITEM_SNAPSHOT, tables.ITEM_INDEX)
    made_from = {
        "models": [(str(unit), training_digest(lakehouse, unit, plan, settings)) for unit in units],
        "tables": [
            [digest_of(lakehouse, table, day) for table in of_day]
            + [digest_of(lakehouse, table, day - ONE_DAY) for table in of_eve]
            for day in plan.evaluated_days
        ],
        "days": [str(day) for day in plan.evaluated_days],
        "ks": plan.ks,
        "users": (settings.evaluation.max_users, settings.evaluation.seed),
        "code": [code_of("models"), code_of("sql")],
        "versions": versions(),
    }
    return digest(made_from)


def _root(settings: Settings) -> Path:
    return settings.var / "compare"
