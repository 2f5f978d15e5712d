"""
May a release be promoted automatically, and who moved the alias champion?

The promotion log and the alias together tell: a release is promoted automatically only by a run that is no
backfill, of a day later than any before, while no rollback is in force.
"""

from datetime import date
from typing import Any

from lakehouse.serving import read_serving
from tasks import tracking
from tasks.approval import is_approved
from tasks.promotions import Promotion, now, read_promotions
from tasks.publish_lock import LOCK_TIMEOUT_SECONDS, publish_lock
from tasks.records import PASSED
from tasks.settings import Settings
from tasks.tracking import ReleaseVersion


def may_promote(day: date, is_backfill: bool, settings: Settings) -> tuple[bool, str]:
    """
    Tell whether a release of ``day`` that passed its gates may be promoted automatically, and why (not).

    It takes ``promotion = "auto"``, a run that is no backfill, no rollback in force, and a day later than
    any that was ever promoted.
    """
    if settings.promotion != "auto":
        return False, "promotion is manual: a reviewer moves the alias champion"
    if is_backfill:
        return False, "a backfill never promotes"
    if is_rollback_in_force(settings):
        return False, "a rollback is in force: only a person promotes"
    promoted = [promotion.day for promotion in read_promotions(settings.release_root)]
    now_there = (tracking.champion(settings), read_serving(settings.release_root))
    promoted += [release.day for release in now_there if release]
    if promoted and day <= max(promoted):
        return False, f"a release of {max(promoted)} was promoted already, {day} is not later"
    return True, f"{day} is later than any promoted day"


def promote_automatically(version: str, day: date, is_backfill: bool, settings: Settings) -> tuple[bool, str]:
    """Point the alias champion at ``version`` if ``may_promote`` allows it; its answer is kept as a tag."""
    with publish_lock(settings.release_root, LOCK_TIMEOUT_SECONDS):
        is_allowed, reason = may_promote(day, is_backfill, settings)
        champion = tracking.champion(settings)
        if is_allowed:
            tracking.set_champion(version, settings, actor="auto", reason=f"gates passed; {reason}")
        if champion is None or champion.version != version:
            tracking.note_promotion(version, f"{'' if is_allowed else 'not '}promoted: {reason}", settings)
        return is_allowed, reason


def is_rollback_in_force(settings: Settings) -> bool:
    """
    Tell whether an earlier release was put back and no person has promoted since.

    An alias that was moved back but is not published yet counts as well; one on a version that publishing
    refuses does not count.
    """
    promotions = read_promotions(settings.release_root)
    if not promotions:
        return False
    champion = tracking.champion(settings)
    if champion is None or champion.version == promotions[-1].version or not is_approved(champion):
        return promotions[-1].kind == "rollback"
    return next_entry(champion, promotions)["kind"] == "rollback"


def next_entry(champion: ReleaseVersion, promotions: list[Promotion]) -> dict[str, Any]:
    """Tell who moved the alias to ``champion`` and why, for the log's next entry."""
    last = promotions[-1] if promotions else None
    entry = {"from_version": last and last.version, "at": now()}
    move = champion.move
    forced = "" if champion.verdict == PASSED else f"; forced: {champion.force_reason}"
    if move and move.move_id not in {promotion.move_id for promotion in promotions}:
        return entry | {
            "actor": move.actor,
            "kind": move.kind,
            "reason": move.reason + forced,
            "move_id": move.move_id,
        }
    is_back = last is not None and _order(champion) < _order(last)
    return entry | {
        "actor": "manual",
        "kind": "rollback" if is_back else "promotion",
        "reason": "the alias champion was moved in MLflow" + forced,
        "move_id": None,
    }


def _order(release: ReleaseVersion | Promotion) -> tuple[date, int]:
    return release.day, int(release.version)
