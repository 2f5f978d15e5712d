"""
Does the world serve what the alias champion says?

``publish_release`` makes it so: verified local copy, online store, the one pointer ``SERVING.json``, then an
entry in the promotion log. It is idempotent, safe to run at any time, and leaves the old release serving
when it fails. ``<release_root>/local/<digest>/`` keeps the verified copies.

One process at a time publishes, rolls back or promotes.
"""

import logging
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from lakehouse.releases import Release, ReleaseCorrupt, open_release
from lakehouse.serving import Serving, read_serving, write_serving
from nearline.store import OnlineStore, open_store
from tasks import tracking
from tasks.approval import LOCAL, NotApproved, is_approved, refuse_unapproved, refuse_unfit
from tasks.policy import is_rollback_in_force, next_entry
from tasks.promotions import Promotion, append_promotion, now, read_promotions, served_before
from tasks.publish_lock import LOCK_TIMEOUT_SECONDS, publish_lock
from tasks.settings import Settings
from tasks.tracking import ReleaseVersion

USERS_PER_WRITE = 5_000

log = logging.getLogger(__name__)


class NothingToRollBack(LookupError):
    """No release served before the one that serves now."""


class NothingToApprove(LookupError):
    """There is no release that could be approved."""


@dataclass(frozen=True)
class PublishReport:
    """
    What publishing did.

    ``status``: ``published``, ``unchanged`` when everything was as the alias says, ``nothing to publish``
    when there is no champion, or ``refused`` (``tasks/scheduled_publish.py``); with the last two the rest is
    None. ``n_users`` counts the users loaded.
    """

    status: Literal["published", "unchanged", "nothing to publish", "refused"]
    version: str | None = None
    day: date | None = None
    release_digest: str | None = None
    from_version: str | None = None
    n_users: int = 0


def publish_release(
    settings: Settings, *, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS
) -> PublishReport:
    """
    Make the served release the one that the alias champion names.

    Raises:
        PublishLocked: another process held the lock for too long.
        NotApproved: the version did not pass its gates and has no tag ``force_reason``.
        UnknownVersion: the alias names a version that is no release.
        ReleaseCorrupt: the version's artifacts are gone or damaged; the old release keeps serving.
        StoreUnavailable: the online store does not answer; the old release keeps serving.
        TrackingUnavailable: MLflow does not answer.
    """
    if _pointer(settings.release_root) is None and tracking.champion(settings) is None:
        return PublishReport("nothing to publish")
    with publish_lock(settings.release_root, lock_timeout_seconds):
        return _publish(settings)


def rollback(settings: Settings, to_version: str | None = None, *, reason: str = "rollback") -> PublishReport:
    """
    Move the alias champion back, by default to the release that served before, and publish it.

    From then on only a person promotes, until one does.

    Raises:
        NothingToRollBack: nothing served before, or ``to_version`` is what serves.
        CannotServe: the release is not registered (any more), or its artifacts are gone.
        NotApproved: it did not pass its gates and has no tag ``force_reason``.
    """
    if read_serving(settings.release_root) is None:
        raise NothingToRollBack(f"nothing is served below {settings.release_root}, so nothing to roll back")
    with publish_lock(settings.release_root, LOCK_TIMEOUT_SECONDS):
        serving = read_serving(settings.release_root)
        target = to_version or served_before(read_promotions(settings.release_root), serving.version)
        if target is None:
            raise NothingToRollBack(
                f"no release served before version {serving.version}; name one (VERSION=)"
            )
        if target == serving.version:
            raise NothingToRollBack(f"version {target} serves already")
        refuse_unfit(target, settings)
        tracking.set_champion(target, settings, actor="manual", kind="rollback", reason=reason)
        return _publish(settings)


def approve(
    settings: Settings, version: str | None = None, *, reason: str = "approved", force: str | None = None
) -> PublishReport:
    """
    Promote a version as a person does, by default the challenger, and publish it; ends a rollback.

    ``force`` is the reason why a version may serve that did not pass its gates; it is recorded on it.

    Raises:
        NothingToApprove: no version is given and there is no challenger.
        CannotServe: ``version`` is not registered, or its artifacts are gone.
        NotApproved: ``version`` did not pass its gates and there is no ``force``.
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
        if force and not is_approved(found):
            tracking.force(version, force.strip(), settings)
        elif _is_settled(version, settings):
            return _publish(settings)
        move = tracking.set_champion(version, settings, actor="manual", reason=reason)
        report = _publish(settings)
        last = read_promotions(settings.release_root)[-1]
        if last.kind == "rollback" and last.move_id != move.move_id:
            stays = {"kind": "approval", "from_version": version, "move_id": move.move_id, "at": now()}
            _append(settings, last, actor="manual", reason=reason, **stays)
        return report


def served_release(settings: Settings) -> dict[str, Any] | None:
    """Give the served pointer as plain facts; None before the first release."""
    serving = read_serving(settings.release_root)
    return None if serving is None else asdict(serving) | {"day": serving.day.isoformat()}


def _publish(settings: Settings) -> PublishReport:
    champion = tracking.champion(settings)
    if champion is None:
        return PublishReport("nothing to publish")
    root = settings.release_root
    promotions = read_promotions(root)
    from_version = promotions[-1].version if promotions else None
    is_changed, n_users = False, 0
    with closing(open_store(settings.online_store_url)) as store:
        while True:
            serving = _serving(champion)
            if not _is_pointed_at(serving, root):
                refuse_unapproved(champion)
            folder = tracking.download_release(champion.version, root / LOCAL, settings)
            if _is_pointed_at(serving, root) and _is_loaded(serving, store):
                break
            n_users = _serve(serving, open_release(folder), root, store)
            is_changed = True
            newest = tracking.champion(settings)
            if newest is None or newest.version == champion.version:
                break
            champion = newest
    if from_version != champion.version:
        _append(settings, champion, **next_entry(champion, promotions))
        is_changed = True
    status = "published" if is_changed else "unchanged"
    return PublishReport(
        status, champion.version, champion.day, champion.release_digest, from_version, n_users
    )


def _serving(champion: ReleaseVersion) -> Serving:
    return Serving(
        version=champion.version,
        day=champion.day,
        release_digest=champion.release_digest,
        artifact_address=champion.artifact_address,
        local_path=f"{LOCAL}/{champion.release_digest}",
        published_at=now(),
    )


def _is_settled(version: str, settings: Settings) -> bool:
    """Tell whether a version serves and is the champion already, with no rollback to end."""
    serving, champion = _pointer(settings.release_root), tracking.champion(settings)
    versions = {known and known.version for known in (serving, champion)}
    return versions == {version} and not is_rollback_in_force(settings)


def _pointer(root: Path) -> Serving | None:
    """Read the served pointer; one that is damaged counts as none, so that it is written again."""
    try:
        return read_serving(root)
    except ReleaseCorrupt as error:
        log.warning("%s", error)
        return None


def _is_pointed_at(serving: Serving, root: Path) -> bool:
    pointer, wanted = _pointer(root), (serving.version, serving.release_digest)
    return pointer is not None and (pointer.version, pointer.release_digest) == wanted


def _is_loaded(serving: Serving, store: OnlineStore) -> bool:
    record, wanted = store.serving(), (serving.version, serving.release_digest)
    return record is not None and (record["version"], record["release"]) == wanted


def _serve(serving: Serving, release: Release, root: Path, store: OnlineStore) -> int:
    """Load the store under the release's own list names, then flip; give the number of users loaded."""
    end_of_day = datetime.combine(serving.day, datetime.min.time()) + timedelta(days=1)
    lists = {name: f"{name}@{serving.release_digest[:16]}" for name in release.candidate_lists}
    users: set[int] = set()
    for name, stored_name in lists.items():
        candidates = release.candidates(name)
        users.update(candidates.user_ids.tolist())
        for start in range(0, len(candidates.user_ids), USERS_PER_WRITE):
            block = slice(start, start + USERS_PER_WRITE)
            store.write_many(
                stored_name,
                candidates.user_ids[block],
                candidates.item_ids[block],
                candidates.scores[block],
                release=serving.release_digest,
                event_times=end_of_day,
            )
    previous = store.serving()
    write_serving(root, serving)
    store.serve(
        {
            "version": serving.version,
            "release": serving.release_digest,
            "day": serving.day.isoformat(),
            "lists": lists,
        }
    )
    kept = {*lists.values(), *(previous["lists"].values() if previous else ())}
    for name in store.list_names() - kept:
        if "@" in name:
            store.drop(name)
    return len(users)


def _append(settings: Settings, release: ReleaseVersion | Promotion, **entry: Any) -> None:
    promotion = Promotion(
        version=release.version, day=release.day, release_digest=release.release_digest, **entry
    )
    append_promotion(settings.release_root, promotion)
