"""What a day reports: the facts that tracking logs and that a reviewer decides from."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa

ALL = "all"
PASSED = "passed"
NO_CHAMPION, COMPARED, NO_COMPARISON = "none", "compared", "no comparison"


@dataclass(frozen=True)
class ChampionStatus:
    """Whether there is a champion to compare with, and which; ``reason`` tells why one is not compared."""

    status: str
    version: str | None = None
    day: str | None = None
    release_digest: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class MethodRecord:
    """
    One method of the day.

    ``params`` may be nested. ``metrics`` has the columns of ``lakehouse.tables.METRIC``, with rows of this
    method. ``losses`` maps each loss term to its values, one per epoch.
    """

    name: str
    params: Mapping[str, object]
    metrics: pa.Table
    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Deciding:
    """
    The comparison that decides: Hit@``k`` of ``method`` against the champion's, not worse than ``margin``.

    Cohorts of fewer than ``min_users`` users say little. Without a gate on it there is no margin.
    """

    method: str
    k: int
    margin: float | None
    min_users: int


@dataclass(frozen=True)
class DayRecord:
    """
    One day of the cycle.

    ``gates`` has the columns of ``lakehouse.tables.GATE``. ``data_digests`` maps each table read to the
    digest of what was read. ``data_docs`` is the address of the validation report. ``params`` and
    ``figures`` are those of the day as a whole. ``made_with`` holds the settings that shape a day, and the
    gates, for later days to be compared with; ``report`` is the reviewer's page as HTML.
    """

    day: date
    verdict: str
    gates: pa.Table
    methods: tuple[MethodRecord, ...]
    code_version: str
    config_digest: str
    data_digests: Mapping[str, str]
    dag_run_id: str | None
    is_backfill: bool
    data_docs: str | None
    params: Mapping[str, object] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    champion: ChampionStatus = ChampionStatus(NO_CHAMPION)
    deciding: Deciding | None = None
    made_with: Mapping[str, object] = field(default_factory=dict)
    report: str = ""

    def digest(self) -> str:
        """Digest what the day found, whoever ran it: equal records need no second run in MLflow."""
        facts = {
            "day": self.day,
            "verdict": self.verdict,
            "gates": self.gates.to_pylist(),
            "methods": [
                (method.name, dict(method.params), method.metrics.to_pylist(), dict(method.losses))
                for method in self.methods
            ],
            "code_version": self.code_version,
            "config_digest": self.config_digest,
            "data_digests": dict(self.data_digests),
            "params": dict(self.params),
            "figures": dict(self.figures),
            "made_with": dict(self.made_with),
            "report": self.report,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def missed_gates(self) -> list[str]:
        """Name the gates that did not pass."""
        return [row["gate"] for row in self.gates.to_pylist() if row["status"] != PASSED]

    def metric_rows(self, metric: str) -> list[dict[str, object]]:
        """Give the defined rows of one metric over all users, in the order of the methods, then K."""
        return [
            row
            for method in self.methods
            for row in sorted(method.metrics.to_pylist(), key=lambda row: row["k"])
            if row["metric"] == metric and row["cohort"] == ALL and row["value"] is not None
        ]

    def cohort_rows(self, method: str, metric: str, k: int) -> dict[str, dict[str, object]]:
        """Give the rows of one figure by cohort, those of all users first; undefined ones too."""
        rows = [
            row
            for each in self.methods
            if each.name == method
            for row in each.metrics.to_pylist()
            if (row["metric"], row["k"]) == (metric, k)
        ]
        return {row["cohort"]: row for row in sorted(rows, key=lambda row: row["cohort"] != ALL)}
