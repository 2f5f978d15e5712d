"""What a day reports: the facts that tracking logs and that a reviewer decides from."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa

ALL = "all"
PASSED = "passed"


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
class DayRecord:
    """
    One day of the cycle.

    ``gates`` has the columns of ``lakehouse.tables.GATE``. ``data_digests`` maps each table read to the
    digest of what was read. ``data_docs`` is the address of the validation report. ``params`` and
    ``figures`` are those of the day as a whole.
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
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    def missed_gates(self) -> list[str]:
        """Name the gates that did not pass."""
        return [row["gate"] for row in self.gates.to_pylist() if row["status"] != PASSED]

    def metric_rows(self, metric: str) -> list[dict[str, object]]:
        """Give the rows of one metric over all users, in the order of the methods, then K."""
        return [
            row
            for method in self.methods
            for row in sorted(method.metrics.to_pylist(), key=lambda row: row["k"])
            if row["metric"] == metric and row["cohort"] == ALL and row["value"] is not None
        ]
