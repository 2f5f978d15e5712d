"""A tiny prepared world: days that ran undisturbed, kept before every step; what must hold after a fault."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from lakehouse.commit import partition_folder
from lakehouse.digest import digest_rows
from lakehouse.releases import open_release, verify_release
from lakehouse.serving import read_serving
from lakehouse.store import Lakehouse
from lakehouse.tables import TABLES
from nearline.store import open_store
from tasks.promotions import read_promotions
from tests.faults.children import Children, Ended, Job

FIRST, SECOND, EVE, DAY, NEXT = (date(2026, 1, n) for n in range(1, 6))
PREPARING = ("ingest_logs", "validate_data", "build_histories", "rebuild_swing_index", "construct_samples")
STEPS = (
    *PREPARING,
    *("train_base", "train_increc", "evaluate", "build_release", "check_gates", "register_release"),
    "publish_release",
)
SETTINGS = """
promotion = "auto"
window_days = 3
n_threads = 1
history_length = 20
gates_file = "{gates}"
[samples]
retrieved_per_user = 40
[source.synthetic]
n_users = 40
n_items = 100
n_days = 5
n_clusters = 4
n_scenarios = 3
new_users_per_day = 3
new_items_per_day = 4
ranking_length = 20
[evaluation]
ks = [10, 50]
n_bootstrap = 100
[methods.base]
variant = "TB-Online"
{tower}
[methods.increc]
variant = "IncRec"
{tower}
[channels]
swing = 10
base = 20
increc = 10
"""
TOWER = """
epochs = 1
dim = 8
n_category_buckets = 16
n_author_buckets = 16
n_brand_buckets = 16
n_profile_buckets = 16
"""
# Imported once; what the steps would import when they first need it.
WARM = (
    *(
        "tests.faults.steps",
        "pyarrow.dataset",
        "pyarrow.pandas_compat",
        "torch._dynamo",
        "git",
        "alembic.command",
    ),
    *(
        "mlflow.pyfunc",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.model_registry.sqlalchemy_store",
    ),
    *(
        "models.swing_kernel",
        "models.search_kernel",
        "numba.typed",
        "numba.experimental",
        "matplotlib.pyplot",
    ),
)
GATES = """
[finite_losses]
kind = "finite_losses"
[index_recall]
kind = "release"
figure = "index_recall"
floor = 0.5
"""


@dataclass
class World:
    """
    The world in ``folder``; what runs and is disturbed is always ``var``, since MLflow keeps whole paths.

    ``undisturbed`` holds for each step what there is before it, and under ``done`` what there is at last.
    """

    folder: Path
    children: Children
    undisturbed: dict[str, "Facts"] = field(default_factory=dict)
    registries: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def var(self) -> Path:
        """The state folder."""
        return self.folder / "var"

    def keep(self, name: str) -> None:
        """Keep the state as it is now."""
        shutil.copytree(self.var, self.folder / "kept" / name)
        self.undisturbed[name] = facts(self.var)

    def restore(self, name: str) -> None:
        """Take the state back to what was kept."""
        shutil.rmtree(self.var)
        shutil.copytree(self.folder / "kept" / name, self.var)

    def run(self, step: str, day: date = DAY, **options: Any) -> Ended:
        """Run one step in a process of its own."""
        return self.children.run(self.job(step, day, **options))[0]

    def job(self, step: str, day: date = DAY, **options: Any) -> Job:
        """Describe one step."""
        return Job("tests.faults.steps:run_step", {"name": step, "day": str(day)}, **options)

    def finish(self, *steps: str, day: date = DAY) -> None:
        """Run steps that must succeed."""
        for step in steps:
            ended = self.run(step, day)
            assert ended.exit_code == 0, f"{step}: {ended.output[-3000:]}"


def prepare(folder: Path) -> World:
    """Run the days: three of which the last is published, then ``DAY``, kept before each step."""
    gates, settings = folder / "gates.toml", folder / "settings.toml"
    gates.write_text(GATES)
    settings.write_text(SETTINGS.format(gates=gates, tower=TOWER))
    environment = os.environ | {
        "TRIBUTARY_SETTINGS": str(settings),
        "TRIBUTARY_VAR": str(folder / "var"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }
    world = World(folder, Children(list(WARM), environment))
    for day in (FIRST, SECOND):
        world.finish(*PREPARING, day=day)
    world.finish(*STEPS, day=EVE)
    for step in STEPS:
        world.keep(step)
        world.finish(step)
    world.keep("done")
    for name in ("publish_release", "done"):
        world.restore(name)
        world.registries[name] = world.children.call("tests.faults.steps:registry")
    return world


@dataclass(frozen=True)
class Facts:
    """
    What there is: partition -> digest, staged day -> digest, and what serves (None before the first release).

    Reading them checks them: every row of every partition, every file of the served release.
    """

    partitions: dict[str, str]
    staged: dict[str, str]
    served: dict[str, Any]
    promotions: list[tuple[str | None, str, str]]


def facts(var: Path) -> Facts:
    """Read all of it, whole; raises where something is half there."""
    return Facts(
        partitions=dict(_partitions(var)),
        staged={
            path.name: verify_release(path).digest for path in sorted((var / "releases/staged").glob("2*"))
        },
        served=served(var),
        promotions=[(p.from_version, p.version, p.kind) for p in read_promotions(var / "releases")],
    )


def _partitions(var: Path) -> Iterator[tuple[str, str]]:
    lakehouse = Lakehouse(var / "lakehouse")
    for table in TABLES.values():
        for day, part in lakehouse.partitions(table):
            rows, commit = lakehouse.read(table, day, part=part), lakehouse.commit(table, day, part=part)
            folder = partition_folder(table, day, part)
            assert digest_rows(rows) == commit.digest, f"{folder} has other rows than its marker says"
            yield folder, commit.digest


def served(var: Path) -> dict[str, Any]:
    """
    Read what serves as the recommendation service does: the pointer's release, and every user of the store.

    Raises:
        AssertionError: the store's lists are not exactly those of one whole release.
    """
    root = var / "releases"
    pointer = read_serving(root)
    if pointer is None:
        return {}
    assert verify_release(root / pointer.local_path).digest == pointer.release_digest
    store = open_store(f"sqlite:///{var / 'online.db'}")
    record = store.serving()
    release = open_release(root / "local" / record["release"])
    for name, stored_name in record["lists"].items():
        lists = release.candidates(name)
        for user, item_ids in zip(lists.user_ids.tolist(), lists.item_ids, strict=True):
            found = store.read(stored_name, user)
            assert found is not None, f"user {user} of {name} is lost"
            assert found.release == record["release"]
            assert found.item_ids.tolist() == item_ids[item_ids >= 0].tolist()
    store.close()
    return {"pointer": pointer.release_digest, "store": record["release"], "version": pointer.version}


def assert_nothing_is_half_there(world: World, before: Facts, after: Facts) -> None:
    """Whatever the fault hit: each partition is the old or the new one, and one whole release serves."""
    found = Facts(
        dict(_partitions(world.var)),
        {},
        served(world.var),
        [(p.from_version, p.version, p.kind) for p in read_promotions(world.var / "releases")],
    )
    for partition in before.partitions.keys() | after.partitions.keys() | found.partitions.keys():
        allowed = (before.partitions.get(partition), after.partitions.get(partition))
        assert found.partitions.get(partition) in allowed, f"{partition} is neither the old nor the new one"
    for reader in ("pointer", "store"):
        assert found.served[reader] in (before.served[reader], after.served[reader])
    assert found.promotions in (before.promotions, after.promotions)


def show(value: Any) -> str:
    """Give facts as a text that a failed comparison shows well."""
    return json.dumps(value, indent=1, sort_keys=True, default=str)
