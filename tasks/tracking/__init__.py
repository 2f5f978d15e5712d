"""
MLflow: the runs of a day, the registered releases and their aliases.

The only importer of mlflow besides the model file ``tasks/pyfunc.py``. Every function raises
``TrackingUnavailable`` when MLflow does not answer, and ``LoginRefused`` when it refuses the login.
"""

from tasks.tracking.connection import LoginRefused, TrackingUnavailable, has_store
from tasks.tracking.downloads import download_release, has_artifacts
from tasks.tracking.origin import LoggedOrigin, find_origin
from tasks.tracking.registry import force, note_promotion, register_version, set_challenger, set_champion
from tasks.tracking.removal import (
    list_logged_days,
    list_removed,
    mark_removed,
    remove_day,
    remove_version,
)
from tasks.tracking.runs import LoggedDay, log_day
from tasks.tracking.studies import LoggedStudy, log_comparison, log_mnr_study, log_pi2i_study, log_study
from tasks.tracking.versions import (
    ChampionMove,
    ReleaseVersion,
    UnknownVersion,
    challenger,
    champion,
    find_release,
    find_version,
    list_releases,
)
from tasks.tracking.webhooks import WebhookRefused, register_alias_webhook

__all__ = [
    "ChampionMove",
    "LoggedDay",
    "LoggedOrigin",
    "LoggedStudy",
    "LoginRefused",
    "ReleaseVersion",
    "TrackingUnavailable",
    "UnknownVersion",
    "WebhookRefused",
    "challenger",
    "champion",
    "download_release",
    "find_origin",
    "find_release",
    "find_version",
    "force",
    "has_artifacts",
    "has_store",
    "list_logged_days",
    "list_releases",
    "list_removed",
    "log_comparison",
    "log_day",
    "log_mnr_study",
    "log_pi2i_study",
    "log_study",
    "mark_removed",
    "note_promotion",
    "register_alias_webhook",
    "register_version",
    "remove_day",
    "remove_version",
    "set_challenger",
    "set_champion",
]
