"""
Which releases served, in which order, and why?

The promotion log is append-only: one small JSON file per change of the served release, in
``<release_root>/promotions/``, under names that sort by time. MLflow keeps no history of aliases, so this
log is what rollback and automatic promotion go by.
"""

import json
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from lakehouse.serving import replace_file

FOLDER = "promotions"
STAMP = "%Y%m%dT%H%M%S.%fZ"
Kind = Literal["promotion", "rollback", "approval"]


class BrokenLog(ValueError):
    """An entry of the promotion log cannot be read."""


@dataclass(frozen=True)
class Promotion:
    """
    One entry: from when on ``version`` served, instead of ``from_version`` (null for the first one).

    ``kind`` is ``promotion``, ``rollback`` (to an earlier release; only a person promotes while it is the
    last entry), or ``approval`` (a person lets what serves stay, which ends a rollback). ``move_id`` is the
    alias move that asked for it, null when the alias was moved in MLflow itself. ``at`` is UTC, ISO 8601.
    """

    version: str
    day: date
    release_digest: str
    from_version: str | None
    actor: Literal["auto", "manual"]
    kind: Kind
    reason: str
    move_id: str | None
    at: str


def read_promotions(root: Path) -> list[Promotion]:
    """
    Read the log, oldest first.

    Raises:
        BrokenLog: an entry cannot be read.
    """
    return [_read(path) for path in sorted((root / FOLDER).glob("*.json"))]


def append_promotion(root: Path, promotion: Promotion) -> None:
    """Add an entry; its file name sorts after every other, whatever the clock says."""
    stamp = _stamp(datetime.fromisoformat(promotion.at))
    newest = max((path.name.split("-")[0] for path in (root / FOLDER).glob("*.json")), default="")
    if stamp <= newest:
        stamp = _stamp(datetime.strptime(newest, STAMP) + timedelta(microseconds=1))
    text = json.dumps(asdict(promotion) | {"day": promotion.day.isoformat()}, indent=2) + "\n"
    replace_file(root / FOLDER / f"{stamp}-{uuid.uuid4().hex[:8]}.json", text)


def now() -> str:
    """Give the time, UTC without a zone, in ISO 8601."""
    return datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


def served_before(promotions: list[Promotion], version: str) -> str | None:
    """
    Give the version that ``version`` replaced when it was last promoted; None when there is none.

    Rolling back twice goes two releases back: a release that was rolled back from is not returned to.
    """
    for promotion in reversed(promotions):
        if promotion.version == version and promotion.kind == "promotion":
            return promotion.from_version
    return None


def _read(path: Path) -> Promotion:
    try:
        values = json.loads(path.read_text())
        return Promotion(**values | {"day": date.fromisoformat(values["day"])})
    except (ValueError, TypeError, KeyError) as error:
        raise BrokenLog(f"{path} cannot be read ({error!r}): restore it, the log is never edited") from error


def _stamp(at: datetime) -> str:
    return at.strftime(STAMP)
