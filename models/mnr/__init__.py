"""
What have other scenarios' rankings found for a user? MNR: queues of rankings, scored (Eq. 2-6).

Per user and scenario a queue keeps the last N visits' rankings; `score` makes candidates of it. Both are pure
functions of packed bytes, used unchanged by the streaming job, the daily batch and the replay
(`models.mnr.replay`, which alone needs Arrow). They import numpy and numba only.
"""

from models.mnr.config import MNRConfig, UnknownScenario
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
