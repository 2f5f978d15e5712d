"""
What have other scenarios' rankings found for a user? MNR: queues of rankings, scored (Eq. 2-6).

Per user and scenario a queue keeps the last N visits' rankings; `score` makes candidates of it. Both are pure
functions of packed bytes, used unchanged by the streaming job, the daily batch and the replay
(`models.mnr.replay`, which alone needs Arrow). They import numpy and numba only, once they are asked for: who
reads the configuration alone does not pay for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from models.mnr.config import MNRConfig, UnknownScenario

if TYPE_CHECKING:
    from models.mnr.queue import BadState, Outcome, insert, newest_time, unpack
    from models.mnr.scoring import Scored, score
    from models.mnr.visit import Cleaning, Visit, clean_ranking

__all__ = [
    "BadState",
    "Cleaning",
    "MNRConfig",
    "Outcome",
    "Scored",
    "UnknownScenario",
    "Visit",
    "clean_ranking",
    "insert",
    "newest_time",
    "score",
    "unpack",
]

_MODULES = {
    "queue": ("BadState", "Outcome", "insert", "newest_time", "unpack"),
    "scoring": ("Scored", "score"),
    "visit": ("Cleaning", "Visit", "clean_ranking"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import what computes on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
