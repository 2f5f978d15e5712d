"""A file of a release is changed, cut or gone on disk: it never serves; what serves stays or is mended."""

import json
import shutil
from pathlib import Path

import pytest

from lakehouse.releases import ReleaseCorrupt, verify_release
from lakehouse.serving import read_serving
from tests.faults.tally import Tally
from tests.faults.world import World, facts, served

KIND = "release file {} on disk"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {"flipped": flip, "cut": cut, "deleted": Path.unlink}


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def served_folder(world: World) -> Path:
    root = world.var / "releases"
    return root / read_serving(root).local_path


def registered_folder(world: World, state: Path) -> Path:
    """The artifacts of the release of the day in a state folder, or in one that was kept."""
    digest = world.undisturbed["done"].served["pointer"]
    manifests = (state / "mlartifacts").rglob("manifest.json")
    return next(path.parent for path in manifests if json.loads(path.read_text())["digest"] == digest)


def test_every_damage_to_every_file_is_noticed(world: World, tally: Tally, tmp_path: Path):
    world.restore("done")
    release = served_folder(world)
    for name in files_of(release):
        for what, damage in DAMAGES.items():
            with tally.fault(KIND.format(what)):
                shutil.copytree(release, tmp_path / "copy")
                damage(tmp_path / "copy" / name)
                with pytest.raises(ReleaseCorrupt) as refused:
                    verify_release(tmp_path / "copy")
                assert "\n" not in str(refused.value)
                shutil.rmtree(tmp_path / "copy")


def mend_served(world: World, tally: Tally, name: str, what: str) -> None:
    """Damage the served copy and publish: it is fetched again."""
    with tally.fault(KIND.format(what)):
        world.restore("done")
        DAMAGES[what](served_folder(world) / name)
        world.finish("publish_release")
        assert facts(world.var) == world.undisturbed["done"]


def refuse_registered(world: World, tally: Tally, name: str, what: str) -> None:
    """Damage the artifacts of the champion: it is refused in one line; mended, it is published."""
    with tally.fault(KIND.format(what)):
        world.restore("publish_release")
        damaged = registered_folder(world, world.var) / name
        DAMAGES[what](damaged)
        refused = world.run("publish_release")
        assert refused.exit_code == 1
        assert "\n" not in refused.error
        assert served(world.var) == world.undisturbed["publish_release"].served
        shutil.copy(registered_folder(world, world.folder / "kept/publish_release") / name, damaged)
        world.finish("publish_release")
        assert facts(world.var) == world.undisturbed["done"]


def refuse_staged(world: World, tally: Tally, name: str, what: str) -> None:
    """Damage the staged folder: it is not registered; built again, it is."""
    with tally.fault(KIND.format(what)):
        world.restore("register_release")
        DAMAGES[what](next((world.var / "releases/staged").glob("2*")) / name)
        refused = world.run("register_release")
        assert refused.exit_code == 1
        assert refused.error.startswith("ReleaseCorrupt")
        assert "\n" not in refused.error
        world.finish("build_release", "register_release")
        assert facts(world.var) == world.undisturbed["publish_release"]


def test_a_damaged_served_copy_is_fetched_again(world: World, tally: Tally):
    for what, name in zip(DAMAGES, ("i2i_table.parquet", "base/index.faiss", "manifest.json"), strict=True):
        mend_served(world, tally, name, what)


def test_damaged_artifacts_are_refused_and_the_old_release_serves(world: World, tally: Tally):
    refuse_registered(world, tally, "increc/model.safetensors", "flipped")


def test_a_damaged_staged_folder_is_not_registered(world: World, tally: Tally):
    refuse_staged(world, tally, "candidates/merged/scores.npy", "cut")


@pytest.mark.slow
@pytest.mark.parametrize("what", DAMAGES)
def test_any_file_damaged_on_its_way_never_serves(world: World, tally: Tally, what: str):
    world.restore("done")
    names = files_of(served_folder(world))
    for number, name in enumerate(names):
        mend_served(world, tally, name, what)
        refuse_registered(world, tally, name, what)
        if number % 6 == 0:
            refuse_staged(world, tally, name, what)
