"""Approving and rolling back: what moves, what is refused, what stops automatic promotion."""

import shutil
from datetime import date
from pathlib import Path

import pytest

from lakehouse.serving import read_serving
from nearline.store import StoreUnavailable
from tasks import tracking
from tasks.approval import CannotServe, NotApproved
from tasks.decide import (
    EarlierRelease,
    NothingToApprove,
    NothingToRollBack,
    NotPublishedYet,
    approve,
    rollback,
)
from tasks.policy import is_rollback_in_force, may_promote, promote_automatically
from tasks.promotions import BrokenLog, read_promotions
from tasks.publish import publish_release
from tasks.settings import Settings
from tests.tasks.registered import DAYS, logged, served
from tests.tasks.small_releases import (
    small_settings,
)


def test_rollback_returns_to_the_release_before_and_twice_goes_further_back(
    settings: Settings, move_alias
) -> None:
    for version in "123":
        move_alias(version)
        publish_release(settings)
    report = rollback(settings, reason="clicks fell")
    assert (report.status, report.version, report.from_version) == ("published", "2", "3")
    assert tracking.champion(settings).version == "2"
    assert served(settings) == ("2", "2")
    assert read_promotions(settings.release_root)[-1].reason == "clicks fell"
    assert rollback(settings).version == "1"
    with pytest.raises(NothingToRollBack, match="no release served before version 1"):
        rollback(settings)
    assert logged(settings)[-2:] == [("3", "2", "manual", "rollback"), ("2", "1", "manual", "rollback")]


def test_rollback_to_a_named_version(settings: Settings, move_alias) -> None:
    with pytest.raises(NothingToRollBack, match="nothing is served"):
        rollback(settings)
    for version in "123":
        move_alias(version)
        publish_release(settings)
    with pytest.raises(CannotServe, match=r"no version 9; releases that can serve: 3 \(2022-05-05\), 2"):
        rollback(settings, "9")
    with pytest.raises(NothingToRollBack, match="version 3 serves already"):
        rollback(settings, "3")
    assert rollback(settings, "1").version == "1"
    assert served(settings) == ("1", "1")
    with pytest.raises(NothingToRollBack, match=r"version 2 of .* is later .*: make approve VERSION=2"):
        rollback(settings, "2")


@pytest.mark.parametrize("version", [None, "2"])
def test_rollback_puts_an_alias_that_was_refused_back_on_what_serves(
    settings: Settings, move_alias, failed: str, version: str | None
) -> None:
    for each in "12":
        move_alias(each)
        publish_release(settings)
    move_alias(failed)
    report = rollback(settings, version)
    assert (report.status, report.note) == ("unchanged", "the alias champion is back on what serves")
    assert tracking.champion(settings).version == "2"
    assert served(settings) == ("2", "2")
    assert len(logged(settings)) == 2
    assert not is_rollback_in_force(settings)


def test_rollback_puts_an_alias_on_no_release_back(settings: Settings, move_alias) -> None:
    move_alias("1")
    publish_release(settings)
    with tracking.connection.connected(settings) as client:
        other = client.create_model_version(settings.model_name, "s3://bucket/model").version
    move_alias(str(other))
    assert rollback(settings).version == "1"
    assert tracking.champion(settings).version == "1"


def test_approving_an_earlier_release_than_what_serves_is_refused(settings: Settings, move_alias) -> None:
    move_alias("2")
    publish_release(settings)
    with pytest.raises(EarlierRelease, match="make rollback VERSION=1 puts it back"):
        approve(settings, "1")
    assert tracking.champion(settings).version == "2"


def test_what_stands_in_the_way_of_an_approval_is_told_before_the_alias_moves(
    settings: Settings, move_alias, failed: str
) -> None:
    move_alias("1")
    publish_release(settings)
    down = settings.model_copy(update={"online_store_url": "redis://127.0.0.1:1/0"})
    with pytest.raises(StoreUnavailable):
        approve(down, failed, force="known")
    (entry,) = (settings.release_root / "promotions").iterdir()
    kept = entry.read_text()
    entry.write_text("{")
    with pytest.raises(BrokenLog):
        approve(settings, failed, force="known")
    entry.write_text(kept)
    assert tracking.champion(settings).version == "1"
    assert tracking.find_release(failed, settings).force_reason == ""
    assert publish_release(settings).status == "unchanged"


def test_automatic_promotion_takes_policy_a_forward_run_and_a_later_day(settings: Settings) -> None:
    assert may_promote(DAYS["2"], False, settings)[0]
    manual = settings.model_copy(update={"promotion": "manual"})
    assert may_promote(DAYS["2"], False, manual) == (
        False,
        "promotion is manual: a reviewer moves the alias champion",
    )
    assert may_promote(DAYS["2"], True, settings) == (False, "a backfill never promotes")
    assert promote_automatically("2", DAYS["2"], False, settings)[0]
    assert tracking.champion(settings).version == "2"
    for day in (DAYS["1"], DAYS["2"]):
        is_allowed, reason = promote_automatically("1", day, False, settings)
        assert (is_allowed, "promoted already" in reason) == (False, True)
    publish_release(settings)
    assert logged(settings) == [(None, "2", "auto", "promotion")]
    assert not may_promote(DAYS["2"], False, settings)[0]
    assert may_promote(DAYS["3"], False, settings)[0]


def test_rollback_stops_automatic_promotion_until_a_person_promotes(settings: Settings, move_alias) -> None:
    for version in "12":
        promote_automatically(version, DAYS[version], False, settings)
        publish_release(settings)
    assert not is_rollback_in_force(settings)
    rollback(settings)
    assert is_rollback_in_force(settings)
    assert promote_automatically("3", DAYS["3"], False, settings) == (
        False,
        "a rollback is in force: only a person promotes",
    )
    assert tracking.champion(settings).version == "1"
    move_alias("3")
    assert not is_rollback_in_force(settings)
    publish_release(settings)
    assert not is_rollback_in_force(settings)
    assert may_promote(date(2022, 6, 1), False, settings)[0]
    actors = [(version, actor, kind) for _, version, actor, kind in logged(settings)]
    assert actors[-2:] == [("1", "manual", "rollback"), ("3", "manual", "promotion")]


def test_moving_the_alias_back_in_mlflow_is_a_rollback_even_before_it_is_published(
    settings: Settings, move_alias
) -> None:
    for version in "12":
        promote_automatically(version, DAYS[version], False, settings)
        publish_release(settings)
    move_alias("1")
    assert is_rollback_in_force(settings)
    assert not may_promote(DAYS["3"], False, settings)[0]
    publish_release(settings)
    assert is_rollback_in_force(settings)
    assert logged(settings)[-1] == ("2", "1", "manual", "rollback")


def test_day_after_a_rolled_back_one_is_not_promoted_by_a_rerun(settings: Settings, move_alias) -> None:
    for version in "123":
        promote_automatically(version, DAYS[version], False, settings)
        publish_release(settings)
    rollback(settings)
    approve(settings, "2")
    assert may_promote(DAYS["3"], False, settings) == (
        False,
        f"a release of {DAYS['3']} was promoted already, {DAYS['3']} is not later",
    )


def test_approving_promotes_the_challenger_and_ends_a_rollback(settings: Settings, move_alias) -> None:
    with pytest.raises(NothingToApprove, match="no challenger"):
        approve(settings)
    for version in "12":
        move_alias(version)
        publish_release(settings)
    rollback(settings)
    report = approve(settings, "1", reason="this one stays")
    assert (report.status, report.note[:20]) == ("unchanged", "the rollback is over")
    assert not is_rollback_in_force(settings)
    assert logged(settings)[-1] == ("1", "1", "manual", "approval")
    tracking.set_challenger("3", settings)
    assert approve(settings).version == "3"
    assert served(settings) == ("3", "3")
    assert not is_rollback_in_force(settings)


def test_rollback_whose_publish_failed_is_in_force_and_finished_by_the_next_publish(
    settings: Settings,
) -> None:
    for version in "12":
        promote_automatically(version, DAYS[version], False, settings)
        publish_release(settings)
    down = settings.model_copy(update={"online_store_url": "redis://127.0.0.1:1/0"})
    with pytest.raises(NotPublishedYet, match="the alias champion names version 1 now"):
        rollback(down, reason="clicks fell")
    assert served(settings) == ("2", "2")
    assert is_rollback_in_force(settings)
    publish_release(settings)
    assert served(settings) == ("1", "1")
    assert read_promotions(settings.release_root)[-1].reason == "clicks fell"


def test_forced_version_is_served_and_its_reason_kept(settings: Settings, move_alias, failed: str) -> None:
    move_alias("1")
    publish_release(settings)
    approve(settings, failed, force="the feed lost an hour, known")
    assert read_serving(settings.release_root).version == failed
    assert (
        read_promotions(settings.release_root)[-1].reason == "approved; forced: the feed lost an hour, known"
    )


def test_tag_set_in_mlflow_forces_as_well(settings: Settings, move_alias, failed: str) -> None:
    tracking.force(failed, "known", settings)
    move_alias(failed)
    assert publish_release(settings).version == failed
    assert read_promotions(settings.release_root)[-1].reason.endswith("forced: known")


def test_approving_a_failed_version_without_a_reason_moves_nothing(
    settings: Settings, move_alias, failed: str
) -> None:
    move_alias("2")
    with pytest.raises(NotApproved, match="gates not passed"):
        approve(settings, failed)
    with pytest.raises(NotApproved, match="FORCE is empty"):
        approve(settings, failed, force="  ")
    assert tracking.champion(settings).version == "2"


def test_rollback_to_a_release_that_is_gone_names_those_that_can_serve(
    settings: Settings, move_alias
) -> None:
    for version in "123":
        move_alias(version)
        publish_release(settings)
    with tracking.connection.connected(settings) as client:
        client.delete_model_version(settings.model_name, "2")
    with pytest.raises(CannotServe, match=r"no version 2; releases that can serve: 3 \(.*\), 1 \("):
        rollback(settings)
    assert tracking.champion(settings).version == "3"
    assert read_serving(settings.release_root).version == "3"


def test_approving_a_version_whose_artifacts_are_gone_moves_nothing(settings: Settings, move_alias) -> None:
    move_alias("1")
    publish_release(settings)
    shutil.rmtree(tracking.find_release("3", settings).artifact_address.removeprefix("file://"))
    shutil.rmtree(tracking.find_release("2", settings).artifact_address.removeprefix("file://"))
    with pytest.raises(
        CannotServe, match=r"version 3 of retrieval at .* cannot be fetched.* can serve: 1 \([-\d]*\)$"
    ):
        approve(settings, "3")
    assert tracking.champion(settings).version == "1"
    assert publish_release(settings).status == "unchanged"


def test_rollback_of_nothing_leaves_no_trace(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "empty")
    with pytest.raises(NothingToRollBack):
        rollback(settings)
    assert not settings.release_root.exists()
