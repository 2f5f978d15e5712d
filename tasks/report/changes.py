"""What differs between how two releases were made? Name by name, with the old and the new value."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.records import ChampionStatus, DayRecord
from tasks.report.facts import Change, Changes
from tasks.tracking import LoggedOrigin

SAMPLES = ("increc_sample", "pi2i_sample")


def made_with(settings: Mapping[str, Any], gates: str) -> dict[str, Any]:
    """Give what a run keeps for later days to compare with: ``{settings, gates}``."""
    return {"settings": dict(settings), "gates": tomllib.loads(gates)}


def changes_since(champion: ChampionStatus, origin: LoggedOrigin, record: DayRecord) -> Changes:
    """Compare a day's record with where the champion came from."""
    ours, theirs = _samples(record.data_digests), _samples(origin.data_digests)
    common = sorted(ours.keys() & theirs.keys())
    kept = origin.made_with
    return Changes(
        version=str(champion.version),
        day=str(champion.day),
        code=Change("code", origin.code_version, record.code_version),
        config=Change("configuration", origin.config_digest, record.config_digest),
        settings=differing(kept["settings"], record.made_with["settings"]) if kept else None,
        gates=differing(kept["gates"], record.made_with["gates"]) if kept else None,
        window=Change("learned from", _span(theirs), _span(ours)),
        n_common_days=len(common),
        changed_samples=tuple(
            day
            for day in common
            if any(ours[day].get(table, digest) != digest for table, digest in theirs[day].items())
        ),
    )


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    """List the names, nested ones with dots, whose values differ; by name."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return tuple(
        Change(name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value)


def _samples(digests: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Give the digests of the sample tables by day, then by table."""
    by_day: dict[str, dict[str, str]] = {}
    for name, digest in digests.items():
        table, _, day = name.partition("/")
        if table in SAMPLES:
            by_day.setdefault(day, {})[table] = digest
    return by_day


def _span(days: Mapping[str, object]) -> str | None:
    if not days:
        return None
    return f"{min(days)} .. {max(days)} ({len(days)} {'day' if len(days) == 1 else 'days'})"
