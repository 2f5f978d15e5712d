"""
Does training carried on from yesterday keep up with training from scratch on the whole window?

    python -m benchmarks.carried_on [--days 10] [--window 5] [--samples 1500] [--seeds 3]

A world of item clusters that changes: each day some users' interest moves on and new items appear in every
cluster. Each day both ways learn up to that day, and are measured on the day after: Hit@K of all targets over
all items, and the loss of the serving tower. The last line is one JSON object; its ratio is Hit@K carried on
over Hit@K from scratch, the mean over the days after the window first was full, and over the seeds.
"""

import argparse
import json
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from benchmarks.arguments import at_least_one
from models.increc.config import TOWERS, IncRecConfig
from models.increc.model import TrainedModel
from models.increc.training import train

FIRST = date(2026, 1, 1)
N_CLUSTERS, FIRST_ITEMS, NEW_ITEMS = 20, 40, 2
IDS = pa.list_(pa.int64())


@dataclass(frozen=True)
class Figures:
    """One day's: by way (scratch, carry_on) Hit@K, loss on the next day, and seconds of training."""

    day: int
    hit_rate: dict[str, float]
    loss: dict[str, float]
    seconds: dict[str, float]


class World:
    """Users of one cluster each, who click its items, the next cluster's, and most of all the new ones."""

    def __init__(self, seed: int, n_users: int = 2000) -> None:
        """Place the users."""
        self.generator = np.random.default_rng(seed)
        self.cluster = self.generator.integers(N_CLUSTERS, size=n_users)

    def items(self, day: int) -> pa.Table:
        """Give the items of all days so far: item n belongs to cluster n mod ``N_CLUSTERS``."""
        ids = np.arange(self._n_items(day))
        return pa.table(
            {"item_id": ids, "item_index": (ids + 1).astype(np.int32), "category_id": ids % N_CLUSTERS}
        )

    def samples(self, day: int, n: int) -> pa.Table:
        """Draw a day's requests; a share of the users moves to another cluster before."""
        is_moved = self.generator.random(len(self.cluster)) < 0.05
        self.cluster[is_moved] = self.generator.integers(N_CLUSTERS, size=is_moved.sum())
        users = self.generator.integers(len(self.cluster), size=n)
        own, near = self.cluster[users], self.cluster[users] + 1
        columns = {
            "history_item_ids": self._draw(own, 8, day - 1),
            "rtg_item_ids": self._draw(own, 1, day),
            "itg_item_ids": self._draw(near, 1, day),
            "etg_item_ids": self._draw(near, 2, day),
        }
        columns = {name: pa.array(list(rows), IDS) for name, rows in columns.items()}
        ds = pa.array([FIRST + timedelta(days=day)] * n)
        columns |= {"event_time": ds.cast(pa.timestamp("us")), "ds": ds}
        return pa.table({"request_id": np.arange(n), "user_id": users, **columns})

    def _n_items(self, day: int) -> int:
        return N_CLUSTERS * (FIRST_ITEMS + NEW_ITEMS * max(day, 0))

    def _draw(self, clusters: np.ndarray, n: int, day: int) -> np.ndarray:
        per_cluster = self._n_items(day) // N_CLUSTERS
        age = self.generator.exponential(per_cluster / 3, (len(clusters), n)).astype(np.int64) % per_cluster
        return (per_cluster - 1 - age) * N_CLUSTERS + clusters[:, None] % N_CLUSTERS


def compare(config: IncRecConfig, *, n_days: int, window: int, n_samples: int, k: int) -> list[Figures]:
    """Train both ways on each day from the day the window is full, and measure them on the day after."""
    world = World(config.seed)
    users = pa.table({"user_id": pa.array([], pa.int64()), "profile": pa.array([], pa.list_(pa.string()))})
    days = [world.samples(day, n_samples) for day in range(n_days + 1)]
    carried: TrainedModel | None = None
    figures = []
    for day in range(window - 1, n_days):
        items = world.items(day)
        learned = pa.concat_tables(days[day - window + 1 : day + 1])
        ways = {"scratch": (learned, None), "carry_on": (days[day] if carried else learned, carried)}
        models, seconds = {}, {}
        for way, (samples, initial) in ways.items():
            changed = config.model_copy(update={"start": way})
            models[way], report = train(samples, items, users, changed, initial=initial, device="cpu")
            seconds[way] = report.seconds
        carried = models["carry_on"]
        if day > window - 1:
            hits = {way: hit_rate(model, days[day + 1], items, k) for way, model in models.items()}
            losses = {way: loss(model, days[day + 1], items) for way, model in models.items()}
            figures.append(Figures(day + 1, hits, losses, seconds))
    return figures


def hit_rate(model: TrainedModel, samples: pa.Table, items: pa.Table, k: int) -> float:
    """Give the share of all targets among each request's ``k`` best items."""
    scores = model.embed_users(samples["history_item_ids"].combine_chunks()) @ model.embed_items(items).T
    best = np.argpartition(-scores, k, axis=1)[:, :k]
    targets = np.stack([samples[f"{group}_item_ids"].combine_chunks().flatten() for group in ("rtg", "itg")])
    return float((items["item_id"].to_numpy()[best] == targets[:, :, None]).any(axis=2).mean())


def loss(model: TrainedModel, samples: pa.Table, items: pa.Table) -> float:
    """Give the mean -log softmax of a target over all items of the day, targets that are newer left out."""
    config = model.config
    users = model.embed_users(samples["history_item_ids"].combine_chunks())
    scores = users @ model.embed_items(items).T / config.temperature
    log_sum = np.log(np.exp(scores).sum(axis=1))
    targets = samples["itg_item_ids"].combine_chunks().flatten().to_numpy()
    is_known = targets < len(items)
    return float(
        (log_sum - scores[np.arange(len(scores)), targets.clip(max=len(items) - 1)])[is_known].mean()
    )


def main(arguments: list[str] | None = None) -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    for name, default in (("days", 10), ("window", 5), ("samples", 1500), ("seeds", 3), ("k", 50)):
        parser.add_argument(f"--{name}", type=at_least_one, default=default)
    parser.add_argument("--method", choices=TOWERS, default="TB-Online")
    given = parser.parse_args(arguments)
    if given.days <= given.window:
        parser.error(f"--days {given.days} must be more than --window {given.window}, the first days learned")
    ratios, rows = [], []
    for seed in range(given.seeds):
        config = IncRecConfig(variant=given.method, seed=seed, n_author_buckets=0, n_brand_buckets=0)
        size = {"n_days": given.days, "window": given.window, "n_samples": given.samples, "k": given.k}
        for day in compare(config, **size):
            rows.append(
                {
                    "seed": seed,
                    "day": day.day,
                    **{
                        f"{name}_{way}": getattr(day, name)[way]
                        for name in ("hit_rate", "loss", "seconds")
                        for way in ("scratch", "carry_on")
                    },
                }
            )
            ratios.append(day.hit_rate["carry_on"] / day.hit_rate["scratch"])
            print("  ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True)
    names = [name for name in rows[0] if name not in ("seed", "day")]
    means = {name: float(np.mean([row[name] for row in rows])) for name in names}
    figures = {**means, "days": rows}
    print(json.dumps({"name": "carried_on", "ratio": float(np.mean(ratios)), "figures": figures}))


if __name__ == "__main__":
    main()
