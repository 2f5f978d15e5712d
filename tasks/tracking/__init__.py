"""
MLflow: the runs of a day, the registered releases and their aliases.

The only importer of mlflow besides the model file ``tasks/pyfunc.py``. Every function raises
``TrackingUnavailable`` when MLflow does not answer.
"""

from tasks.tracking.connection import TrackingUnavailable, has_store
from tasks.tracking.downloads import download_release
from tasks.tracking.origin import LoggedOrigin, find_origin
from tasks.tracking.registry import force, note_promotion, register_version, set_challenger, set_champion
from tasks.tracking.runs import LoggedDay, log_day
from tasks.tracking.studies import LoggedStudy, log_study
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
    "has_store",
    "list_releases",
    "log_day",
    "log_study",
    "note_promotion",
    "register_alias_webhook",
    "register_version",
    "set_challenger",
    "set_champion",
]
