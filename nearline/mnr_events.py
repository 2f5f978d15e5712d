"""
Is a line a ranking event? One JSON object a line -> user, scenario and visit, or a reason why not.

    {"request_id": 1, "user_id": 7, "scenario": "search", "event_time": 1767225600000000,
     "item_ids": [3, 5], "category_ids": [1, null], "scores": [0.9, 0.4]}

``event_time`` is microseconds since 1970, UTC. ``category_ids`` and ``scores`` may be absent. An item id or a
category that is no whole number counts as unknown, a score that is no number as NaN.
"""

import json
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

try:
    from orjson import loads as read_strict_json
except ImportError:  # Flink's environment has it; elsewhere speed matters less
    from json import loads as read_strict_json

from models.mnr import Cleaning, MNRConfig, UnknownScenario, Visit, clean_ranking

MALFORMED, REFUSED, AHEAD, EMPTY = "malformed", "refused_scenario", "ahead_of_clock", "empty"
REASONS = (MALFORMED, REFUSED, AHEAD, EMPTY)

_YEAR_2000 = 946_684_800_000_000
_INT64 = range(-(2**63), 2**63)


class Event(NamedTuple):
    """One ranking of one user in one scenario."""

    user_id: int
    scenario: str
    visit: Visit
    cleaning: Cleaning


class BadEvent(ValueError):
    """A line that is no event; ``reason`` is one of ``REASONS``, the message says more."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep the reason beside the message."""
        super().__init__(message)
        self.reason = reason


def read_event(line: str | bytes, config: MNRConfig, latest: int) -> Event:
    """
    Read one line.

    Args:
        line: the JSON object.
        config: MNR's hyperparameters.
        latest: the latest event time that is accepted, microseconds since 1970.

    Raises:
        BadEvent: it is none, or none that counts.
    """
    values = _json(line)
    if not isinstance(values, dict):
        raise BadEvent(MALFORMED, "no JSON object")
    user_id, request_id = _whole(values, "user_id"), _whole(values, "request_id")
    event_time, scenario = _whole(values, "event_time"), values.get("scenario")
    if not isinstance(scenario, str) or not scenario or not _is_unicode(scenario):
        raise BadEvent(MALFORMED, "scenario is no text")
    if event_time < _YEAR_2000:
        raise BadEvent(MALFORMED, f"event_time {event_time} is not in microseconds since 1970")
    if event_time > latest:
        raise BadEvent(AHEAD, f"event_time {event_time} is in the future")
    items = _numbers(values, "item_ids", np.int64, _id_or_none)
    categories = _numbers(values, "category_ids", np.int64, _id_or_none)
    scores = _scores(values)
    if items is None:
        raise BadEvent(MALFORMED, "item_ids is missing")
    try:
        visit, cleaning = clean_ranking(request_id, event_time, scenario, items, categories, scores, config)
    except UnknownScenario as error:
        raise BadEvent(REFUSED, str(error)) from None
    except ValueError as error:
        raise BadEvent(MALFORMED, str(error)) from None
    if not len(visit.item_ids):
        raise BadEvent(EMPTY, "no item of the ranking counts")
    return Event(user_id, scenario, visit, cleaning)


def _json(line: str | bytes) -> object:
    try:
        return read_strict_json(line)
    except ValueError:
        try:
            return json.loads(line)  # strict JSON has no NaN, loggers have
        except (ValueError, RecursionError) as error:
            raise BadEvent(MALFORMED, f"no JSON: {error}") from None
    except RecursionError as error:
        raise BadEvent(MALFORMED, f"no JSON: {error}") from None


def _scores(values: dict) -> np.ndarray | None:
    """Give the scores; zeros where a sum shows that all are finite, since only that counts."""
    scores = values.get("scores")
    try:
        if math.isfinite(sum(scores)):
            return np.zeros(len(scores))
    except (TypeError, OverflowError):
        pass
    return _numbers(values, "scores", np.float64, _score_or_nan)


def _whole(values: dict, name: str) -> int:
    value = values.get(name)
    if type(value) is not int or value not in _INT64:
        raise BadEvent(MALFORMED, f"{name} is no whole number of 64 bits")
    return value


def _is_unicode(text: str) -> bool:
    """Tell whether text can be written: JSON may escape half a surrogate pair, which ends the job."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _numbers(
    values: dict, name: str, dtype: type, or_missing: Callable[[object], int | float]
) -> np.ndarray | None:
    """Give a list as an array; None where it is absent or null."""
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, list):
        raise BadEvent(MALFORMED, f"{name} is no list")
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        array = None
    fits = array is not None and array.ndim == 1 and array.dtype in (dtype, np.int64)
    if fits:
        return array.astype(dtype, copy=False)
    return np.array([or_missing(each) for each in value], dtype)


def _id_or_none(value: object) -> int:
    return value if type(value) is int and value in _INT64 else -1


def _score_or_nan(value: object) -> float:
    try:
        return float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        return math.nan
