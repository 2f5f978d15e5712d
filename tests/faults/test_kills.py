"""kill -9 at every boundary of steps and in the middle of every write; then the step runs again."""

import re
import signal
from collections import defaultdict

import pytest

from tests.faults.children import Job
from tests.faults.tally import Tally
from tests.faults.world import DAY, STEPS, World, assert_nothing_is_half_there, facts

REGISTRY = "tests.faults.steps:registry"
KILLED = -signal.SIGKILL
# What is written, by where below the state folder.
WRITES = {
    "commit marker": r"lakehouse/.*_COMMIT\.json",
    "partition data file": r"lakehouse/.*\.parquet",
    "index file": r"releases/staged/.*\.faiss",
    "release folder": r"releases/staged/",
    "verified copy": r"releases/local/",
    "pointer": r"releases/\.?SERVING",
    "promotion log": r"releases/promotions/",
    "online store": r"online\.db",
    "MLflow registration": r"mlflow\.db",
    "MLflow upload": r"mlartifacts/",
    "data docs": r"data_docs/",
    "folder or lock": r"",
}
CONTENT = ("write", "pwrite", "sendfile", "rename")
# Kill points per step: some of each kind of call on each kind of file, or all up to a number.
QUICK_STEPS = ("ingest_logs", "train_base", "build_release", "publish_release")
MOST_IN_SLOW = {"register_release": 60, "publish_release": 150}


def kind_of(call: str) -> str:
    path = call.split(" ", 1)[1]
    return next(kind for kind, pattern in WRITES.items() if re.match(pattern, path))


def after(step: str) -> str:
    return (*STEPS, "done")[STEPS.index(step) + 1]


def calls_of(world: World, step: str) -> list[str]:
    """The calls of an undisturbed run; a count of them is a place to kill at."""
    world.restore(step)
    ended = world.run(step, folder=str(world.var))
    assert ended.exit_code == 0, ended.output[-3000:]
    return ended.calls


def one_of_each(calls: list[str]) -> list[int]:
    """The middle write, and the middle rename, of each kind of file; numbers count from 1."""
    places = defaultdict(list)
    for number, call in enumerate(calls, 1):
        if (name := call.split(" ", 1)[0]) in CONTENT:
            places[name == "rename", kind_of(call)].append(number)
    return sorted(numbers[len(numbers) // 2] for numbers in places.values())


def spread(calls: list[str], most: int) -> list[int]:
    """All places, or ``most`` of them evenly spread and one of each kind."""
    if len(calls) <= most:
        return list(range(1, len(calls) + 1))
    even = {1 + n * (len(calls) - 1) // (most - 1) for n in range(most)}
    return sorted(even | set(one_of_each(calls)))


def kill_and_run_again(world: World, tally: Tally, step: str, number: int, call: str) -> None:
    """Kill a step at its n-th call, in the middle of it if it writes; look; run the step again; compare."""
    with tally.fault(f"kill -9 while writing: {kind_of(call)}"):
        world.restore(step)
        killed = world.run(step, folder=str(world.var), stop_at=number, action="tear")
        # Threads and the clock may make a run a call shorter than the one that was counted.
        assert killed.exit_code in (KILLED, 0), killed.output[-3000:]
        where = f"{step} killed at call {number}: {call}"
        try:
            check_and_run_again(world, step)
        except Exception as error:
            raise AssertionError(f"{where}: {error}") from error


def check_and_run_again(world: World, step: str) -> None:
    expected = world.undisturbed[after(step)]
    assert_nothing_is_half_there(world, world.undisturbed[step], expected)
    world.finish(step)
    assert facts(world.var) == expected
    if step in ("register_release", "publish_release"):
        assert world.children.call(REGISTRY) == world.registries[after(step)]


def test_a_step_killed_at_its_end_can_run_again(world: World, tally: Tally):
    for step in STEPS:
        with tally.fault("kill -9 at a step boundary"):
            world.restore(step)
            job = Job("tests.faults.steps:run_step_and_die", {"name": step, "day": str(DAY)})
            assert world.children.run(job)[0].exit_code == KILLED
            assert facts(world.var) == world.undisturbed[after(step)], step
            check_and_run_again(world, step)


@pytest.mark.parametrize("step", QUICK_STEPS)
def test_a_step_killed_in_each_kind_of_write_leaves_old_or_new_and_can_run_again(
    world: World, tally: Tally, step: str
):
    calls = calls_of(world, step)
    for number in one_of_each(calls):
        kill_and_run_again(world, tally, step, number, calls[number - 1])


def test_a_registration_killed_while_writing_can_run_again(world: World, tally: Tally):
    calls = calls_of(world, "register_release")
    kinds = [kind_of(call) for call in calls]
    uploads = [number for number, kind in enumerate(kinds, 1) if kind == "MLflow upload"]
    changes = [number for number, kind in enumerate(kinds, 1) if kind == "MLflow registration"]
    unlinks = [number for number, kind in enumerate(kinds, 1) if kind == "release folder"]
    for number in (uploads[len(uploads) // 2], changes[len(changes) // 2], changes[-20], unlinks[3]):
        kill_and_run_again(world, tally, "register_release", number, calls[number - 1])


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_step_killed_at_any_call_leaves_old_or_new_and_can_run_again(world: World, tally: Tally, step: str):
    calls = calls_of(world, step)
    for number in spread(calls, MOST_IN_SLOW.get(step, 100)):
        kill_and_run_again(world, tally, step, number, calls[number - 1])


@pytest.mark.slow
def test_a_day_whose_every_step_is_killed_once_ends_as_if_nothing_had_been(world: World, tally: Tally):
    world.restore(STEPS[0])
    for number, step in enumerate(STEPS):
        with tally.fault("kill -9 in every step of one day"):
            killed = world.run(step, folder=str(world.var), stop_at=7 + number, action="tear")
            assert killed.exit_code == KILLED
            world.finish(step)
            assert facts(world.var) == world.undisturbed[after(step)]
    assert world.children.call(REGISTRY) == world.registries["done"]
