"""
What serves, does the online store hold it, and is it what the alias champion names?

Each answer is a line of ``make status``; whatever cannot be read, the others are given.
"""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.releases import ReleaseCorrupt
from lakehouse.serving import POINTER, Serving, read_serving
from nearline.store import StoreUnavailable, UnknownStore, open_store
from services.findings import Findings
from tasks.promotions import BrokenLog, Promotion, read_promotions
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.tracking import ReleaseVersion


def has_pointer(settings: Settings) -> bool:
    """Tell whether anything was ever published, readable or not."""
    return (settings.release_root / POINTER).exists()


def has_tracking(settings: Settings) -> bool:
    """Tell whether there is an MLflow to ask: asking for an absent file would make it."""
    path = settings.tracking_uri.removeprefix("sqlite:///")
    return path == settings.tracking_uri or Path(path).exists()


def tell_serving(settings: Settings, found: Findings, *, is_publishing: bool) -> None:
    """
    Tell champion, challenger, the served release, its online store, and where they differ.

    ``is_publishing``: the schedule of ``publish_release`` is at work, so that a difference ends by itself.
    """
    registered = found.attempt("MLflow", lambda: _tell_registry(settings, found))
    is_readable, pointer = _tell_pointer(settings, found)
    promotions = _tell_promotions(settings, found)
    found.attempt("store", lambda: _tell_store(settings, is_readable, pointer, found))
    if registered is None or not has_tracking(settings):
        return
    if is_readable:
        _tell_difference(settings, registered[0], pointer, found, is_publishing=is_publishing)
    if promotions:
        found.attempt("MLflow", lambda: _tell_rollback(settings, found))


def _tell_registry(settings: Settings, found: Findings) -> "tuple[ReleaseVersion | None]":
    """Give the champion, as a tuple of one: None is an MLflow that cannot be asked."""
    champion = challenger = None
    if has_tracking(settings):
        from tasks import tracking

        champion, challenger = tracking.champion(settings), tracking.challenger(settings)
    for name, version in (("champion", champion), ("challenger", challenger)):
        told = f"version {version.version} of {version.day}, {version.verdict}" if version else "none"
        found.tell(name, told)
    return (champion,)


def _tell_pointer(settings: Settings, found: Findings) -> tuple[bool, Serving | None]:
    """Give whether the served pointer can be read, and it."""
    try:
        pointer = read_serving(settings.release_root)
    except (ReleaseCorrupt, OSError) as error:
        found.tell("served", f"unreadable: {error}", "the served pointer is damaged")
        return False, None
    if pointer is None:
        found.tell("served", "nothing")
    else:
        found.tell(
            "served",
            f"version {pointer.version} of {pointer.day}, {pointer.release_digest[:12]}, published "
            f"{_age(pointer.published_at)} ago",
        )
    return True, pointer


def _tell_promotions(settings: Settings, found: Findings) -> list[Promotion]:
    try:
        promotions = read_promotions(settings.release_root)
    except (BrokenLog, OSError) as error:
        found.tell("published", f"unreadable: {error}", "the promotion log is damaged")
        return []
    if promotions:
        last = promotions[-1]
        before = f" after version {last.from_version}" if last.from_version else ""
        found.tell(
            "published",
            f"{last.at[:16]} UTC: {last.kind} of version {last.version}{before} "
            f"({last.actor}: {last.reason})",
        )
    return promotions


def _tell_store(settings: Settings, is_readable: bool, pointer: Serving | None, found: Findings) -> None:
    try:
        record = _record(settings)
    except (UnknownStore, StoreUnavailable) as error:
        found.tell("store", f"away: {error}", "the online store is away")
        return
    if record is None:
        if pointer is None:
            found.tell("store", "empty")
        else:
            found.tell("store", "empty: `make publish` loads it again", "the online store is empty")
        return
    held = f"version {record['version']} of {record['day']}"
    if not is_readable:
        found.tell("store", f"serves {held}")
    elif pointer and (pointer.version, pointer.release_digest) == (record["version"], record["release"]):
        found.tell("store", "serves the same release")
    else:
        served = f"version {pointer.version}" if pointer else "nothing"
        found.tell(
            "store",
            f"serves {held}, the pointer names {served}: `make publish` makes them agree",
            "the online store serves another release",
        )


def _record(settings: Settings) -> dict[str, Any] | None:
    """Give the serving record of the online store; a store whose file is not there is not made."""
    path = settings.online_store_url.removeprefix("sqlite:///")
    if path != settings.online_store_url and not Path(path).exists():
        return None
    with closing(open_store(settings.online_store_url)) as store:
        return store.serving()


def _tell_difference(
    settings: Settings,
    champion: "ReleaseVersion | None",
    pointer: Serving | None,
    found: Findings,
    *,
    is_publishing: bool,
) -> None:
    from tasks.scheduled_publish import read_refusal

    is_served = champion is not None and pointer is not None and champion.version == pointer.version
    refusal = read_refusal(settings.release_root)
    # Once the champion serves, a refusal for lack of approval is of an alias that has moved on.
    if refusal and not (is_served and refusal.startswith("NotApproved")):
        found.tell("refused", refusal, "the champion is refused")
    if champion is None or is_served:
        return
    differ = f"champion is version {champion.version}, served is {pointer.version if pointer else 'nothing'}"
    if refusal:
        found.tell("differs", differ)
    elif is_publishing:
        found.tell("pending", f"{differ}: publish_release looks every five minutes")
    else:
        found.tell("differs", f"{differ}: `make publish` serves it", "the champion is not served")


def _tell_rollback(settings: Settings, found: Findings) -> None:
    from tasks.policy import is_rollback_in_force

    if is_rollback_in_force(settings):
        found.tell("rollback", "in force: nothing is promoted automatically until `make approve`")


def _age(at: str) -> str:
    age = datetime.now(UTC).replace(tzinfo=None) - datetime.fromisoformat(at)
    if age < timedelta(hours=2):
        return f"{age.total_seconds() / 60:.0f} min"
    return f"{age.total_seconds() / 3600:.0f} h" if age < timedelta(days=3) else f"{age.days} days"
