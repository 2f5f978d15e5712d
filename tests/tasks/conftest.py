"""A state folder with three registered releases, and what may befall the alias champion."""

import shutil
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tasks import tracking
from tasks.settings import Settings
from tests.tasks.registered import DAYS
from tests.tasks.small_releases import (
    DAY,
    small_contents,
    small_record,
    small_settings,
    write_small,
)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with three registered releases: versions 1, 2 and 3 of three days."""
    var = tmp_path_factory.mktemp("state")
    settings = small_settings(var)
    for seed, (version, day) in enumerate(DAYS.items()):
        folder = settings.staged_root / day.isoformat()
        write_small(folder, small_contents(seed), day)
        record = small_record(day, methods=(), verdict="passed")
        run = tracking.log_day(record, settings)
        assert tracking.register_version(folder, record, run.run_id, settings).version == version
    return var


@pytest.fixture
def settings(registered: Path, tmp_path: Path) -> Settings:
    """A copy of the state folder of its own, artifacts included."""
    var = tmp_path / "var"
    shutil.copytree(registered, var)
    addresses = {
        "experiments": "artifact_location",
        "runs": "artifact_uri",
        "logged_models": "artifact_location",
    }
    with sqlite3.connect(var / "mlflow.db") as database:
        for table, column in addresses.items():
            database.execute(
                f"update {table} set {column} = replace({column}, ?, ?)", (str(registered), str(var))
            )
    return small_settings(var, promotion="auto")


@pytest.fixture
def move_alias(settings: Settings) -> Callable[[str], None]:
    """Move the alias champion as a person does in MLflow's own pages."""

    def move(version: str) -> None:
        with tracking.connection.connected(settings) as client:
            client.set_registered_model_alias(settings.model_name, "champion", version)

    return move


@pytest.fixture
def failed(settings: Settings) -> str:
    """A fourth version, whose gate `volume` failed."""
    day = DAY + timedelta(days=3)
    folder = settings.staged_root / day.isoformat()
    write_small(folder, small_contents(9), day)
    record = small_record(day, methods=())
    run = tracking.log_day(record, settings)
    return tracking.register_version(folder, record, run.run_id, settings).version
