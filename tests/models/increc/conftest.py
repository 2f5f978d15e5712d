"""A planted world: clusters of items, users of one cluster, incremental interest in the next cluster."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather

from models.increc.config import IncRecConfig

REPOSITORY = Path(__file__).resolve().parents[3]
IDS = pa.list_(pa.int64())
N_CLUSTERS, CLUSTER_SIZE = 10, 20


def item_table(item_ids, *, first_index: int = 1, category_ids=None) -> pa.Table:
    n = len(item_ids)
    return pa.table(
        {
            "item_id": pa.array(item_ids, pa.int64()),
            "item_index": pa.array(np.arange(first_index, first_index + n), pa.int32()),
            "category_id": pa.nulls(n, pa.int64())
            if category_ids is None
            else pa.array(category_ids, pa.int64()),
            "author_id": pa.nulls(n, pa.int64()),
            "brand_id": pa.nulls(n, pa.int64()),
            "price": pa.nulls(n, pa.float32()),
        }
    )


def sample_table(history, rtg, itg, etg, *, day: int = 1) -> pa.Table:
    n = len(history)
    return pa.table(
        {
            "request_id": pa.array(range(n), pa.int64()),
            "user_id": pa.array(range(n), pa.int64()),
            "event_time": pa.array([datetime(2026, 1, day)] * n, pa.timestamp("us")),
            "history_item_ids": pa.array(history, IDS),
            "rtg_item_ids": pa.array(rtg, IDS),
            "itg_item_ids": pa.array(itg, IDS),
            "etg_item_ids": pa.array(etg, IDS),
        }
    )


@dataclass(frozen=True)
class World:
    """
    Items 1000..1199 in ten clusters of twenty. A user has a history in one cluster, an RTG target in the same
    cluster, an ITG target in the next one, and was shown items of both.
    """

    items: pa.Table
    users: pa.Table
    train: pa.Table
    test: pa.Table


def cluster_items(cluster: int) -> np.ndarray:
    return 1000 + cluster % N_CLUSTERS * CLUSTER_SIZE + np.arange(CLUSTER_SIZE)


def draw_samples(n: int, generator: np.random.Generator) -> pa.Table:
    rows = []
    for _ in range(n):
        cluster = int(generator.integers(N_CLUSTERS))
        own = generator.permutation(cluster_items(cluster))
        near = generator.permutation(cluster_items(cluster + 1))
        rows.append((own[:5], own[5:6], near[:1], [own[6], near[1]]))
    return sample_table(*([list(map(int, ids)) for ids in column] for column in zip(*rows, strict=True)))


@pytest.fixture(scope="session")
def world() -> World:
    generator = np.random.default_rng(0)
    item_ids = 1000 + np.arange(N_CLUSTERS * CLUSTER_SIZE)
    users = pa.table({"user_id": pa.array([0], pa.int64()), "profile": pa.array([["age=3"]])})
    items = item_table(item_ids, category_ids=(item_ids - 1000) // CLUSTER_SIZE)
    return World(items, users, draw_samples(1500, generator), draw_samples(300, generator))


@pytest.fixture
def config() -> IncRecConfig:
    """Small and quick; the id alone, no side features."""
    return IncRecConfig(
        variant="TB-Online",
        dim=16,
        hidden_dim=32,
        n_negatives=50,
        negatives="uniform",
        temperature=0.1,
        batch_size=128,
        epochs=8,
        n_category_buckets=0,
        n_author_buckets=0,
        n_brand_buckets=0,
        n_profile_buckets=16,
        n_threads=1,
    )


@pytest.fixture(scope="session")
def tables():
    """The makers of small item and sample tables."""
    return item_table, sample_table


def hit_rate(
    users: np.ndarray, items: np.ndarray, item_ids: np.ndarray, targets: pa.ChunkedArray, k: int
) -> float:
    """Give the share of targets among each user's ``k`` best items."""
    best = item_ids[np.argsort(-(users @ items.T), axis=1)[:, :k]]
    found = [len(set(row) & set(wanted)) for row, wanted in zip(best, targets.to_pylist(), strict=True)]
    return sum(found) / sum(map(len, targets.to_pylist()))


@pytest.fixture(scope="session")
def hit_rate_of(world):
    """Hit@k of a model on the world's test samples: ``(model, group, k, tower=None)``."""

    def measure(model, group: str, k: int, tower: str | None = None) -> float:
        items = model.embed_items(world.items)
        users = model.embed_users(world.test["history_item_ids"].combine_chunks(), tower=tower)
        return hit_rate(users, items, world.items["item_id"].to_numpy(), world.test[f"{group}_item_ids"], k)

    return measure


@pytest.fixture
def few(world):
    """Some of the world's samples, its items and users."""
    return world.train.slice(0, 400), world.items, world.users


@pytest.fixture
def run_child(few, tmp_path):
    """Train ``few`` by ``child.py`` in processes of their own: ``(config, n_processes=1, **options)``."""
    for name, table in zip(("samples", "items", "users"), few, strict=True):
        feather.write_feather(table, tmp_path / f"{name}.arrow")

    def run(config, n_processes: int = 1, **options) -> subprocess.CompletedProcess:
        (tmp_path / "options.json").write_text(json.dumps({"config": config.model_dump(), **options}))
        launcher = ["torch.distributed.run", "--nproc-per-node", str(n_processes), "--standalone", "-m"]
        command = [sys.executable, "-m", *(launcher if n_processes > 1 else [])]
        command += ["tests.models.increc.child", str(tmp_path)]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, cwd=REPOSITORY, env=environment, check=False, capture_output=True, text=True, timeout=120
        )

    return run
