"""The disk fills up in the middle of a step: one clear line, nothing half there; with space again, equal."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nearline.store import OnlineStore, open_store
from tests.conftest import skip_or_fail
from tests.faults.children import Ended
from tests.faults.tally import Tally
from tests.faults.world import STEPS, World, assert_nothing_is_half_there, facts

PAGE = 4096
ROOMY = 1 << 30


def size_of(folder: Path) -> int:
    """Bytes that a folder takes on a tmpfs: whole pages."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def small_disk(world: World) -> Iterator[Callable[[str, int], None]]:
    """Put the state of before a step on a disk of its own, with so many bytes left."""
    services: list[OnlineStore] = []

    def unmount() -> None:
        for store in services:
            store.close()
        services.clear()
        subprocess.run(["umount", "--lazy", world.var], check=False, capture_output=True)

    def mount(name: str, n_left: int) -> None:
        unmount()
        shutil.rmtree(world.var)
        world.var.mkdir()
        kept = world.folder / "kept" / name
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", world.var],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            skip_or_fail(f"no right to mount a tmpfs here: {done.stderr.strip()}")
        shutil.copytree(kept, world.var, dirs_exist_ok=True)
        # The service has the store open: SQLite cannot open a file in this mode on a disk that is full.
        services.append(open_store(f"sqlite:///{world.var / 'online.db'}"))
        services[-1].serving()
        disk = os.statvfs(world.var)
        used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
        resize(world, used + n_left)

    yield mount
    unmount()


def resize(world: World, n_bytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={n_bytes}", world.var], check=True)


def after(step: str) -> str:
    return (*STEPS, "done")[STEPS.index(step) + 1]


def assert_told_and_whole(world: World, step: str, ended: Ended) -> None:
    """It was one line that a retry may mend; the old or the new state is there, whole."""
    assert ended.exit_code == 1, ended.output[-3000:]
    assert ended.is_retried, ended.output[-3000:]
    assert "\n" not in ended.error
    assert_nothing_is_half_there(world, world.undisturbed[step], world.undisturbed[after(step)])


def fill_up(world: World, tally: Tally, mount: Callable[[str, int], None], step: str, share: float) -> None:
    """Leave room for a share of what the step adds; then make room and run it again."""
    before, later = (size_of(world.folder / "kept" / name) for name in (step, after(step)))
    with tally.fault("disk full"):
        mount(step, max(PAGE, int(share * (later - before)) // PAGE * PAGE))
        ended = world.run(step)
        assert_told_and_whole(world, step, ended)
        resize(world, ROOMY)
        world.finish(step)
        assert facts(world.var) == world.undisturbed[after(step)]


@pytest.mark.parametrize("step", ["ingest_logs", "train_increc", "build_release", "publish_release"])
def test_a_full_disk_is_one_line_and_nothing_half(world: World, tally: Tally, small_disk, step: str):
    for share in (0.1, 0.6):
        fill_up(world, tally, small_disk, step, share)


def test_a_file_that_may_not_grow_is_one_line_and_nothing_half(world: World, tally: Tally):
    with tally.fault("file size limit"):
        world.restore("build_release")
        ended = world.run("build_release", file_bytes=8192)
        assert_told_and_whole(world, "build_release", ended)
        world.finish("build_release")
        assert facts(world.var) == world.undisturbed["check_gates"]


@pytest.mark.slow
@pytest.mark.parametrize("step", [step for step in STEPS if step != "publish_release"])
def test_a_disk_full_anywhere_is_one_line_and_nothing_half(world: World, tally: Tally, small_disk, step: str):
    for n in range(8):
        fill_up(world, tally, small_disk, step, n / 8)
