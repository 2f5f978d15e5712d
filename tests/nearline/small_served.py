"""A small world that serves: 60 items in a circle, 20 users with histories, a scorer of random weights."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from lakehouse import tables
from lakehouse.releases import Manifest, ReleaseContents, write_release
from lakehouse.serving import Serving, write_serving
from models.increc.vocabulary import build_vocabulary
from models.pi2i.config import PI2IConfig
from models.pi2i.model import TrainedScorer
from models.pi2i.network import Scorer
from models.pi2i.prices import log_prices
from models.pi2i.trigger_index import COUNTS, TriggerIndex, trigger_index
from nearline.clicks import Click, Delivery, read_click

N_ITEMS, N_USERS, N_TARGETS = 60, 20, 8
DAY = date(2022, 5, 3)
END_OF_DAY = datetime(2022, 5, 4)
START = int(END_OF_DAY.timestamp() * 1_000_000) + 86_400_000_000
UNAVAILABLE = 59
CLICKS = [Click(7, item, START + item) for item in range(6)]
CONFIG = PI2IConfig(
    dim=8,
    hidden_dim=8,
    n_heads=2,
    n_triggers=10,
    n_category_buckets=16,
    n_author_buckets=0,
    n_brand_buckets=0,
    n_profile_buckets=32,
)


def i2i_table(shift: int = 0) -> pa.Table:
    """Every item leads to the 8 after it, from ``shift`` on, in a circle."""
    trigger = np.repeat(np.arange(N_ITEMS), N_TARGETS)
    rank = np.tile(np.arange(1, N_TARGETS + 1), N_ITEMS)
    columns = {
        "trigger_item_id": trigger,
        "target_item_id": (trigger + rank + shift) % N_ITEMS,
        "score": 1.0 / rank,
        "rank": rank,
        "n_common_users": 2 + rank % 3,
    }
    return pa.table(columns, schema=tables.I2I_TABLE.schema)


def items() -> pa.Table:
    """All items but one that cannot be recommended."""
    ids = np.arange(N_ITEMS - 1)
    return pa.table(
        {
            "item_id": ids,
            "item_index": (ids + 1).astype(np.int32),
            "category_id": ids % 7,
            "price": pa.array((ids % 5 + 1.0).tolist(), pa.float32()),
        }
    )


def histories() -> list[list[int]]:
    """Each user's items, oldest first; users 0 and 1 have none."""
    generator = np.random.default_rng(1)
    return [generator.choice(N_ITEMS, min(user // 2, 6), replace=False).tolist() for user in range(N_USERS)]


@cache
def scorer(seed: int = 0) -> TrainedScorer:
    """Draw a scorer's weights."""
    torch.manual_seed(seed)
    vocabulary = build_vocabulary(items(), CONFIG)
    return TrainedScorer(CONFIG, vocabulary, Scorer(CONFIG, len(vocabulary)).eval())


def contents(seed: int = 0) -> ReleaseContents:
    """Another seed is another scorer and another i2i table."""
    users = np.arange(N_USERS)
    own = histories()
    times = [[END_OF_DAY - timedelta(minutes=len(row) - at) for at in range(len(row))] for row in own]
    scenarios = [["home"] * len(row) for row in own]
    return ReleaseContents(
        i2i_table=i2i_table(shift=seed),
        item_index=pa.table(
            [np.arange(N_ITEMS), np.arange(1, N_ITEMS + 1), [DAY] * N_ITEMS], schema=tables.ITEM_INDEX.schema
        ),
        items=items(),
        user_history=pa.table([users, own, times, scenarios], schema=tables.USER_HISTORY.schema),
        user_profile=pa.table([users, profiles()], schema=tables.USER_SNAPSHOT.schema),
        popular_item_ids=np.arange(N_ITEMS)[::-1],
        quotas={"swing": 5},
        scorer=scorer(seed).to_bytes(),
        item_statistics=item_statistics(),
    )


def item_statistics() -> pa.Table:
    """Count something of every other item."""
    ids = np.arange(0, N_ITEMS, 2)
    return pa.table({"item_id": ids, **{name: ids % (at + 3) for at, name in enumerate(COUNTS)}})


def profiles() -> list[list[str]]:
    """Every user's tokens."""
    return [[f"side={user % 2}"] for user in range(N_USERS)]


def publish(root: Path, seed: int = 0) -> Manifest:
    """Write a release below ``root`` and make it the served one."""
    folder = root / "local" / f"seed{seed}"
    manifest = write_release(folder, contents(seed), day=DAY, code_version="abc", config_digest="c0ffee")
    write_serving(
        root, Serving(str(seed), DAY, manifest.digest, "", f"local/seed{seed}", "2022-05-04T01:00:00")
    )
    return manifest


@cache
def _index(seed: int) -> TriggerIndex:
    available = items()["item_id"].to_numpy()
    return trigger_index(i2i_table(shift=seed), allowed_item_ids=available, item_statistics=item_statistics())


def expected_list(user_id: int, clicks: Iterable[Click], k: int, seed: int = 0) -> list[int]:
    """Give what the batch retrieves for the user's history with these clicks, or else popular items."""
    newest: dict[int, int] = {}
    for click in clicks:
        newest[click.item_id] = max(newest.get(click.item_id, 0), click.event_time)
    last = sorted(newest, key=lambda item: (newest[item], item))
    before = [item for item in (histories()[user_id] if user_id < N_USERS else []) if item not in newest]
    history = [*before, *last]
    index = _index(seed)
    profile = pa.array([profiles()[user_id] if user_id < N_USERS else None], pa.list_(pa.string()))
    lists = pa.array([history], pa.list_(pa.int64()))
    prices = log_prices(items())
    found = scorer(seed).retrieve(index, items(), lists, profile, k, log_prices=prices, n_threads=1)[0]
    if (found >= 0).any():
        return found[found >= 0].tolist()
    return [item for item in range(N_ITEMS - 2, -1, -1) if item not in history][:k]


def some_clicks(n: int, seed: int = 5, n_users: int = N_USERS + 3) -> list[Click]:
    """Draw clicks after the release's day, a millisecond apart; some users and items are unknown."""
    generator = np.random.default_rng(seed)
    users, clicked = generator.integers(0, n_users, n), generator.integers(0, N_ITEMS + 3, n)
    return [
        Click(user, item, START + 1000 * at)
        for at, (user, item) in enumerate(zip(users.tolist(), clicked.tolist(), strict=True))
    ]


def by_user(clicks: Iterable[Click]) -> dict[int, list[Click]]:
    """Gather each user's clicks."""
    found: dict[int, list[Click]] = {}
    for click in clicks:
        found.setdefault(click.user_id, []).append(click)
    return found


def items_of(deliveries: list[Delivery]) -> list[int]:
    """Give the items of deliveries that are clicks."""
    return [read_click(delivery.fields, latest=2**62).item_id for delivery in deliveries]
