"""Two at once: two runs of one day, two publishers of which one is slow, a person beside a night."""

import pytest

from tests.faults.children import Job
from tests.faults.tally import Tally
from tests.faults.world import DAY, EVE, NEXT, STEPS, World, facts, served

REGISTRY = "tests.faults.steps:registry"


def hold_at(world: World, tally: Tally, kind: str, step: str, share: float, hold_seconds: float = 30) -> None:
    """Hold one run of a step in its middle, let another run it whole, let the first go on; compare."""
    with tally.fault(kind):
        world.restore(step)
        n_calls = len(world.run(step, folder=str(world.var)).calls)
        world.restore(step)
        place = 1 + int(share * (n_calls - 1))
        options = {"folder": str(world.var), "stop_at": place, "action": "hold", "hold_seconds": hold_seconds}
        first, second = world.children.run(world.job(step, **options), world.job(step, folder=str(world.var)))
        for ended in (first, second):
            assert ended.exit_code == 0, ended.output[-3000:]
        after = (*STEPS, "done")[STEPS.index(step) + 1]
        assert facts(world.var) == world.undisturbed[after]
        if after in world.registries:
            assert world.children.call(REGISTRY) == world.registries[after]


@pytest.mark.parametrize("step", ["ingest_logs", "train_base", "build_release"])
def test_two_runs_of_one_day_at_once_give_the_partitions_of_one(world: World, tally: Tally, step: str):
    hold_at(world, tally, "two runs of one day at once", step, 0.6)


def test_two_registrations_at_once_make_one_version(world: World, tally: Tally):
    hold_at(world, tally, "two runs of one day at once", "register_release", 0.6, hold_seconds=1)


def test_a_slow_publisher_and_another_publish_once(world: World, tally: Tally):
    for share in (0.2, 0.97):
        hold_at(world, tally, "two publishers at once, one slow", "publish_release", share, hold_seconds=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [step for step in STEPS if step not in ("register_release", "publish_release")]
)
def test_two_runs_of_any_step_at_once_give_the_partitions_of_one(world: World, tally: Tally, step: str):
    for n in range(10):
        hold_at(world, tally, "two runs of one day at once", step, n / 9)


@pytest.mark.slow
def test_registrations_and_publishers_at_once_wherever_the_slow_one_is(world: World, tally: Tally):
    for n in range(10):
        kind = "two runs of one day at once"
        hold_at(world, tally, kind, "register_release", n / 9, hold_seconds=1)
        kind = "two publishers at once, one slow"
        hold_at(world, tally, kind, "publish_release", n / 9, hold_seconds=1)


@pytest.mark.slow
def test_two_whole_days_at_once_end_as_one(world: World, tally: Tally):
    with tally.fault("two runs of one day at once"):
        world.restore(STEPS[0])
        job = Job("tests.faults.steps:run_day", {"day": str(DAY)})
        for ended in world.children.run(job, job):
            assert ended.exit_code == 0 or ended.is_retried, ended.output[-3000:]
        world.finish(*STEPS[STEPS.index("build_release") :])
        assert facts(world.var).partitions == world.undisturbed["done"].partitions
        assert world.children.call(REGISTRY)["versions"] == world.registries["done"]["versions"]


@pytest.mark.slow
def test_a_rolled_back_release_stays_through_the_next_night_and_its_automatic_promotion(
    world: World, tally: Tally
):
    with tally.fault("rollback, then the next night"):
        world.restore("done")
        world.children.call("tests.faults.steps:roll_back")
        before = served(world.var)
        assert before["version"] == "1"
        world.finish(*STEPS, day=NEXT)
        assert served(world.var) == before
        aliases = world.children.call(REGISTRY)["aliases"]
        assert aliases["champion"]["day"] == str(EVE)
        assert aliases["challenger"]["day"] == str(NEXT)


@pytest.mark.slow
def test_a_rollback_killed_anywhere_is_in_force_or_never_was(world: World, tally: Tally):
    world.restore("done")
    job = Job("tests.faults.steps:roll_back", folder=str(world.var))
    (whole,) = world.children.run(job)
    assert whole.exit_code == 0
    for number in range(1, len(whole.calls) + 1, max(1, len(whole.calls) // 60)):
        with tally.fault("kill -9 during a rollback"):
            world.restore("done")
            killed = Job(job.function, folder=job.folder, stop_at=number, action="tear")
            world.children.run(killed)
            served(world.var)
            world.finish("publish_release")
            champion = world.children.call(REGISTRY)["aliases"]["champion"]["day"]
            assert served(world.var)["version"] == {str(EVE): "1", str(DAY): "2"}[champion]
            may, reason = world.children.call("tests.faults.steps:may_promote", day=str(NEXT))
            assert may == (champion == str(DAY)), reason
