"""
Evaluation tasks: the day's behaviour, which no training saw -> metric rows with bootstrap intervals.

Histories, i2i table, popularity and catalogue are as of the end of the day before: what a daily release
serves on the day. The champion is measured on the same users and targets, with its own weights and
vocabulary but the challenger's fresh histories and i2i table, so that freshness alone wins nothing.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.sql import run_sql
from lakehouse.store import Lakehouse
from models.channels import marginal_hits
from models.metrics import Cohort
from models.popularity import fill_with_popular
from models.truncation import MOST, reach
from tasks.champion import Champion, champion_candidates, read_champion, retrieve_champion
from tasks.channels import (
    MERGED,
    Catalogue,
    Users,
    merge,
    read_catalogue,
    read_models,
    retrieve_channels,
    with_profiles,
)
from tasks.days import ONE_DAY, ingested
from tasks.examples import draw_examples
from tasks.gates import WARMING_UP
from tasks.measures import Measures
from tasks.popular import read_item_statistics
from tasks.records import NO_CHAMPION, ChampionStatus
from tasks.retrieved import retrieved_for_filter
from tasks.settings import BASE, PI2I, Settings
from tasks.spark import spark_session
from tasks.train import is_warming_up

REFERENCES = ("popularity", "swing")
# Truncations of which the last keeps all that the i2i table has.
WHOLE_LISTS = (1, MOST - 1)


@dataclass(frozen=True)
class EvaluationReport:
    """What was measured on how many users and targets, and against which champion."""

    status: str
    n_users: int
    n_targets: int
    champion: ChampionStatus


@dataclass(frozen=True)
class Behaviour:
    """What the users of a day did, row by row as ``users``."""

    users: Users
    targets: pa.ListArray
    retrieved: pa.ListArray
    itg: pa.ListArray
    exposed: pa.ListArray
    cohorts: dict[str, Cohort]


def evaluate(day: date, settings: Settings) -> EvaluationReport:
    """
    Replace ``metric/ds=<day>/step=evaluate``, whose meta tells the status and the champion, and ``example``.

    Raises:
        MissingPartition: a method has no checkpoint of the day, or a table of the day before is not there.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    if is_warming_up(lakehouse, day, settings):
        return _write(
            lakehouse, day, Measures(settings.evaluation), WARMING_UP, ChampionStatus(NO_CHAMPION), 0
        )
    models = read_models(lakehouse, day, settings, settings.trained_methods)
    catalogue = read_catalogue(lakehouse, day - ONE_DAY, settings)
    behaviour = read_behaviour(lakehouse, day, catalogue, settings)
    measures = Measures(settings.evaluation)

    depth = 2 * max(settings.evaluation.ks) + widest(behaviour.retrieved)
    depth = max(depth, sum(settings.channels.values()))
    filtered = retrieved_for_filter(models, catalogue, behaviour.users, settings)
    lists = retrieve_channels(
        [*REFERENCES, *models], models, catalogue, behaviour.users, depth, settings, filtered
    )
    lists["swing_filled"] = fill_with_popular(lists["swing"], catalogue.popular, behaviour.users.histories)
    lists[MERGED] = merge(lists, settings.channels)
    ranks = {
        name: measures.add_hit_rates(name, retrieved, behaviour.targets, behaviour.cohorts)
        for name, retrieved in lists.items()
    }
    for name in (*models, MERGED):
        ks = tuple(k for k in settings.evaluation.ks if k <= lists[name].shape[1])
        for reference in ("popularity", "swing"):
            measures.add_relative(name, reference, ranks, behaviour.targets, ks, {})
    if settings.pi2i:
        measures.add_relative(PI2I, BASE, ranks, behaviour.targets, settings.evaluation.ks, {})
        _add_candidates(measures, catalogue, behaviour, settings)
    measures.add_incremental(
        {name: lists[name] for name in models}, BASE, behaviour.itg, behaviour.retrieved, behaviour.exposed
    )
    marginal = marginal_hits(lists, settings.channels, behaviour.targets)
    measures.add_marginal_hits(marginal, settings.channels, behaviour.targets)
    examples = draw_examples(
        behaviour.users,
        behaviour.targets,
        ranks[MERGED],
        lists,
        settings.channels,
        settings.evaluation.seed,
    )
    lakehouse.replace(tables.EXAMPLE, day, examples)
    champion, status = read_champion(day, settings)
    if champion:
        _add_champion(measures, champion, catalogue, behaviour, lists, ranks, settings)
    return _write(lakehouse, day, measures, "evaluated", status, len(behaviour.users.ids))


def _add_candidates(
    measures: Measures, catalogue: Catalogue, behaviour: Behaviour, settings: Settings
) -> None:
    """Add how many candidates PI2I scores, and the share of targets among them."""
    found = reach(
        catalogue.i2i_table,
        behaviour.users.histories,
        behaviour.targets,
        WHOLE_LISTS,
        n_triggers=settings.pi2i.n_triggers,
        allowed_item_ids=catalogue.item_ids,
        n_threads=settings.n_threads,
    )
    measures.add_candidates(PI2I, found.target_ranks, found.n_candidates[:, -1], behaviour.targets)


def _add_champion(
    measures: Measures,
    champion: Champion,
    catalogue: Catalogue,
    behaviour: Behaviour,
    lists: dict[str, np.ndarray],
    ranks: dict[str, np.ndarray],
    settings: Settings,
) -> None:
    """Add the champion's rows and every comparable method's interval against it; of the merged by cohort."""
    if champion.release.has_scorer and catalogue.item_statistics is None:
        statistics = read_item_statistics(Lakehouse(settings.lakehouse_root), catalogue.day, settings)
        catalogue = replace(catalogue, item_statistics=statistics)
    depth = max(*settings.evaluation.ks, sum(champion.quotas.values()))
    filtered = retrieved_for_filter(champion.models, catalogue, behaviour.users, settings)
    theirs = retrieve_champion(champion, catalogue, behaviour.users, depth, settings, retrieved=filtered)
    for name, retrieved in theirs.items():
        row = "champion" if name == MERGED else f"champion_{name}"
        cohorts = behaviour.cohorts if name == MERGED else {}
        their_ranks = measures.add_hit_rates(row, retrieved, behaviour.targets, cohorts)
        if name in ranks:
            width = min(retrieved.shape[1], lists[name].shape[1])
            ks = tuple(k for k in settings.evaluation.ks if k <= width)
            paired = {name: ranks[name], "champion": their_ranks}
            measures.add_relative(name, "champion", paired, behaviour.targets, ks, cohorts)
            measures.add_overlap(name, "champion", lists[name], retrieved, ks)
    served = champion_candidates(champion, behaviour.users)
    measures.add_hit_rates("champion_as_served", served, behaviour.targets, {})


def read_behaviour(lakehouse: Lakehouse, day: date, catalogue: Catalogue, settings: Settings) -> Behaviour:
    """Read what the users of ``day`` did, with their histories as of the end of the day before."""
    rows = run_sql(
        "marts/evaluation_user",
        {
            "click": lakehouse.relation(tables.CLICK, [day]),
            "exposure": lakehouse.relation(tables.EXPOSURE, [day]),
            "target_group": lakehouse.relation(tables.TARGET_GROUP, [day]),
            "user_history": lakehouse.relation(tables.USER_HISTORY, [day - ONE_DAY]),
        },
        {
            "day": day,
            "yesterday": day - ONE_DAY,
            "primary_scenario": ingested(lakehouse, day).meta["primary_scenario"],
            "max_users": settings.evaluation.max_users,
            "seed": settings.evaluation.seed,
        },
        spark=spark_session(settings),
    )

    def ids(column: str) -> pa.ListArray:
        return rows[column].combine_chunks().cast(tables.IDS)

    targets = ids("target_item_ids")
    users = with_profiles(lakehouse, day - ONE_DAY, rows, prefix="history_")
    scenarios = rows["target_scenarios"].combine_chunks().flatten()
    cohorts = _cohorts(users.histories, targets, scenarios, catalogue)
    return Behaviour(
        users, targets, ids("retrieved_item_ids"), ids("itg_item_ids"), ids("exposed_item_ids"), cohorts
    )


def widest(lists: pa.ListArray) -> int:
    """Give the length of the longest list, 0 without any."""
    return pc.max(pc.list_value_length(lists)).as_py() or 0


def _cohorts(
    histories: pa.ListArray, targets: pa.ListArray, scenarios: pa.Array, catalogue: Catalogue
) -> dict[str, Cohort]:
    """Cut the targets by scenario, users by having a history, items by a click in the window before."""
    is_known_user = pc.list_value_length(histories).to_numpy(zero_copy_only=False) > 0
    is_known_item = np.isin(targets.flatten().to_numpy(), catalogue.popular)
    cohorts = {
        "users=known": Cohort(users=is_known_user),
        "users=new": Cohort(users=~is_known_user),
        "items=known": Cohort(targets=is_known_item),
        "items=new": Cohort(targets=~is_known_item),
    }
    for scenario in sorted(pc.unique(scenarios).to_pylist()):
        is_here = pc.equal(scenarios, scenario).to_numpy(zero_copy_only=False)
        cohorts[f"scenario={scenario}"] = Cohort(targets=is_here)
    return cohorts


def _write(
    lakehouse: Lakehouse,
    day: date,
    measures: Measures,
    status: str,
    champion: ChampionStatus,
    n_users: int,
) -> EvaluationReport:
    meta = {"status": status, "champion": json.dumps(asdict(champion))}
    lakehouse.replace(tables.METRIC, day, measures.table(), part="evaluate", meta=meta)
    n_targets = max((row["n_targets"] for row in measures.rows), default=0)
    return EvaluationReport(status, n_users, n_targets, champion)
