"""
Is an event a click? A user, an item and a time, or a reason why not.

    {"user_id": 7, "item_id": 42, "event_time": 1767225600000000}

The time is when it was clicked, in microseconds since 1970 (UTC). Ids and time are whole numbers, as such or
as their decimal text; other fields are not looked at. A user's clicks on one item at one time are one click.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

FIELDS = ("user_id", "item_id", "event_time")
MOST = 2**63 - 1
LONGEST_EVENT = 1 << 16


class MalformedClick(ValueError):
    """An event is no click; the message says why."""


@dataclass(frozen=True)
class Click:
    """A user's click on an item; the time is microseconds since 1970, UTC."""

    user_id: int
    item_id: int
    event_time: int

    def fields(self) -> dict[str, int]:
        """Give the event."""
        return {name: getattr(self, name) for name in FIELDS}


@dataclass(frozen=True)
class Delivery:
    """
    An event as a source gives it.

    ``event_id`` is the source's own; ``fields`` a mapping, or the text of one; ``n_deliveries`` counts this
    one; ``arrived_at`` is when the source got the event, seconds since 1970.
    """

    event_id: str
    fields: Mapping[str, object] | str
    n_deliveries: int
    arrived_at: float


def read_click(fields: Mapping[str, object] | str, *, latest: float) -> Click:
    """
    Read an event.

    Args:
        fields: a mapping, or its JSON text.
        latest: the latest time to take, microseconds since 1970: a click from the future would keep the
            lists of later ones out of the store.

    Raises:
        MalformedClick: it is no click.
    """
    if isinstance(fields, str):
        fields = _read_text(fields)
    click = Click(*(_whole_number(fields, name) for name in FIELDS))
    if click.event_time > latest:
        ahead = (click.event_time - latest) / 1e6
        raise MalformedClick(
            f"event_time {click.event_time} is {ahead:.0f} s later than may be: mend the clock"
        )
    return click


def _read_text(text: str) -> Mapping[str, object]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedClick(f"no JSON: {str(error)[:200]}") from error
    if not isinstance(fields, dict):
        raise MalformedClick(f"a JSON object is needed, not {type(fields).__name__}")
    return fields


def _whole_number(fields: Mapping[str, object], name: str) -> int:
    if name not in fields:
        raise MalformedClick(f"{name} is missing")
    value = fields[name]
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise MalformedClick(f"{name} is {str(value)[:50]!r}: a whole number from 0 to 2**63 - 1 is needed")
    return value
