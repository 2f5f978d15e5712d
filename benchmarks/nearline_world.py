"""
A release in which every user's triggers reach so many candidates: the world of the nearline benchmark.

The catalogue is as large as the candidates and a history; every trigger has T = 1250 targets drawn at random,
so that 100 triggers reach nearly all of it. Histories are of 500 items, so that only their targets are
needed. The weights are drawn, not learned: they cost the same.
"""

from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from lakehouse import tables
from lakehouse.releases import ReleaseContents, write_release
from lakehouse.serving import Serving, write_serving
from models.increc.vocabulary import build_vocabulary
from models.pi2i.config import PI2IConfig
from models.pi2i.model import TrainedScorer
from models.pi2i.network import Scorer
from models.pi2i.trigger_index import COUNTS

N_TRIGGERS, N_TRIGGER_ITEMS, TRUNCATION = 100, 500, 1250
DAY, END_OF_DAY = date(2022, 5, 3), datetime(2022, 5, 4)


def publish_world(root: Path, n_candidates: int, n_users: int, seed: int) -> None:
    """Write the release below ``root`` and make it the served one."""
    generator = np.random.default_rng(seed)
    n_items = n_candidates + N_TRIGGERS
    ids = np.arange(n_items)
    items = pa.table(
        {
            "item_id": ids,
            "item_index": (ids + 1).astype(np.int32),
            "category_id": ids % 50,
            "author_id": ids // 3,
            "brand_id": ids % 997,
            "price": (1 + ids % 90).astype(np.float32),
        }
    )
    config = PI2IConfig(n_triggers=N_TRIGGERS)
    torch.manual_seed(seed)
    vocabulary = build_vocabulary(items, config)
    scorer = TrainedScorer(config, vocabulary, Scorer(config, len(vocabulary)).eval())
    users = np.arange(n_users)
    histories = [generator.choice(N_TRIGGER_ITEMS, N_TRIGGERS, replace=False).tolist() for _ in users]
    contents = ReleaseContents(
        i2i_table=_i2i_table(n_items, generator),
        item_index=pa.table([ids, ids + 1, [DAY] * n_items], schema=tables.ITEM_INDEX.schema),
        items=items,
        user_history=pa.table(
            [users, histories, [[END_OF_DAY] * N_TRIGGERS] * n_users, [["home"] * N_TRIGGERS] * n_users],
            schema=tables.USER_HISTORY.schema,
        ),
        user_profile=pa.table(
            [users, [[f"age={user % 60}", f"city={user % 300}"] for user in users]],
            schema=tables.USER_SNAPSHOT.schema,
        ),
        popular_item_ids=ids[:1000],
        quotas={"swing": 100},
        scorer=scorer.to_bytes(),
        item_statistics=pa.table({"item_id": ids, **{name: ids % 100 for name in COUNTS}}),
    )
    manifest = write_release(
        root / "local" / "world", contents, day=DAY, code_version="benchmark", config_digest="benchmark"
    )
    write_serving(root, Serving("1", DAY, manifest.digest, "", "local/world", END_OF_DAY.isoformat()))


def _i2i_table(n_items: int, generator: np.random.Generator) -> pa.Table:
    truncation = min(TRUNCATION, n_items // 2)
    targets = [generator.choice(n_items, truncation, replace=False) for _ in range(N_TRIGGER_ITEMS)]
    rank = np.tile(np.arange(1, truncation + 1), N_TRIGGER_ITEMS)
    columns = {
        "trigger_item_id": np.repeat(np.arange(N_TRIGGER_ITEMS), truncation),
        "target_item_id": np.concatenate(targets),
        "score": 1 / rank,
        "rank": rank,
        "n_common_users": 2 + generator.integers(0, 20, len(rank)),
    }
    return pa.table(columns, schema=tables.I2I_TABLE.schema)
