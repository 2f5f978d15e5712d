"""
What does scheduled publishing do about a champion that must not or cannot serve? It fails once a cause.

A person has to move the alias, so trying again every few minutes mends nothing: what was told already is a
warning in the log, until the alias names something else or the cause is another one. Causes are kept in
``<release_root>/REFUSED.json``; what serves stays.
"""

import json
import logging
from pathlib import Path

from lakehouse.releases import ReleaseCorrupt
from lakehouse.serving import replace_file
from tasks.approval import NotApproved
from tasks.promotions import now
from tasks.publish import PublishReport, publish_release
from tasks.settings import Settings
from tasks.tracking import UnknownVersion

REFUSED = "REFUSED.json"

log = logging.getLogger(__name__)


class PublishRefused(ValueError):
    """The champion is not published, for a cause that was not told before."""


def publish_on_schedule(settings: Settings) -> PublishReport:
    """
    Publish as ``publish_release`` does.

    Raises:
        PublishRefused: the champion must not or cannot serve; once for each cause, then a report with the
            status ``refused``.
        OSError: as ``publish_release``, each time.
    """
    record = settings.release_root / REFUSED
    try:
        report = publish_release(settings)
    except (NotApproved, ReleaseCorrupt, UnknownVersion) as error:
        cause = f"{type(error).__name__}: {error}"
        if read_refusal(settings.release_root) != cause:
            replace_file(record, json.dumps({"cause": cause, "at": now()}, indent=2) + "\n")
            raise PublishRefused(str(error)) from error
        log.warning("still refused, as told before: %s", error)
        return PublishReport("refused")
    record.unlink(missing_ok=True)
    return report


def read_refusal(root: Path) -> str | None:
    """Give why the champion is refused, as it was told; None where it is not."""
    try:
        return json.loads((root / REFUSED).read_text())["cause"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
