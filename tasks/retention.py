"""
Retention task: what is deleted, once nothing needs it any more?

Superseded data files, old quarantine, data docs and staged folders, and local copies of releases. Never what
serves, what would serve after a rollback, champion or challenger. Tables and registered versions stay: the
windows of later days and rollbacks read them.
"""

import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from lakehouse import tables
from lakehouse.releases import remove_release
from lakehouse.serving import read_serving
from lakehouse.store import Lakehouse
from tasks import tracking
from tasks.approval import LOCAL
from tasks.promotions import read_promotions, served_before
from tasks.publish_lock import LOCK_TIMEOUT_SECONDS, publish_lock
from tasks.settings import Settings


@dataclass(frozen=True)
class RetentionReport:
    """What was deleted (with ``is_dry_run``: what would be); ``kept_releases`` are digests."""

    is_dry_run: bool
    superseded_files: int
    quarantine: tuple[str, ...]
    data_docs: tuple[str, ...]
    staged: tuple[str, ...]
    local_releases: tuple[str, ...]
    kept_releases: tuple[str, ...]


def apply_retention(settings: Settings, *, is_dry_run: bool = False) -> RetentionReport:
    """
    Delete what is past its limit in ``settings.retention``; interrupted, it is finished by the next one.

    Raises:
        TrackingUnavailable: MLflow does not answer, so what is champion is not known; nothing is deleted.
        PublishLocked: a release is being published for a long time; nothing is deleted.
    """
    if not settings.var.is_dir():
        return RetentionReport(is_dry_run, 0, (), (), (), (), ())
    limits, lakehouse = settings.retention, Lakehouse(settings.lakehouse_root)
    newest = max(lakehouse.days(tables.EXPOSURE), default=None)
    with publish_lock(settings.release_root, LOCK_TIMEOUT_SECONDS):
        kept = kept_releases(settings)
        copies = [path for path in _folders(settings.release_root / LOCAL) if path.name not in kept]
        for copy in [] if is_dry_run else copies:
            remove_release(copy)
    staged = _older(settings.staged_root, newest, limits.staged_days)
    docs = _older(settings.var / "data_docs", newest, limits.data_docs_days)
    for folder in [] if is_dry_run else [*staged, *docs]:
        shutil.rmtree(folder)
    grace = timedelta(hours=limits.superseded_grace_hours)
    quarantine, n_files = [], 0
    for table in tables.TABLES.values():
        refused = tables.quarantine(table)
        for day in lakehouse.days(refused):
            if newest and day <= newest - timedelta(days=limits.quarantine_days):
                quarantine.append(f"{refused.name}/{day}")
                if not is_dry_run:
                    lakehouse.remove(refused, day)
        if not is_dry_run:
            n_files += lakehouse.sweep(table, grace) + lakehouse.sweep(refused, grace)
    return RetentionReport(
        is_dry_run,
        n_files,
        tuple(quarantine),
        tuple(folder.name for folder in docs),
        tuple(folder.name for folder in staged),
        tuple(copy.name for copy in copies),
        tuple(sorted(kept)),
    )


def kept_releases(settings: Settings) -> set[str]:
    """Give the digests whose local copies stay: in use, next in a rollback, or the newest."""
    releases = tracking.list_releases(settings)
    kept = {release.release_digest for release in releases[: settings.retention.local_releases]}
    aliased = (tracking.champion(settings), tracking.challenger(settings))
    kept |= {release.release_digest for release in aliased if release}
    if serving := read_serving(settings.release_root):
        before = served_before(read_promotions(settings.release_root), serving.version)
        kept.add(serving.release_digest)
        kept |= {release.release_digest for release in releases if release.version == before}
    return kept


def _folders(root: Path) -> list[Path]:
    """List the folders below a root that are no work in progress."""
    return sorted(path for path in root.glob("[!.]*") if path.is_dir())


def _older(root: Path, newest: date | None, n_days: int) -> list[Path]:
    """List the folders that are named by a day, of ``n_days`` or more before the newest one."""
    if newest is None:
        return []
    named = [path for path in _folders(root) if _day(path.name)]
    return [path for path in named if _day(path.name) <= newest - timedelta(days=n_days)]


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name)
    except ValueError:
        return None
