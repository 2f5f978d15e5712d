"""The steps of a day as jobs for ``children``, and what MLflow says afterwards; run in children only."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

import time_machine

from tasks import (
    evaluate,
    gates,
    histories,
    ingest,
    policy,
    publish,
    register,
    release,
    samples,
    swing,
    tracking,
    train,
    validate,
)
from tasks.code_version import code_version
from tasks.settings import Settings, load_settings

METHODS = ("base", "increc")
STEPS: dict[str, Callable[[date, Settings], object]] = {
    "ingest_logs": ingest.ingest_logs,
    "validate_data": validate.validate_data,
    "build_histories": histories.build_histories,
    "rebuild_swing_index": swing.rebuild_swing_index,
    "construct_samples": samples.construct_samples,
    "train_base": lambda day, settings: train.train(day, "base", settings),
    "train_increc": lambda day, settings: train.train(day, "increc", settings),
    "evaluate": evaluate.evaluate,
    "build_release": release.build_release,
    "check_gates": gates.check_gates,
    "register_release": register.register_release,
    "publish_release": lambda day, settings: publish.publish_release(settings),
}
# The code may be edited while tests run: all children take the version that the server found.
code_version()


def run_step(name: str, day: str) -> dict[str, Any]:
    """Run one step of a day; give its report."""
    return asdict(STEPS[name](date.fromisoformat(day), load_settings()))


def run_step_and_die(name: str, day: str) -> None:
    """Run one step to its end and be killed before anyone hears of it."""
    run_step(name, day)
    os.kill(os.getpid(), signal.SIGKILL)


def run_step_at(name: str, day: str, at: str) -> dict[str, Any]:
    """Run one step of a day with the clock set to a moment, from which it goes on; the zone is TZ's."""
    time.tzset()
    with time_machine.travel(datetime.fromisoformat(at), tick=True):
        return run_step(name, day)


def run_day(day: str) -> None:
    """Run all steps of a day but publishing."""
    for name in list(STEPS)[:-1]:
        run_step(name, day)


def may_promote(day: str) -> tuple[bool, str]:
    """Ask whether a night's release that passed would be promoted."""
    return policy.may_promote(date.fromisoformat(day), False, load_settings())


def roll_back(to_version: str | None = None) -> dict[str, Any]:
    """Roll back as a person does."""
    return asdict(publish.rollback(load_settings(), to_version, reason="the fault suite"))


def move_alias(version: str) -> None:
    """Move the alias champion as a person does in MLflow's own pages."""
    settings = load_settings()
    with tracking.connection.connected(settings) as client:
        client.set_registered_model_alias(settings.model_name, "champion", version)


def registry() -> dict[str, Any]:
    """Tell what MLflow holds: versions, what the aliases name, and the runs of each day that count."""
    settings = load_settings()
    with tracking.connection.connected(settings) as client:
        versions = client.search_model_versions(f"name = '{settings.model_name}'")
        aliases = client.get_registered_model(settings.model_name).aliases
        experiment = client.get_experiment_by_name(settings.experiment).experiment_id
        runs = client.search_runs([experiment])
    kept = ("day", "release_digest", "verdict")
    by_version = {int(v.version): {name: v.tags[name] for name in kept} for v in versions}
    days = [run for run in runs if run.data.tags.get("kind") == "day"]
    return {
        "versions": [by_version[number] for number in sorted(by_version)],
        "aliases": {name: by_version[int(number)] for name, number in aliases.items()},
        "day_runs": sorted(run.data.tags["day"] for run in days if "superseded_by" not in run.data.tags),
        "unfinished": sorted(run.info.run_name for run in runs if run.info.status != "FINISHED"),
        "n_method_runs": sum(run.data.tags.get("kind") == "method" for run in runs),
    }
