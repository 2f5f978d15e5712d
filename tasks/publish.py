"""
Does the world serve what the alias champion says?

``publish_release`` makes it so: verified local copy, online store, the one pointer ``SERVING.json``, then an
entry in the promotion log. It is idempotent, safe to run at any time, and leaves the old release serving
when it fails. ``<release_root>/local/<digest>/`` keeps the verified copies.

One process at a time publishes, rolls back or promotes. A reader of the pointer and one of the store each see
one whole release; the two are flipped one after the other, and a publisher that is killed in between leaves
them on neighbouring releases until the next run.
"""

import logging
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from lakehouse.releases import Release, ReleaseCorrupt, open_release
from lakehouse.serving import Serving, read_serving, write_serving
from nearline.mnr_lists import PREFIX as MNR_LISTS
from nearline.store import OnlineStore, open_store
from tasks import tracking
from tasks.approval import LOCAL, refuse_unapproved
from tasks.policy import next_entry
from tasks.promotions import Promotion, append_promotion, now, read_promotions
from tasks.publish_lock import LOCK_TIMEOUT_SECONDS, publish_lock
from tasks.settings import Settings
from tasks.tracking import ReleaseVersion

USERS_PER_WRITE = 5_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishReport:
    """
    What publishing did.

    ``status``: ``published``, ``unchanged`` when everything was as the alias says, ``nothing to publish``
    when there is no champion, or ``refused`` (``tasks/scheduled_publish.py``); with the last two the rest is
    None. ``n_users`` counts the users loaded. ``note`` tells what else has changed.
    """

    status: Literal["published", "unchanged", "nothing to publish", "refused"]
    version: str | None = None
    day: date | None = None
    release_digest: str | None = None
    from_version: str | None = None
    n_users: int = 0
    note: str = ""


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
    if read_pointer(settings.release_root) is None and tracking.champion(settings) is None:
        return PublishReport("nothing to publish")
    with publish_lock(settings.release_root, lock_timeout_seconds):
        return publish_locked(settings)


def served_release(settings: Settings) -> dict[str, Any] | None:
    """Give the served pointer as plain facts; None before the first release."""
    serving = read_serving(settings.release_root)
    return None if serving is None else asdict(serving) | {"day": serving.day.isoformat()}


def publish_locked(settings: Settings) -> PublishReport:
    """Publish as `publish_release`; the caller holds the publish lock."""
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
        append_entry(settings, champion, **next_entry(champion, promotions))
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


def read_pointer(root: Path) -> Serving | None:
    """Read the served pointer; one that is damaged counts as none, so that it is written again."""
    try:
        return read_serving(root)
    except ReleaseCorrupt as error:
        log.warning("%s", error)
        return None


def _is_pointed_at(serving: Serving, root: Path) -> bool:
    pointer, wanted = read_pointer(root), (serving.version, serving.release_digest)
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
        if "@" in name and not name.startswith(MNR_LISTS):  # those belong to no release
            store.drop(name)
    return len(users)


def append_entry(settings: Settings, release: ReleaseVersion | Promotion, **entry: Any) -> None:
    """Add an entry about a release to the promotion log."""
    promotion = Promotion(
        version=release.version, day=release.day, release_digest=release.release_digest, **entry
    )
    append_promotion(settings.release_root, promotion)
