"""What is a click, and what does an event that is none say?"""

import json

import pytest

from nearline.clicks import Click, MalformedClick, read_click

GOOD = {"user_id": 7, "item_id": 42, "event_time": 1_700_000_000_000_000}
LATEST = 1_800_000_000_000_000


@pytest.mark.parametrize(
    "event",
    [
        GOOD,
        json.dumps(GOOD),
        {name: str(value) for name, value in GOOD.items()},
        {**GOOD, "scenario": "home", "position": None},
    ],
)
def test_ids_and_time_are_read_from_a_mapping_or_its_text(event: object) -> None:
    assert read_click(event, latest=LATEST) == Click(**GOOD)
    assert Click(**GOOD).fields() == GOOD


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1, 2]", "a JSON object is needed, not list"),
        ("null", "not NoneType"),
        ({}, "user_id is missing"),
        ({**GOOD, "item_id": None}, "item_id is 'None': a whole number"),
        ({**GOOD, "item_id": -1}, "item_id is '-1'"),
        ({**GOOD, "item_id": 2**63}, "item_id"),
        ({**GOOD, "item_id": 1.5}, "item_id is '1.5'"),
        ({**GOOD, "user_id": True}, "user_id is 'True'"),
        ({**GOOD, "user_id": "seven"}, "user_id is 'seven'"),
        ({**GOOD, "user_id": "\u0667"}, "user_id"),
        ({**GOOD, "user_id": "9" * 5000}, "user_id is '99"),
        ({**GOOD, "event_time": "2026-01-01"}, "event_time is '2026-01-01'"),
        ({**GOOD, "event_time": LATEST + 90_000_000}, "90 s later than may be: mend the clock"),
    ],
)
def test_what_is_no_click_says_why_in_one_line(event: object, message: str) -> None:
    with pytest.raises(MalformedClick, match=message) as caught:
        read_click(event, latest=LATEST)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
