"""Three registered releases of three days: what serves, and what the promotion log holds."""

from datetime import timedelta

from lakehouse.serving import read_serving
from nearline.store import open_store, read_served
from tasks import tracking
from tasks.promotions import read_promotions
from tasks.settings import Settings
from tests.tasks.small_releases import (
    DAY,
    USERS,
)

DAYS = {version: DAY + timedelta(days=number) for number, version in enumerate("123")}


def served(settings: Settings) -> tuple[str | None, str | None]:
    """The version that the pointer names, and the one that the online store serves to every user."""
    pointer = read_serving(settings.release_root)
    store = open_store(settings.online_store_url)
    releases = {found and found.release for user in USERS if (found := read_served(store, user)) or True}
    store.close()
    assert len(releases) == 1
    digest = releases.pop()
    by_digest = {facts["release_digest"]: facts["version"] for facts in versions(settings)}
    return pointer and pointer.version, by_digest.get(digest)


def versions(settings: Settings) -> list[dict]:
    return [tracking.find_version(day, settings) for day in DAYS.values()]


def logged(settings: Settings) -> list[tuple[str | None, str, str, str]]:
    return [(p.from_version, p.version, p.actor, p.kind) for p in read_promotions(settings.release_root)]
