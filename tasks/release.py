"""
Release tasks: the day's weights, tables and histories -> one staged release folder.

Weights are those that were evaluated; the i2i table, histories, embeddings and candidates are rebuilt as of
the end of the day by the same code and settings. The folder waits in ``<release_root>/staged/<day>`` for
its verdict.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.releases import CandidateLists, ReleaseContents, TowerContents, write_release
from lakehouse.store import Lakehouse
from models.increc.model import TrainedModel
from models.search import build_index, index_recall
from tasks.channels import (
    MERGED,
    Catalogue,
    Model,
    Users,
    embed_users,
    merge,
    read_catalogue,
    read_models,
    retrieve_channels,
    with_profiles,
)
from tasks.code_version import code_version
from tasks.days import ONE_DAY
from tasks.drift import measure_drift
from tasks.gates import WARMING_UP
from tasks.records import ChampionStatus
from tasks.redact import without_passwords
from tasks.retrieved import retrieved_for_filter
from tasks.settings import PI2I, Settings

RECALL_K = 100
RECALL_USERS = 1000
OVERLAP_K = 10
BLOCK = 20_000
# Settings that say where things are and who decides and hears of it: the same day comes out with any.
OPERATION = {
    "var",
    "lakehouse_root",
    "release_root",
    "tracking_uri",
    "online_store_url",
    "gates_file",
    "promotion",
    "experiment",
    "model_name",
    "alerts",
    "services",
    "retention",
}


@dataclass(frozen=True)
class ReleaseReport:
    """What was staged, and the figures that the gates look at; no folder while warming up."""

    folder: Path | None
    digest: str | None
    figures: dict[str, float]


def build_release(day: date, settings: Settings) -> ReleaseReport:
    """
    Stage the release of ``day`` and replace ``metric/ds=<day>`` of the steps drift and build_release.

    Raises:
        MissingPartition: the day was not evaluated, or a method has no checkpoint.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    evaluated = lakehouse.require(tables.METRIC, day, part="evaluate").meta
    if evaluated["status"] == WARMING_UP:
        return ReleaseReport(None, None, {})
    models = read_models(lakehouse, day, settings, [*settings.channels, *([PI2I] if settings.pi2i else [])])
    catalogue = read_catalogue(lakehouse, day, settings)
    histories = lakehouse.read(tables.USER_HISTORY, day)
    users = with_profiles(lakehouse, day, histories)
    towers = {
        name: _tower(model, settings.methods[name].seed, catalogue, users)
        for name, model in models.items()
        if name != PI2I
    }
    merged = _merged_candidates(models, catalogue, users, settings)
    contents = ReleaseContents(
        i2i_table=catalogue.i2i_table,
        item_index=lakehouse.read(tables.ITEM_INDEX, day),
        items=catalogue.items,
        user_history=histories,
        user_profile=lakehouse.read(tables.USER_SNAPSHOT, day),
        popular_item_ids=catalogue.popular,
        quotas=settings.channels,
        n_triggers=settings.samples.n_triggers,
        served_from=users.now,
        towers=towers,
        scorer=models[PI2I].to_bytes() if settings.pi2i else None,
        item_statistics=catalogue.item_statistics,
        candidates={MERGED: merged},
    )
    folder = settings.staged_root / day.isoformat()
    manifest = write_release(
        folder, contents, day=day, code_version=code_version(), config_digest=config_digest(settings)
    )
    figures = {
        "index_recall": min((_recall(tower) for tower in towers.values()), default=1.0),
        "coverage": _coverage(merged, users),
        **_compare_i2i(catalogue.i2i_table, lakehouse.read(tables.I2I_TABLE, day - ONE_DAY)),
    }
    measure_drift(day, towers, ChampionStatus(**json.loads(evaluated["champion"])), settings)
    _write_figures(lakehouse, day, figures, len(users.ids), manifest.digest)
    return ReleaseReport(folder, manifest.digest, figures)


def config_digest(settings: Settings) -> str:
    """Digest what shapes a day's result: the settings without places, policy and operation, and the gates."""
    text = json.dumps(shaping_settings(settings), sort_keys=True) + settings.gates_file.read_text()
    return hashlib.sha256(text.encode()).hexdigest()


def shaping_settings(settings: Settings) -> dict[str, Any]:
    """Give the settings that shape a day's result; what could hold a secret is not among them."""
    shaping = settings.model_dump(mode="json", exclude=OPERATION)
    shaping["source"].pop("data", None)
    return without_passwords(shaping)


def _tower(model: TrainedModel, seed: int, catalogue: Catalogue, users: Users) -> TowerContents:
    item_embeddings = model.embed_items(catalogue.items)
    files = model.for_serving().to_files()
    return TowerContents(
        weights=files["model.safetensors"],
        config=files["config.json"],
        item_ids=catalogue.item_ids,
        item_embeddings=item_embeddings,
        user_ids=users.ids,
        user_embeddings=embed_users(model, catalogue, users),
        index=faiss.serialize_index(build_index(item_embeddings, seed=seed)).tobytes(),
    )


def _merged_candidates(
    models: Mapping[str, Model], catalogue: Catalogue, users: Users, settings: Settings
) -> CandidateLists:
    """Merge the channels' lists by quota, in blocks of users; the score of rank r is 1 / (r + 1)."""
    size = sum(settings.channels.values())
    merged = np.concatenate(
        [np.empty((0, size), np.int64)]
        + [
            merge(
                retrieve_channels(
                    settings.channels,
                    models,
                    catalogue,
                    block,
                    size,
                    settings,
                    retrieved_for_filter(models, catalogue, block, settings),
                ),
                settings.channels,
            )
            for block in _blocks(users)
        ]
    )
    scores = np.where(merged >= 0, 1 / (np.arange(size) + 1), 0).astype(np.float32)
    return CandidateLists(users.ids, merged, scores)


def _blocks(users: Users) -> Iterator[Users]:
    for start in range(0, len(users.ids), BLOCK):
        yield users.slice(start, BLOCK)


def _recall(tower: TowerContents) -> float:
    """Share of the exact top 100 that the published index finds, over the first users."""
    if not len(tower.user_ids) or not len(tower.item_ids):
        return 1.0
    index = faiss.deserialize_index(np.frombuffer(tower.index, np.uint8))
    k = min(RECALL_K, len(tower.item_ids))
    return index_recall(index, tower.item_embeddings, tower.user_embeddings[:RECALL_USERS], k)


def _coverage(merged: CandidateLists, users: Users) -> float:
    """Share of users with a history whose merged list is full."""
    has_history = pc.list_value_length(users.histories).to_numpy(zero_copy_only=False) > 0
    return float((merged.item_ids[has_history, -1] >= 0).mean()) if has_history.any() else 1.0


def _compare_i2i(today: pa.Table, yesterday: pa.Table) -> dict[str, float]:
    """Compare the i2i table with the day before's: rows, triggers still there, overlap of the top 10."""
    if not yesterday.num_rows:
        return {
            "i2i_rows_ratio": float("nan"),
            "i2i_trigger_coverage": float("nan"),
            "i2i_top10_overlap": float("nan"),
        }
    old_triggers = pc.unique(yesterday["trigger_item_id"])
    is_kept = pc.is_in(old_triggers, pc.unique(today["trigger_item_id"]))
    columns = ["trigger_item_id", "target_item_id"]
    top = [t.filter(pc.field("rank") <= OVERLAP_K).select(columns) for t in (today, yesterday)]
    common = top[0].join(top[1], columns, join_type="inner").num_rows
    return {
        "i2i_rows_ratio": today.num_rows / yesterday.num_rows,
        "i2i_trigger_coverage": pc.mean(is_kept).as_py(),
        "i2i_top10_overlap": common / top[1].num_rows,
    }


def _write_figures(
    lakehouse: Lakehouse, day: date, figures: dict[str, float], n_users: int, release_digest: str
) -> None:
    rows = [
        {
            "method": "release",
            "metric": name,
            "k": 0,
            "cohort": "all",
            "value": value,
            "low": None,
            "high": None,
            "n_users": n_users,
            "n_targets": 0,
        }
        for name, value in figures.items()
    ]
    lakehouse.replace(
        tables.METRIC,
        day,
        pa.Table.from_pylist(rows, tables.METRIC.schema),
        part="build_release",
        meta={"release_digest": release_digest},
    )
