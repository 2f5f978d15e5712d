"""
Which registered releases leave MLflow, with the runs of their days?

Those past ``release_days`` and beyond the newest ``releases``; never champion, challenger, what serves, the
next targets of rollbacks, the newest, or what was registered just now.
"""

from collections.abc import Iterable
from datetime import date, datetime

from lakehouse.serving import read_serving
from tasks import tracking
from tasks.expiry import is_past
from tasks.promotions import Promotion, read_promotions, served_before
from tasks.publish_lock import LOCK_TIMEOUT_SECONDS, publish_lock
from tasks.retention_config import RetentionConfig
from tasks.settings import Settings
from tasks.tracking import ReleaseVersion


def remove_past_releases(
    settings: Settings, newest: date | None, fresh_after: datetime, *, is_dry_run: bool
) -> tuple[list[ReleaseVersion], list[date]]:
    """
    Delete past releases and the runs of days that have none left; give both, or what would go.

    What a rollback or a publication may still take is decided and marked under the publish lock; no release
    is registered meanwhile.
    """
    limits = settings.retention
    with publish_lock(settings.staged_root, LOCK_TIMEOUT_SECONDS):
        with publish_lock(settings.release_root, LOCK_TIMEOUT_SECONDS):
            releases = tracking.list_releases(settings)
            needed = needed_versions(settings, limits.rollback_releases)
            past = past_releases(releases, newest, limits, needed, fresh_after)
            if past and not is_dry_run:
                tracking.mark_removed([release.version for release in past], settings)
        days_left = {release.day for release in releases if release not in past}
        days = _past_days(settings, newest, days_left, fresh_after) if limits.release_days else []
        if not is_dry_run:
            for version in tracking.list_removed(settings):
                tracking.remove_version(version, settings)
            for day in days:
                tracking.remove_day(day, settings)
    return past, days


def past_releases(
    releases: Iterable[ReleaseVersion],
    newest: date | None,
    limits: RetentionConfig,
    needed: set[str],
    fresh_after: datetime,
) -> list[ReleaseVersion]:
    """List the releases that go, oldest day first; decides only. The newest are those of the latest days."""
    by_day = sorted(releases, key=lambda release: (release.day, int(release.version)))
    stay = needed | {release.version for release in by_day[-limits.releases :]}
    stay |= {max((release.version for release in by_day), key=int, default="")}
    return [
        release
        for release in by_day
        if newest is not None
        and is_past(release.day, newest, limits.release_days)
        and release.registered_at <= fresh_after
        and release.version not in stay
    ]


def needed_versions(settings: Settings, n_rollbacks: int) -> set[str]:
    """Give champion, challenger, what serves, and what so many rollbacks would go back to."""
    found = {known.version for known in (tracking.champion(settings), tracking.challenger(settings)) if known}
    if serving := read_serving(settings.release_root):
        promotions = read_promotions(settings.release_root)
        found |= {serving.version, *rollback_targets(promotions, serving.version, n_rollbacks)}
    return found


def rollback_targets(promotions: list[Promotion], version: str, n: int) -> list[str]:
    """Give the versions that ``n`` rollbacks in a row from ``version`` would go back to, the next first."""
    found: list[str] = []
    while len(found) < n and (before := served_before(promotions, version)) is not None:
        if before in found:
            break
        found.append(before)
        version = before
    return found


def _past_days(
    settings: Settings, newest: date | None, days_left: set[date], fresh_after: datetime
) -> list[date]:
    """List the past days that have runs and no release left."""
    return [
        day
        for day, started_at in sorted(tracking.list_logged_days(settings).items())
        if newest is not None
        and is_past(day, newest, settings.retention.release_days)
        and day not in days_left
        and started_at <= fresh_after
    ]
