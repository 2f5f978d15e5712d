"""
What may a person decide? To approve a version or to roll back: the alias champion moves, publishing follows.
"""

from contextlib import closing
from dataclasses import replace

from lakehouse.serving import read_serving
from nearline.store import open_store
from tasks import tracking
from tasks.approval import NotApproved, is_approved, refuse_unfit
from tasks.policy import is_rollback_in_force, order
from tasks.promotions import now, read_promotions, served_before
from tasks.publish import PublishReport, append_entry, publish_locked, read_pointer
from tasks.publish_lock import LOCK_TIMEOUT_SECONDS, publish_lock
from tasks.settings import Settings
from tasks.tracking import ReleaseVersion

ROLLED_BACK = "nothing is promoted automatically until a person approves a version"


class NothingToRollBack(LookupError):
    """No release served before the one that serves now."""


class NothingToApprove(LookupError):
    """There is no release that could be approved."""


class EarlierRelease(ValueError):
    """A release was to be approved that is earlier than what serves: that is a rollback."""


class NotPublishedYet(OSError):
    """The alias has moved, what serves has not: publishing goes on when the cause is mended."""


def rollback(settings: Settings, to_version: str | None = None, *, reason: str = "rollback") -> PublishReport:
    """
    Move the alias champion back, by default to the release that served before, and publish it.

    Where the alias is not on what serves (its release was refused, or waits), it goes back to what serves.
    From a rollback on only a person promotes, until one does.

    Raises:
        NothingToRollBack: nothing served before, or ``to_version`` serves already or is a later release.
        CannotServe: the release is not registered (any more), or its artifacts are gone.
        NotApproved: it did not pass its gates and has no tag ``force_reason``.
        NotPublishedYet: the alias is moved, but the store or MLflow went away.
    """
    root = settings.release_root
    if read_serving(root) is None:
        raise NothingToRollBack(f"nothing is served below {root}, so nothing to roll back")
    with publish_lock(root, LOCK_TIMEOUT_SECONDS):
        serving, promotions = read_serving(root), read_promotions(root)
        is_elsewhere = _aliased_version(settings) != serving.version
        target = to_version or (
            serving.version if is_elsewhere else served_before(promotions, serving.version)
        )
        if target is None:
            raise NothingToRollBack(
                f"no release served before version {serving.version}; name one (VERSION=)"
            )
        if target == serving.version and not is_elsewhere:
            raise NothingToRollBack(f"version {target} serves already")
        found = refuse_unfit(target, settings)
        if order(found) > order(serving):
            raise NothingToRollBack(
                f"version {target} of {found.day} is later than version {serving.version} of {serving.day}, "
                f"which serves: make approve VERSION={target}"
            )
        tracking.set_champion(target, settings, actor="manual", kind="rollback", reason=reason)
        report = _publish_moved(target, settings)
        note = "the alias champion is back on what serves" if target == serving.version else ROLLED_BACK
        return replace(report, note=note)


def approve(
    settings: Settings, version: str | None = None, *, reason: str = "approved", force: str | None = None
) -> PublishReport:
    """
    Promote a version as a person does, by default the challenger, and publish it; ends a rollback.

    ``force`` is the reason why a version may serve that did not pass its gates; it is recorded on it. What
    stands in the way of publishing is found before the alias moves.

    Raises:
        NothingToApprove: no version is given and there is no challenger.
        CannotServe: ``version`` is not registered, or its artifacts are gone.
        NotApproved: ``version`` did not pass its gates and there is no ``force``.
        EarlierRelease: a later release serves.
        StoreUnavailable: the online store does not answer.
        BrokenLog: the promotion log cannot be read.
        NotPublishedYet: the alias is moved, but the store or MLflow went away.
    """
    if force is not None and not force.strip():
        raise NotApproved("FORCE is empty: give the reason why this version may serve, it is recorded")
    if version is None:
        challenger = tracking.challenger(settings)
        if challenger is None:
            raise NothingToApprove("there is no challenger: name a version, or wait for a day that passes")
        version = challenger.version
    found = refuse_unfit(version, settings, force=force)
    with publish_lock(settings.release_root, LOCK_TIMEOUT_SECONDS):
        _refuse_earlier(found, settings)
        read_promotions(settings.release_root)
        with closing(open_store(settings.online_store_url)) as store:
            store.serving()
        if force and not is_approved(found):
            tracking.force(version, force.strip(), settings)
        elif _is_settled(version, settings):
            return publish_locked(settings)
        move = tracking.set_champion(version, settings, actor="manual", reason=reason)
        report = _publish_moved(version, settings)
        last = read_promotions(settings.release_root)[-1]
        if last.kind == "rollback" and last.move_id != move.move_id:
            stays = {"kind": "approval", "from_version": version, "move_id": move.move_id, "at": now()}
            append_entry(settings, last, actor="manual", reason=reason, **stays)
            return replace(report, note="the rollback is over: nights may be promoted automatically again")
        return report


def _publish_moved(version: str, settings: Settings) -> PublishReport:
    """Publish what the alias was just moved to; an error tells that it stays moved."""
    try:
        return publish_locked(settings)
    except OSError as error:
        raise NotPublishedYet(
            f"{error}; the alias champion names version {version} now, and publish_release serves it once "
            "this is mended"
        ) from error


def _is_settled(version: str, settings: Settings) -> bool:
    """Tell whether a version serves and is the champion already, with no rollback to end."""
    serving, champion = read_pointer(settings.release_root), tracking.champion(settings)
    versions = {known and known.version for known in (serving, champion)}
    return versions == {version} and not is_rollback_in_force(settings)


def _refuse_earlier(release: ReleaseVersion, settings: Settings) -> None:
    serving = read_pointer(settings.release_root)
    if serving and order(release) < order(serving):
        raise EarlierRelease(
            f"version {release.version} of {release.day} is earlier than version {serving.version} of "
            f"{serving.day}, which serves: make rollback VERSION={release.version} puts it back, and stops "
            "automatic promotion until a later one is approved"
        )


def _aliased_version(settings: Settings) -> str | None:
    """Give the version that the alias champion names; None where that is no release."""
    try:
        champion = tracking.champion(settings)
    except tracking.UnknownVersion:
        return None
    return champion and champion.version
