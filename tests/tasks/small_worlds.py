"""A small synthetic world whose days are prepared: ingested, with histories, i2i tables and samples."""

from datetime import date, timedelta
from pathlib import Path

from tasks.prepare import STEPS, run_step
from tasks.settings import Settings

FIRST = date(2026, 1, 1)
N_DAYS = 5
DAYS = [FIRST + timedelta(days=n) for n in range(N_DAYS)]


def world_settings(var: Path, **changes: object) -> Settings:
    """Settings of a world of 300 users and 400 items, with towers that train in a moment."""
    world = {"n_users": 300, "n_items": 400, "n_days": N_DAYS, "n_clusters": 6, "first_day": FIRST}
    small = {"epochs": 1, "dim": 16, "n_author_buckets": 64, "n_profile_buckets": 64}
    return Settings(
        **{
            "var": var,
            "source": {"preset": "synthetic", "synthetic": world},
            "window_days": 6,
            "samples": {"retrieved_per_user": 50},
            "evaluation": {"ks": (10, 40), "n_bootstrap": 100},
            "methods": {
                "base": {"variant": "TB-Online", "seed": 1, **small},
                "base_reseeded": {"variant": "TB-Online", "seed": 2, **small},
                "increc": {"variant": "IncRec", "seed": 1, **small},
            },
            "channels": {"swing": 20, "base": 20},
            "n_threads": 1,
        }
        | changes
    )


def prepare(settings: Settings, days: list[date] = DAYS) -> None:
    """Run the steps that a comparison needs; validation writes no table."""
    for day in days:
        for name in STEPS:
            if name != "validate_data":
                run_step(name, day, settings)
