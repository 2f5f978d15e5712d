"""
Retention task: what is deleted, once nothing needs it any more?

Partitions past the limit of their class, superseded data files, old quarantine, data docs and staged folders,
and local copies of releases. Never what serves, what would serve after a rollback, champion or challenger.
Registered versions stay in MLflow: a rollback may ask for any of them.
"""

import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from lakehouse import tables
from lakehouse.releases import remove_release
from lakehouse.serving import read_serving
from lakehouse.store import Lakehouse
from tasks import tracking
from tasks.approval import LOCAL
from tasks.expiry import Partition, days_of_tables, is_past, tables_by_name, unneeded_partitions
from tasks.promotions import read_promotions, served_before
from tasks.publish_lock import LOCK_TIMEOUT_SECONDS, publish_lock
from tasks.settings import Settings


@dataclass(frozen=True)
class RetentionReport:
    """What was deleted (with ``is_dry_run``: what would be); ``kept_releases`` are digests."""

    is_dry_run: bool
    superseded_files: int
    partitions: tuple[str, ...]
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
        return RetentionReport(is_dry_run, 0, (), (), (), (), (), ())
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
    named, n_files = tables_by_name(), 0
    expired = _expired(lakehouse, newest, settings) if newest else []
    for each in [] if is_dry_run else expired:
        lakehouse.remove(named[each.table], each.day, part=each.part)
    for table in named.values():
        superseded = (
            lakehouse.superseded(table, grace) if is_dry_run else range(lakehouse.sweep(table, grace))
        )
        n_files += len(superseded)
    gone = {"/".join(filter(None, (p.table, str(p.day), p.part))): p.table in tables.TABLES for p in expired}
    return RetentionReport(
        is_dry_run,
        n_files,
        tuple(name for name, is_table in gone.items() if is_table),
        tuple(name for name, is_table in gone.items() if not is_table),
        tuple(folder.name for folder in docs),
        tuple(folder.name for folder in staged),
        tuple(copy.name for copy in copies),
        tuple(sorted(kept)),
    )


def _expired(lakehouse: Lakehouse, newest: date, settings: Settings) -> list[Partition]:
    """List the partitions past their limit, but for those that a run at work on an old day may need."""
    limits = days_of_tables(settings.retention)
    past = [
        Partition(
            name, day, part, datetime.fromisoformat(lakehouse.commit(table, day, part=part).committed_at)
        )
        for name, table in tables_by_name().items()
        for day, part in lakehouse.partitions(table)
        if is_past(day, newest, limits.get(name))
    ]
    grace = timedelta(hours=settings.retention.superseded_grace_hours)
    needed_days = max(settings.window_days, settings.validation.trailing_days) + 1
    return unneeded_partitions(past, needed_days=needed_days, fresh_after=datetime.now(UTC) - grace)


def kept_releases(settings: Settings) -> set[str]:
    """Give the digests whose local copies stay: in use, next in a rollback, or the newest."""
    releases = tracking.list_releases(settings)
    kept = {release.release_digest for release in releases[: settings.retention.release_local_copies]}
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
