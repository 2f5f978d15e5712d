"""
What are other scenarios' rankings worth? MNR by replay, as ``make mnr-study`` runs it.

At each primary-scenario request of a day: what did the store hold for that user at that moment? Beside
MNR's channels, one per scenario (``mnr@<scenario>``) and ``mnr``, all of them, stand those that a daily
release serves on the day: Swing, the trained methods, and Glare, which is nearline on the primary scenario's
own rankings, once a day. What the user knew before the request is taken out of every list. Writes no table.
"""

import argparse
import sys
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from models.mnr import MNRConfig, worth
from models.mnr.replay import VisitLog, candidates_at
from models.ragged import join_lists
from tasks.channels import read_catalogue, read_models, retrieve_channels
from tasks.days import ONE_DAY, day_range, ingested, source_first_day, start_of
from tasks.evaluate import read_behaviour
from tasks.mnr_tables import COMPARED, TITLES, MNRStudy, Row
from tasks.rankings import is_stand_in, read_visits
from tasks.retrieved import retrieved_for_filter
from tasks.settings import Settings, load_settings
from tasks.spark import spark_session
from tasks.truncation import BadStudy, days_of

K = 50
MOST_K = 10_000
"""That of ``mnr.k``."""
LEAST_SHARE = 0.01
"""Scenarios with a list for fewer of the requests are left out of Tables 2-4."""
ALPHAS = (10.0, 20.0, 50.0, 200.0, 500.0)
ALL, GLARE, SWING = "mnr", "glare", "swing"
STREAMING, DAILY = "streaming", "daily"
Counts = dict[tuple[str, str], np.ndarray]


def mnr_study(first: date, last: date, settings: Settings, k: int = K) -> MNRStudy:
    """
    Measure channels of ``k`` items at the requests of the days from ``first`` to ``last``.

    Raises:
        BadStudy: no day, the source's first one, no request, or no ranking of another scenario.
        MissingPartition: a table of a day, or of the window before it, is not there.
    """
    days = day_range(first, last)
    if not days:
        raise BadStudy(f"no days from {first} to {last}: the first must not be after the last")
    if not 1 <= k <= MOST_K:
        raise BadStudy(f"K={k} is no length of a list: give 1 to {MOST_K}")
    lakehouse = Lakehouse(settings.lakehouse_root)
    for day in days:
        lakehouse.require(tables.TARGET_GROUP, day)
    if days[0] == source_first_day(ingested(lakehouse, days[0])):
        raise BadStudy(f"{days[0]} is the source's first day, with no day before it: begin later")
    methods = [name for name in settings.trained_methods if _is_trained(lakehouse, name, days)]
    measured = [_measure(day, lakehouse, methods, settings, k) for day in days]
    user_ids = np.concatenate([users for users, _ in measured])
    if not len(user_ids):
        raise BadStudy(f"no request of the primary scenario from {first} to {last}: choose other days")
    counts = _join([of_day for _, of_day in measured])
    if (ALL, STREAMING) not in counts:
        raise BadStudy(f"no ranking of another scenario in the window of {last}: nothing to retrieve")
    facts = ingested(lakehouse, first).meta
    total = counts[ALL, STREAMING].sum(axis=0)
    return MNRStudy(
        first,
        last,
        facts["source"],
        facts["primary_scenario"],
        is_stand_in(lakehouse, last),
        k,
        len(user_ids),
        len(np.unique(user_ids)),
        int(total[worth.EXPOSED]),
        *(float(total[column] / max(total[worth.EXPOSED], 1)) for column in (worth.CLICKS, worth.ORDERS)),
        tuple(name for name in settings.trained_methods if name not in methods),
        _rows(user_ids, counts, settings),
    )


def _is_trained(lakehouse: Lakehouse, method: str, days: list[date]) -> bool:
    return all(lakehouse.commit(tables.CHECKPOINT, day, part=method) for day in days)


def _measure(
    day: date, lakehouse: Lakehouse, methods: list[str], settings: Settings, k: int
) -> tuple[np.ndarray, Counts]:
    """Give the requests' users int64 [n], and counts int64 [n, N_COUNTS] by (channel, variant)."""
    eve = day - ONE_DAY
    catalogue = read_catalogue(lakehouse, eve, settings)
    users = read_behaviour(lakehouse, day, catalogue, settings).users
    rows = _read_requests(lakehouse, day, settings)
    rows = rows.filter(pc.is_in(rows["user_id"], pa.array(users.ids)))
    requests = worth.Requests(
        rows["user_id"].to_numpy(),
        rows["history_item_ids"].combine_chunks(),
        join_lists(*(rows[f"{group}_item_ids"].combine_chunks() for group in ("rtg", "itg"))),
        rows["exposed_item_ids"].combine_chunks(),
        *(
            rows[f"exposed_is_{use}"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            for use in ("click", "order")
        ),
    )
    models = read_models(lakehouse, day, settings, methods)
    filtered = retrieved_for_filter(models, catalogue, users, settings)
    lists = retrieve_channels([SWING, *models], models, catalogue, users, k, settings, filtered)
    order = np.argsort(users.ids)
    row = order[np.searchsorted(users.ids[order], requests.user_ids)]
    counts: Counts = {
        (name, DAILY): worth.count(worth.lists_of_matrix(retrieved, row), requests)
        for name, retrieved in lists.items()
    }
    counts |= _replay(day, lakehouse, rows.select(["user_id", "event_time"]), requests, settings, k)
    return requests.user_ids, counts


def _read_requests(lakehouse: Lakehouse, day: date, settings: Settings) -> pa.Table:
    return run_sql(
        "marts/replay_request",
        {
            "target_group": lakehouse.relation(tables.TARGET_GROUP, [day]),
            "exposure": lakehouse.relation(tables.EXPOSURE, [day]),
        },
        {"day": day, "primary_scenario": ingested(lakehouse, day).meta["primary_scenario"]},
        spark=spark_session(settings),
    )


def _replay(
    day: date,
    lakehouse: Lakehouse,
    moments: pa.Table,
    requests: worth.Requests,
    settings: Settings,
    k: int,
) -> Counts:
    """Replay every variant of MNR, and Glare."""
    eve = day - ONE_DAY
    config = settings.mnr.model_copy(update={"k": k, "order": "score"})
    midnight = start_of(day, ingested(lakehouse, day).meta["timezone"])
    starts = pa.table(
        {"user_id": moments["user_id"], "event_time": pa.array([midnight] * moments.num_rows, tables.TIME)}
    )
    today, yesterday = (read_visits(lakehouse, last, settings) for last in (day, eve))
    delay = settings.mnr_daily.delay_seconds
    counts: Counts = {}

    def add(variant: str, log: VisitLog, at: pa.Table, of: MNRConfig, delay_seconds: float = 0.0) -> None:
        candidates = candidates_at(log, at, of, delay_seconds)
        scenarios = sorted(set(today.scenarios))
        for scenario in scenarios:
            of_scenario = candidates.filter(pc.equal(candidates["scenario"], scenario))
            lists = worth.lists_of_candidates(of_scenario, k)
            counts[f"{ALL}@{scenario}", variant] = worth.count(lists, requests)
        if scenarios:
            counts[ALL, variant] = worth.count(worth.lists_of_candidates(candidates, k), requests)

    add(STREAMING, today, moments, config, delay)
    add(DAILY, yesterday, starts, config)
    for ablation in ("fifo", "random"):
        add(ablation, today, moments, config.model_copy(update={"order": ablation}), delay)
    for alpha in ALPHAS:
        add(_of_alpha(alpha), today, moments, config.model_copy(update={"alpha": alpha}), delay)
    own = candidates_at(read_visits(lakehouse, eve, settings, own=True), starts, config)
    counts[GLARE, DAILY] = worth.count(worth.lists_of_candidates(own, k), requests)
    return counts


def _join(days: list[Counts]) -> Counts:
    """Put the days below each other; a channel that a day did not have held nothing on it."""
    names = list(dict.fromkeys(name for of_day in days for name in of_day))
    joined: Counts = {}
    for name in names:
        parts = []
        for of_day in days:
            found = of_day.get(name)
            if found is None:
                found = next(iter(of_day.values())).copy()
                found[:, [worth.RETRIEVED, worth.HITS, worth.HELD, worth.HELD_CLICKS, worth.HELD_ORDERS]] = 0
            parts.append(found)
        joined[name] = np.concatenate(parts)
    return joined


def _rows(user_ids: np.ndarray, counts: Counts, settings: Settings) -> tuple[Row, ...]:
    channels = sorted({channel for channel, _ in counts if channel.startswith(f"{ALL}@")})
    alpha = settings.mnr.alpha
    steps: list[tuple[str, str, str, tuple[str, str] | None]] = []
    others = [name for name, variant in counts if variant == DAILY and name.partition("@")[0] != ALL]
    for name in [n for n in others if n != SWING]:
        steps.append(("table1", name, DAILY, (SWING, DAILY)))
    steps.insert(0, ("table1", SWING, DAILY, None))
    steps += [("table1", name, STREAMING, (SWING, DAILY)) for name in (*channels, ALL)]
    common = [name for name in channels if _share(counts[name, STREAMING]) >= LEAST_SHARE]
    for name in (*common, ALL):
        steps += [("table2", name, DAILY, None), ("table2", name, STREAMING, (name, DAILY))]
        steps += [
            ("table3", name, "random", None),
            ("table3", name, "fifo", (name, "random")),
            ("table3", name, "score", (name, "fifo")),
        ]
        steps += [
            ("table4", name, _of_alpha(each), None if each == alpha else (name, STREAMING)) for each in ALPHAS
        ]
    per_user = {name: worth.per_user(user_ids, found) for name, found in counts.items()}
    options = {"seed": settings.evaluation.seed, "n_resamples": settings.evaluation.n_bootstrap}
    alone = {name: worth.intervals(found, **options) for name, found in per_user.items()}
    rows = []
    for table, channel, variant, against in steps:
        key = (channel, STREAMING if variant == "score" else variant)
        found = per_user[key]
        differences = worth.differences(found, per_user[against], **options) if against else {}
        rows.append(
            Row(
                table,
                channel,
                variant,
                _share(counts[key]),
                float(counts[key][:, worth.RETRIEVED].mean()),
                alone[key],
                " ".join(against) if against else "",
                {name: differences[name] for name in COMPARED if name in differences},
            )
        )
    return tuple(rows)


def _share(counts: np.ndarray) -> float:
    """Give the share of the requests for which anything was held."""
    return float((counts[:, worth.RETRIEVED] > 0).mean())


def _of_alpha(alpha: float) -> str:
    return f"alpha = {alpha:g}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.mnr_study", description=__doc__.split("\n\n")[0])
    parser.add_argument("--day", help="one day, YYYY-MM-DD")
    parser.add_argument("--from", dest="first", metavar="DAY", help="first of several days")
    parser.add_argument("--to", dest="last", metavar="DAY", help="last of them")
    parser.add_argument("--k", help=f"length of a list, default {K}")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        first, last = days_of(options.day, options.first, options.last)
        study = mnr_study(first, last, settings, _length(options.k))
        print(study.summary() + "\n\n" + "\n\n".join(study.table(name) for name in TITLES) + "\n")
        print(_keep(study, settings))
    except (ValueError, LookupError, OSError) as error:
        print(f"make mnr-study: {error}", file=sys.stderr)
        return 1
    return 0


def _length(text: str | None) -> int:
    try:
        return int(text) if text else K
    except ValueError as error:
        raise BadStudy(f"K={text} is no whole number; write K=50") from error


def _keep(study: MNRStudy, settings: Settings) -> str:
    """Write tables and figure below the state folder, log them to MLflow, and tell where they are."""
    from tasks.mnr_figure import mnr_figure
    from tasks.tracking import log_mnr_study

    folder = settings.var / "mnr" / f"{study.days.replace(' .. ', '_')}-K{study.k}"
    folder.mkdir(parents=True, exist_ok=True)
    figure = mnr_figure(study)
    (folder / "study.md").write_text(study.markdown())
    (folder / "study.csv").write_text(study.csv())
    figure.savefig(folder / "study.png", metadata={"Software": None})
    logged = log_mnr_study(study, figure, settings)
    return f"files: {folder}   MLflow: {logged.address}{'' if logged.is_new else ' (as before)'}"


if __name__ == "__main__":
    sys.exit(main())
