"""May a registered version serve? One that is whole and passed its gates, or that a person forced."""

from lakehouse.releases import ReleaseCorrupt
from tasks import tracking
from tasks.records import PASSED
from tasks.settings import Settings
from tasks.tracking import ReleaseVersion

LOCAL = "local"
MOST_NAMED = 10


class NotApproved(ValueError):
    """The version did not pass its gates, and nobody gave a reason why it may serve all the same."""


class CannotServe(LookupError):
    """The version is gone; the message names the releases that can serve."""


def is_approved(release: ReleaseVersion) -> bool:
    """Tell whether a version passed its gates, or a person said why it may serve without."""
    return release.verdict == PASSED or bool(release.force_reason)


def refuse_unfit(version: str, settings: Settings, *, force: str | None = None) -> ReleaseVersion:
    """
    Refuse, before the alias moves to it, a version that cannot or may not serve; give it otherwise.

    Raises:
        CannotServe: it is not registered (any more), or its artifacts are gone or damaged.
        NotApproved: it did not pass its gates, and neither ``force`` nor its tag says why it may serve.
    """
    try:
        found = tracking.find_release(version, settings)
        if not force:
            refuse_unapproved(found)
        tracking.download_release(version, settings.release_root / LOCAL, settings)
        return found
    except (tracking.UnknownVersion, ReleaseCorrupt) as error:
        releases = [release for release in tracking.list_releases(settings) if release.version != version]
        fit = [release for release in releases if is_approved(release)]
        named = ", ".join(f"{release.version} ({release.day})" for release in fit[:MOST_NAMED])
        raise CannotServe(f"{error}; releases that can serve: {named or 'none'}") from error


def refuse_unapproved(release: ReleaseVersion) -> None:
    """Raise NotApproved where a version neither passed its gates nor was forced, with what to do."""
    if is_approved(release):
        return
    missed = f" (gates not passed: {release.missed_gates})" if release.missed_gates else ""
    raise NotApproved(
        f"version {release.version} of {release.day} has the verdict {release.verdict or 'unknown'}{missed}"
        " and is not published; what serves stays. Move the alias champion back, or say why it may serve:"
        f' make approve VERSION={release.version} FORCE="..." (the tag force_reason in MLflow)'
    )
