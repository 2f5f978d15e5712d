"""
What makes PI2I good, and on which triggers does it live? (PI2I 4.4-4.6), for ``make pi2i-study``.

Every variant learns once, from the samples of the window that ends before the first day, and is measured on
all days as the daily evaluation does: histories, catalogue and i2i table as of the day before, targets of the
day.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.increc.model import TrainedModel
from models.increc.training import train as train_tower
from models.metrics import NOT_RETRIEVED, Interval, Ranks, hit_rate, paired_difference, target_ranks
from models.pi2i.config import PI2IConfig
from models.pi2i.firing import Decay, Firing, count_decay, find_firing
from models.pi2i.model import TrainedScorer
from models.pi2i.training import train
from models.truncation import reach
from tasks.channels import Catalogue, read_catalogue, retrieve_channels
from tasks.days import ONE_DAY, day_range, ingested, source_first_day
from tasks.evaluate import Behaviour, read_behaviour
from tasks.pi2i_results import Cut, PI2IStudy, Row, UserFirings
from tasks.pi2i_samples import draw_day
from tasks.settings import BASE, PI2I, Settings
from tasks.train import is_warming_up, read_in_one_piece, read_items, training_days

FULL, SWING = "full", "swing"
VARIANTS: dict[str, dict[str, str]] = {
    FULL: {},
    "self_attention": {"attention": "self"},
    "single_trigger": {"triggers": "single"},
    "no_trigger": {"triggers": "none"},
    "hard_only": {"sampling": "hard_only"},
    "hard_dominant": {"sampling": "hard_dominant"},
    "sparse": {"sampling": "sparse"},
}
TRUNCATIONS = (50, 100, 250, 500, 750, 1000, 1250)
SHOWN_USERS = 3


class BadStudy(ValueError):
    """A study is asked for that cannot be made; the message says what and how to mend it."""


@dataclass(frozen=True)
class Plan:
    """What to compare: the days, the seeds, variants and towers beside the full model, the truncations."""

    first: date
    last: date
    seeds: tuple[int, ...]
    variants: tuple[str, ...] = tuple(VARIANTS)
    truncations: tuple[int, ...] = TRUNCATIONS
    towers: tuple[str, ...] = (BASE,)


@dataclass(frozen=True)
class Measured:
    """One measured day."""

    catalogue: Catalogue
    behaviour: Behaviour


def pi2i_study(plan: Plan, settings: Settings, tell: Callable[[str], None] = lambda line: None) -> PI2IStudy:
    """
    Train and measure; writes no table. ``tell`` hears of each training.

    Raises:
        BadStudy: PI2I is off, or the days, variants or truncations cannot be studied.
        MissingPartition: a table of a day, of the day before it or of the window is not there.
    """
    days = _check(plan, settings)
    lakehouse = Lakehouse(settings.lakehouse_root)
    measured = [_read(day, lakehouse, settings) for day in days]
    targets = pa.concat_arrays([day.behaviour.targets for day in measured])
    if not pc.sum(pc.list_value_length(targets)).as_py():
        raise BadStudy(f"no user has a target from {plan.first} to {plan.last}: choose other days")
    study = _Study(plan, settings, lakehouse, measured, targets)
    swing = _ranks(SWING, {}, measured, settings)
    rows, scorer, n_samples = [], None, 0
    of_seeds: dict[str, tuple[np.ndarray, ...]] = {}
    for seed in plan.seeds:
        ranks = {}
        for name, trained, n_read, seconds in study.train_all(seed):
            ranks[name] = _ranks(PI2I, {PI2I: trained}, measured, settings)
            n_samples, scorer = n_read, scorer or trained
            tell(f"  {seconds:6.1f} s  {name}, seed {seed}: {n_read} samples")
        for name, tower, seconds in study.train_towers(seed):
            ranks[name] = _ranks(name, {name: tower}, measured, settings)
            tell(f"  {seconds:6.1f} s  {name}, seed {seed}")
        ranks[SWING] = swing
        rows += [study.row(name, seed, own, ranks[FULL]) for name, own in ranks.items()]
        of_seeds = {name: (*of_seeds.get(name, ()), own) for name, own in ranks.items()}
    if len(plan.seeds) > 1:
        rows += [study.row(name, None, own, of_seeds[FULL]) for name, own in of_seeds.items()]
    decay, users = study.triggers()
    source = ingested(lakehouse, plan.first).meta["source"]
    cuts = tuple(study.cut(t, scorer) for t in plan.truncations)
    ks = settings.evaluation.ks
    return PI2IStudy(plan.first, plan.last, source, n_samples, ks, tuple(rows), cuts, decay, users)


def _check(plan: Plan, settings: Settings) -> list[date]:
    if settings.pi2i is None:
        raise BadStudy("PI2I is off: add the section [pi2i] to the settings")
    days = day_range(plan.first, plan.last)
    if not days:
        raise BadStudy(f"no days from {plan.first} to {plan.last}: the first must not be after the last")
    if odd := [seed for seed in plan.seeds if not 0 <= seed < 2**32]:
        raise BadStudy(f"seed {odd[0]} is not from 0 to 2**32 - 1: choose another")
    for name in plan.variants:
        if name not in VARIANTS:
            raise BadStudy(f"unknown variant {name}; known: {', '.join(VARIANTS)}")
    for name in plan.towers:
        if name not in settings.methods:
            raise BadStudy(f"unknown tower {name}; the settings have {', '.join(settings.methods)}")
        if settings.methods[name].filter_retrieved:
            raise BadStudy(
                f"the tower {name} leaves out what other channels return: compare one that does not"
            )
    lakehouse = Lakehouse(settings.lakehouse_root)
    for day in days:
        lakehouse.require(tables.TARGET_GROUP, day)
    if days[0] == source_first_day(ingested(lakehouse, days[0])) or is_warming_up(
        lakehouse, days[0], settings
    ):
        raise BadStudy(f"before {days[0]} there is nothing to learn from: begin later")
    kept = settings.swing.truncation
    for t in plan.truncations:
        if not 1 <= t <= kept:
            raise BadStudy(f"T = {t} is not from 1 to the i2i table's own, {kept}: raise swing.truncation")
    return days


class _Study:
    """The measured days with what every figure of them needs."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        lakehouse: Lakehouse,
        measured: list[Measured],
        targets: pa.ListArray,
    ) -> None:
        self.plan, self.settings, self.lakehouse = plan, settings, lakehouse
        self.measured, self.targets = measured, targets
        self.bootstrap = {
            "seed": settings.evaluation.seed,
            "n_resamples": settings.evaluation.n_bootstrap,
        }

    def train_all(self, seed: int) -> Iterator[tuple[str, TrainedScorer, int, float]]:
        """Train the full model, then the other variants: name, scorer, number of samples, seconds."""
        drawn_as, samples = None, None
        items, users = self._snapshots()
        for name in dict.fromkeys((FULL, *self.plan.variants)):
            config = variant_config(self.settings.pi2i, name, seed)
            if config.sampling != drawn_as:
                samples, drawn_as = self._samples(config), config.sampling
            started = perf_counter()
            scorer, report = train(samples, items, users, config, device=self.settings.device)
            yield name, scorer, report.n_samples, perf_counter() - started

    def train_towers(self, seed: int) -> Iterator[tuple[str, TrainedModel, float]]:
        """Train the towers to compare with, on the same window: name, tower, seconds."""
        if not self.plan.towers:
            return
        days = training_days(self.lakehouse, self.plan.first, self.settings)
        samples, snapshots = self.lakehouse.read_days(tables.INCREC_SAMPLE, days), self._snapshots()
        for name in self.plan.towers:
            config = self.settings.methods[name].model_copy(update={"seed": seed})
            started = perf_counter()
            tower, _ = train_tower(samples, *snapshots, config, device=self.settings.device)
            yield name, tower, perf_counter() - started

    def row(self, name: str, seed: int | None, ranks: Ranks, of_full: Ranks) -> Row:
        """Measure one method, and the full model against it; without a seed the mean over all."""
        ks = self.settings.evaluation.ks
        leads = {k: paired_difference(of_full, ranks, self.targets, k, **self.bootstrap) for k in ks}
        return Row(name, seed, self._hit_rates(ranks), {} if name == FULL else leads)

    def cut(self, truncation: int, scorer: TrainedScorer) -> Cut:
        """Score over the i2i tables cut at T."""
        days = [_cut(day, truncation) for day in self.measured]
        found = [
            reach(
                day.catalogue.i2i_table,
                day.behaviour.users.histories,
                day.behaviour.targets,
                (truncation, truncation + 1),
                n_triggers=self.settings.pi2i.n_triggers,
                allowed_item_ids=day.catalogue.item_ids,
                n_threads=self.settings.n_threads,
            )
            for day in days
        ]
        reached = np.concatenate([each.target_ranks for each in found])
        ceiling = np.where(reached == NOT_RETRIEVED, NOT_RETRIEVED, 0)
        has_target = np.diff(self.targets.offsets.to_numpy()) > 0
        candidates = np.concatenate([each.n_candidates[:, 0] for each in found])[has_target]
        return Cut(
            truncation,
            float(candidates.mean()),
            hit_rate(ceiling, self.targets, 1, **self.bootstrap),
            self._hit_rates(_ranks(PI2I, {PI2I: scorer}, days, self.settings)),
        )

    def triggers(self) -> tuple[Decay, tuple[UserFirings, ...]]:
        """Count which triggers fire over all days, and for the users with the most clicks reached."""
        n_triggers = self.settings.pi2i.n_triggers
        found = [
            find_firing(
                day.catalogue.trigger_index, day.behaviour.users.histories, day.behaviour.targets, n_triggers
            )
            for day in self.measured
        ]
        firing = Firing(
            *(np.concatenate([getattr(each, name) for each in found]) for name in Firing.__annotations__)
        )
        owners = np.concatenate(
            [
                np.repeat(day.behaviour.users.ids, pc.list_value_length(day.behaviour.targets).to_numpy())
                for day in self.measured
            ]
        )
        is_reached = firing.fired > 0
        users, n_clicks = np.unique(owners[is_reached], return_counts=True)
        most = users[np.argsort(-n_clicks, kind="stable")[:SHOWN_USERS]]
        shown = tuple(
            UserFirings(
                int(user),
                np.bincount(firing.fired[is_reached & (owners == user)], minlength=n_triggers + 1)[1:],
            )
            for user in most
        )
        return count_decay(firing), shown

    def _snapshots(self) -> tuple[pa.Table, pa.Table]:
        """Read items and users as the training knows them."""
        eve = self.plan.first - ONE_DAY
        users = self.lakehouse.read(tables.USER_SNAPSHOT, eve)
        return read_items(self.lakehouse, eve, self.settings), users

    def _samples(self, config: PI2IConfig) -> pa.Table:
        """Read the samples of the window, or draw them where they are kept of another sampling or seed."""
        days = training_days(self.lakehouse, self.plan.first, self.settings)
        kept = self.settings.pi2i
        if (config.sampling, config.seed) == (kept.sampling, kept.seed):
            return read_in_one_piece(self.lakehouse, tables.PI2I_SAMPLE, days)
        return pa.concat_tables([draw_day(self.lakehouse, day, config, self.settings)[0] for day in days])

    def _hit_rates(self, ranks: Ranks) -> dict[int, Interval]:
        ks = self.settings.evaluation.ks
        return {k: hit_rate(ranks, self.targets, k, **self.bootstrap) for k in ks}


def variant_config(config: PI2IConfig, name: str, seed: int) -> PI2IConfig:
    """Give the settings' model with one thing changed."""
    return PI2IConfig(**config.model_dump() | VARIANTS[name] | {"seed": seed})


def _read(day: date, lakehouse: Lakehouse, settings: Settings) -> Measured:
    catalogue = read_catalogue(lakehouse, day - ONE_DAY, settings)
    return Measured(catalogue, read_behaviour(lakehouse, day, catalogue, settings))


def _ranks(
    channel: str,
    models: dict[str, TrainedScorer | TrainedModel],
    measured: list[Measured],
    settings: Settings,
) -> np.ndarray:
    """Give the ranks of the targets, day after day, in a channel's lists."""
    depth = max(settings.evaluation.ks)
    return np.concatenate(
        [
            target_ranks(
                retrieve_channels([channel], models, day.catalogue, day.behaviour.users, depth, settings)[
                    channel
                ],
                day.behaviour.targets,
            )
            for day in measured
        ]
    )


def _cut(day: Measured, truncation: int) -> Measured:
    whole = day.catalogue
    i2i_table = whole.i2i_table.filter(pc.field("rank") <= truncation)
    return Measured(
        Catalogue(whole.day, whole.items, i2i_table, whole.popular, whole.item_statistics), day.behaviour
    )
