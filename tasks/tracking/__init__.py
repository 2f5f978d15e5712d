"""
MLflow: the runs of a day, the registered releases and their aliases.

The only importer of mlflow besides the model file ``tasks/pyfunc.py``. Every function raises
``TrackingUnavailable`` when MLflow does not answer.
"""

from tasks.tracking.connection import TrackingUnavailable
from tasks.tracking.downloads import download_release
from tasks.tracking.registry import (
    ChampionMove,
    ReleaseVersion,
    UnknownVersion,
    challenger,
    champion,
    find_release,
    find_version,
    force,
    list_releases,
    register_version,
    set_challenger,
    set_champion,
)
from tasks.tracking.runs import LoggedDay, log_day

__all__ = [
    "ChampionMove",
    "LoggedDay",
    "ReleaseVersion",
    "TrackingUnavailable",
    "UnknownVersion",
    "challenger",
    "champion",
    "download_release",
    "find_release",
    "find_version",
    "force",
    "list_releases",
    "log_day",
    "register_version",
    "set_challenger",
    "set_champion",
]
