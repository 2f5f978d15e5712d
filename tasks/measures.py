"""
How do rankings become rows of the table ``metric``?

Names of the metrics (METHODS, sections 2 and 7); every one is given at each K with a 95% interval:

    hit_rate, hit_rate_micro     Hit@K, mean over users and hits / targets
    relative_to_<method>         (a - b) / b of Hit@K, paired on the same users
    overlap_with_champion        share of equal items in the two lists, mean over users; no interval
    base, sup, inc               Base@K, Sup@K, Inc@K on ITG, Eq. 9 of IncRec (micro); <name>_macro over users
    sup_minus_r_u, inc_minus_r_u the same with R_u filtered out: the controls
    inc_minus_sup                Inc@K - Sup@K, paired; filtered_inc_minus_sup the same of the controls
    exposure_hit                 share of the primary scenario's exposures retrieved; inc_exposure_hit of Inc
    candidate_recall             share of a user's targets among PI2I's candidates, mean over users; no K, as
    mean_candidates              has none: the number of candidates per user with a target; no interval
    marginal_hits                hits within a channel's quota (k) that no other channel finds within its own
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from lakehouse import tables
from models.bootstrap import percentile_interval, resampled_ratios
from models.drift import list_overlap
from models.metrics import (
    EVERYONE,
    NOT_RETRIEVED,
    Cohort,
    Interval,
    base_at_k,
    hit_rate,
    inc_at_k,
    paired_difference,
    paired_relative_difference,
    sup_at_k,
    target_ranks,
)
from tasks.settings import EvaluationConfig

ALL = "all"


@dataclass
class Measures:
    """Collects the metric rows of one day, all at the same K and with the same bootstrap."""

    config: EvaluationConfig
    rows: list[dict] = field(default_factory=list)

    def add(self, method: str, metric: str, k: int, interval: Interval, cohort: str = ALL) -> None:
        """Add one figure; NaN becomes null."""
        value, low, high = (
            None if np.isnan(figure) else figure for figure in (interval.value, interval.low, interval.high)
        )
        self.rows.append(
            {
                "method": method,
                "metric": metric,
                "k": k,
                "cohort": cohort,
                "value": value,
                "low": low,
                "high": high,
                "n_users": interval.n_users,
                "n_targets": interval.n_targets,
            }
        )

    def table(self) -> pa.Table:
        """Give all rows as a table."""
        return pa.Table.from_pylist(self.rows, tables.METRIC.schema)

    def add_hit_rates(
        self, method: str, retrieved: np.ndarray, targets: pa.ListArray, cohorts: dict[str, Cohort]
    ) -> np.ndarray:
        """Add Hit@K of one list, overall and per cohort; give the ranks, to pair with other methods."""
        ranks = target_ranks(retrieved, targets)
        for k in self._ks_within(retrieved):
            self.add(method, "hit_rate", k, self._measured(hit_rate, ranks, targets, k))
            micro = self._measured(hit_rate, ranks, targets, k, average="micro")
            self.add(method, "hit_rate_micro", k, micro)
            for name, cohort in cohorts.items():
                figure = self._measured(hit_rate, ranks, targets, k, cohort=cohort)
                self.add(method, "hit_rate", k, figure, name)
        return ranks

    def add_relative(
        self,
        method: str,
        other: str,
        ranks: dict[str, np.ndarray],
        targets: pa.ListArray,
        ks: tuple[int, ...],
        cohorts: dict[str, Cohort],
    ) -> None:
        """
        Add (a - b) / b of two methods whose ranks are given, under ``relative_to_<other>``.

        Overall, and for each of ``cohorts``.
        """
        for name, cohort in ({ALL: EVERYONE} | cohorts).items():
            for k in ks:
                figure = self._measured(
                    paired_relative_difference, ranks[method], ranks[other], targets, k, cohort=cohort
                )
                self.add(method, f"relative_to_{other}", k, figure, name)

    def add_candidates(
        self, method: str, target_ranks: np.ndarray, n_candidates: np.ndarray, targets: pa.ListArray
    ) -> None:
        """
        Add ``candidate_recall`` and ``mean_candidates`` of what a method scores.

        Args:
            method: the row's method.
            target_ranks: int [n_targets], NOT_RETRIEVED for a target that is no candidate.
            n_candidates: int [n_users].
            targets: item ids of each user.
        """
        ceiling = np.where(target_ranks == NOT_RETRIEVED, NOT_RETRIEVED, 0)
        recall = self._measured(hit_rate, ceiling, targets, 1)
        self.add(method, "candidate_recall", 0, recall)
        has_target = np.diff(targets.offsets.to_numpy()) > 0
        mean = float(n_candidates[has_target].mean()) if has_target.any() else float("nan")
        self.add(
            method, "mean_candidates", 0, Interval(mean, np.nan, np.nan, recall.n_users, recall.n_targets)
        )

    def add_overlap(
        self, method: str, other: str, lists: np.ndarray, others: np.ndarray, ks: tuple[int, ...]
    ) -> None:
        """Add the mean share of equal items in two methods' lists, under ``overlap_with_<other>``."""
        for k in ks:
            shares = list_overlap(lists[:, :k], others[:, :k])
            shares = shares[~np.isnan(shares)]
            value = float(shares.mean()) if len(shares) else float("nan")
            self.add(method, f"overlap_with_{other}", k, Interval(value, np.nan, np.nan, len(shares), 0))

    def add_incremental(
        self,
        lists: dict[str, np.ndarray],
        base: str,
        itg: pa.ListArray,
        retrieved: pa.ListArray,
        exposed: pa.ListArray,
    ) -> None:
        """
        Add Base@K, Sup@K and Inc@K on ITG, their controls without R_u, and exposure hits.

        Args:
            lists: item-id matrix per trained method, deep enough for 2K plus R_u.
            base: the method that Base@K and Sup@K are of; every other method gives an Inc@K.
            itg: incremental target group per user, empty without a request.
            retrieved: R_u per user.
            exposed: the primary scenario's exposed items per user.
        """
        for k in self.config.ks:
            sup = sup_at_k(lists[base], k)
            filtered_sup = sup_at_k(lists[base], k, without=retrieved)
            self._add_on_itg(base, "base", k, base_at_k(lists[base], k), itg)
            sup_ranks = self._add_on_itg(base, "sup", k, sup, itg)
            filtered_sup_ranks = self._add_on_itg(base, "sup_minus_r_u", k, filtered_sup, itg)
            for method, retrieved_by_method in lists.items():
                exposure = target_ranks(retrieved_by_method[:, :k], exposed)
                self._add_micro(method, "exposure_hit", k, exposure, exposed)
                if method == base:
                    continue
                inc = inc_at_k(retrieved_by_method, lists[base], k)
                filtered_inc = inc_at_k(retrieved_by_method, lists[base], k, without=retrieved)
                inc_ranks = self._add_on_itg(method, "inc", k, inc, itg)
                filtered_ranks = self._add_on_itg(method, "inc_minus_r_u", k, filtered_inc, itg)
                self._add_micro(method, "inc_exposure_hit", k, target_ranks(inc, exposed), exposed)
                for name, ours, theirs in (
                    ("inc_minus_sup", inc_ranks, sup_ranks),
                    ("filtered_inc_minus_sup", filtered_ranks, filtered_sup_ranks),
                ):
                    figure = self._measured(paired_difference, ours, theirs, itg, k, average="micro")
                    self.add(method, name, k, figure)

    def add_marginal_hits(
        self, hits: dict[str, np.ndarray], quotas: dict[str, int], targets: pa.ListArray
    ) -> None:
        """Add each channel's marginal hits (int64 [n_users]) with the interval of their number."""
        n_targets = np.diff(targets.offsets.to_numpy())
        has_target = n_targets > 0
        for channel, per_user in hits.items():
            counted, n_users = per_user[has_target].astype(float), int(has_target.sum())
            low = high = float("nan")
            if n_users > 1:
                resampled = resampled_ratios(
                    counted[:, None],
                    np.ones(n_users),
                    seed=self.config.seed,
                    n_resamples=self.config.n_bootstrap,
                )
                low, high = (bound * n_users for bound in percentile_interval(resampled[:, 0]))
            interval = Interval(float(counted.sum()), low, high, n_users, int(n_targets.sum()))
            self.add(channel, "marginal_hits", quotas[channel], interval)

    def _add_on_itg(
        self, method: str, metric: str, k: int, retrieved: np.ndarray, itg: pa.ListArray
    ) -> np.ndarray:
        ranks = target_ranks(retrieved, itg)
        self._add_micro(method, metric, k, ranks, itg)
        self.add(method, f"{metric}_macro", k, self._measured(hit_rate, ranks, itg, k))
        return ranks

    def _add_micro(self, method: str, metric: str, k: int, ranks: np.ndarray, targets: pa.ListArray) -> None:
        self.add(method, metric, k, self._measured(hit_rate, ranks, targets, k, average="micro"))

    def _measured(self, measure: Callable[..., Interval], *arguments, cohort: Cohort = EVERYONE, **options):
        return measure(
            *arguments,
            cohort=cohort,
            seed=self.config.seed,
            n_resamples=self.config.n_bootstrap,
            **options,
        )

    def _ks_within(self, retrieved: np.ndarray) -> list[int]:
        return [k for k in self.config.ks if k <= retrieved.shape[1]]
