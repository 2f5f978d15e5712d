"""
How large should T be? The truncation study (PI2I 4.5, Fig. 4), as ``make truncation-study`` runs it.

A day is measured as the daily evaluation does: histories, catalogue and i2i table as of the day before,
targets of the day. The i2i table is built once, at the largest T, and cut at the smaller ranks. The Hit rate
is that of all candidates (Eq. 5 with K their number), which bounds what any scorer of them can reach.
"""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import date

import numpy as np
import pyarrow as pa

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.metrics import hit_rate
from models.swing import I2I_SCHEMA
from models.truncation import Reach, check_truncations, reach
from tasks.channels import read_catalogue
from tasks.days import ONE_DAY, day_range, ingested, source_first_day
from tasks.evaluate import read_behaviour
from tasks.figures import truncation_figure
from tasks.histories import read_window_clicks
from tasks.settings import Settings, load_settings
from tasks.study import Study, make_steps
from tasks.swing import i2i_blocks

TRUNCATIONS = (10, 25, 50, 100, *range(250, 2001, 250))


class BadStudy(ValueError):
    """The days of a study are not given as such; the message says how to."""


def truncation_study(
    first: date, last: date, settings: Settings, truncations: tuple[int, ...] = TRUNCATIONS
) -> Study:
    """
    Compare truncations on the days from ``first`` to ``last``; writes no table.

    Raises:
        BadTruncations: fewer than two, not ascending, repeated or below 1.
        BadStudy: no day, or no user with a target on any of them.
        MissingPartition: a table of a day, or of the day before it, is not there.
    """
    check_truncations(truncations)
    days = day_range(first, last)
    if not days:
        raise BadStudy(f"no days from {first} to {last}: the first must not be after the last")
    lakehouse = Lakehouse(settings.lakehouse_root)
    for day in days:
        lakehouse.require(tables.TARGET_GROUP, day)
    if days[0] == source_first_day(ingested(lakehouse, days[0])):
        raise BadStudy(f"{days[0]} is the source's first day, with no day before it: begin later")
    measured = [_measure(day, lakehouse, settings, truncations) for day in days]
    targets = pa.concat_arrays([of_day for of_day, _ in measured])
    ranks = np.concatenate([found.target_ranks for _, found in measured])
    has_target = np.diff(targets.offsets.to_numpy()) > 0
    if not has_target.any():
        raise BadStudy(f"no user has a target from {first} to {last}: choose other days")
    candidates = np.concatenate([found.n_candidates for _, found in measured])[has_target].mean(axis=0)
    config = settings.evaluation
    rates = [
        hit_rate(ranks, targets, t, seed=config.seed, n_resamples=config.n_bootstrap) for t in truncations
    ]
    source = ingested(lakehouse, first).meta["source"]
    steps = make_steps(truncations, rates, candidates.tolist())
    return Study(first, last, source, settings.samples.n_triggers, steps)


def _measure(
    day: date, lakehouse: Lakehouse, settings: Settings, truncations: tuple[int, ...]
) -> tuple[pa.ListArray, Reach]:
    """Give the targets of the day's users, and how far they and the candidates are reached."""
    eve = day - ONE_DAY
    catalogue = read_catalogue(lakehouse, eve, settings)
    behaviour = read_behaviour(lakehouse, day, catalogue, settings)
    clicks = read_window_clicks(lakehouse, eve, settings).select(["user_id", "item_id", "event_time"])
    config = settings.swing.model_copy(update={"truncation": truncations[-1]})
    i2i_table = pa.Table.from_batches(list(i2i_blocks(clicks, config, settings)), I2I_SCHEMA)
    found = reach(
        i2i_table,
        behaviour.users.histories,
        behaviour.targets,
        truncations,
        n_triggers=settings.samples.n_triggers,
        allowed_item_ids=catalogue.item_ids,
        n_threads=settings.n_threads,
    )
    return behaviour.targets, found


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.truncation", description=__doc__.split("\n\n")[0])
    parser.add_argument("--day", help="one day, YYYY-MM-DD")
    parser.add_argument("--from", dest="first", metavar="DAY", help="first of several days")
    parser.add_argument("--to", dest="last", metavar="DAY", help="last of them")
    parser.add_argument("--truncations", help="ascending, e.g. 250,500,750")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        first, last = days_of(options.day, options.first, options.last)
        truncations = _truncations(options.truncations) if options.truncations else TRUNCATIONS
        study = truncation_study(first, last, settings, truncations)
        print(study.table())
        print(_keep(study, settings))
    except (ValueError, LookupError, OSError) as error:
        print(f"make truncation-study: {error}", file=sys.stderr)
        return 1
    return 0


def days_of(day: str | None, first: str | None, last: str | None) -> tuple[date, date]:
    """Read the days of a command: one, or the first and the last."""
    if bool(day) == bool(first or last) or bool(first) != bool(last):
        raise BadStudy("name the days: DAY=2022-05-05, or FROM=2022-05-03 TO=2022-05-05")
    try:
        return date.fromisoformat(first or day), date.fromisoformat(last or day)
    except ValueError as error:
        raise BadStudy(f"{error}; a day is written YYYY-MM-DD") from error


def _truncations(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise BadStudy(f"T={text} is no list of whole numbers; write T=250,500,750") from error


def _keep(study: Study, settings: Settings) -> str:
    """Write table, figure and figures below the state folder, log them to MLflow, and tell where they are."""
    from tasks.tracking import log_study

    ts = [step.truncation for step in study.steps]
    folder = settings.var / "truncation" / f"{study.days.replace(' .. ', '_')}-T{'_'.join(map(str, ts))}"
    folder.mkdir(parents=True, exist_ok=True)
    figure = truncation_figure(study)
    (folder / "study.md").write_text(study.table() + "\n")
    (folder / "study.json").write_text(json.dumps(asdict(study), indent=2, default=str) + "\n")
    figure.savefig(folder / "study.png", metadata={"Software": None})
    logged = log_study(study, figure, settings)
    return f"files: {folder}   MLflow: {logged.address}{'' if logged.is_new else ' (as before)'}"


if __name__ == "__main__":
    sys.exit(main())
