"""What does a study of PI2I say? Its tables, and every figure in one list (PI2I, Fig. 3-6)."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import numpy as np

from models.metrics import Interval
from models.pi2i.firing import Decay

# Trigger indices that a row of the table puts together; 1 is the newest.
INDEX_RANGES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, 100))


@dataclass(frozen=True)
class Row:
    """One method: HR@K (Eq. 5) at each K, and by how much the full model leads, paired on the same users."""

    name: str
    seed: int | None
    """None: each user's mean over the seeds."""
    hit_rates: dict[int, Interval]
    full_leads: dict[int, Interval]
    """Of the full model with the same seed over this one; empty for the full model itself."""


@dataclass(frozen=True)
class Cut:
    """The full model's scorer over an i2i table that is cut at T."""

    truncation: int
    mean_candidates: float
    """Per user with a target."""
    candidate_recall: Interval
    hit_rates: dict[int, Interval]


@dataclass(frozen=True)
class UserFirings:
    """How often each trigger index, from 1 on, fired for one user: int64 [l]."""

    user_id: int
    n_fired: np.ndarray


@dataclass(frozen=True)
class Figure:
    """One number of the study; ``step`` is K, T or a trigger index, and without a seed it is of all."""

    part: str
    name: str
    seed: int | None
    step: int
    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def of_seed(self) -> str:
        """Name the seed, or the mean over the seeds."""
        return "mean" if self.seed is None else f"seed{self.seed}"


@dataclass(frozen=True)
class PI2IStudy:
    """Ablations, truncations and triggers on the users and targets of some days."""

    first_day: date
    last_day: date
    source: str
    n_samples: int
    ks: tuple[int, ...]
    rows: tuple[Row, ...]
    cuts: tuple[Cut, ...]
    decay: Decay
    users: tuple[UserFirings, ...]

    @property
    def days(self) -> str:
        """The day, or the first and the last."""
        one = self.first_day == self.last_day
        return str(self.first_day) if one else f"{self.first_day} .. {self.last_day}"

    def markdown(self) -> str:
        """Give all tables with their headings."""
        measured = next(iter(self.rows[0].hit_rates.values()))
        return "\n\n".join(
            [
                f"{measured.n_users} users and {measured.n_targets} targets of {self.source}, {self.days}; "
                f"learned from {self.n_samples} clicks. 95% intervals in brackets.",
                "### Ablations (Fig. 3)\n\nBelow each HR@K, by how much the full model leads.\n\n"
                + self._ablation_table(),
                "### Truncation with the scorer (Fig. 4)\n\n" + self._truncation_table(),
                "### Trigger decay (Fig. 5)\n\n" + self._decay_table(),
                "### Which trigger fires for whom (Fig. 6)\n\n" + self._user_table(),
            ]
        )

    def csv(self) -> str:
        """Give every figure, one a line."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Figure.__annotations__)
        writer.writerows(list(vars(figure).values()) for figure in self.figures())
        return text.getvalue()

    def figures(self) -> Iterator[Figure]:
        """Give every figure of the study."""
        for row in self.rows:
            for part, at in (("hit_rate", row.hit_rates), ("full_leads", row.full_leads)):
                for k, found in at.items():
                    yield Figure(part, row.name, row.seed, k, found.value, found.low, found.high)
        seed = self.rows[0].seed
        for cut in self.cuts:
            t, recall = cut.truncation, cut.candidate_recall
            yield Figure("truncation", "mean_candidates", seed, t, cut.mean_candidates)
            yield Figure("truncation", "candidate_recall", seed, t, recall.value, recall.low, recall.high)
            for k, found in cut.hit_rates.items():
                yield Figure("truncation", f"hit_rate_at_{k}", seed, t, found.value, found.low, found.high)
        for place in range(len(self.decay.n_targets)):
            yield Figure(
                "fires", "probability", seed, place + 1, self.decay.probability(place + 1, place + 1)
            )
        for user in self.users:
            for place in np.flatnonzero(user.n_fired):
                yield Figure(
                    "user_fires", str(user.user_id), seed, int(place) + 1, float(user.n_fired[place])
                )

    def _ablation_table(self) -> str:
        header = ["method", "seed", *(f"HR@{k}" for k in self.ks)]
        cells = []
        for row in self.rows:
            rates = (_interval(row.hit_rates[k]) for k in self.ks)
            leads = (_interval(row.full_leads[k], sign="+") if row.full_leads else "" for k in self.ks)
            pairs = (f"{rate}<br>{lead}" if lead else rate for rate, lead in zip(rates, leads, strict=True))
            cells.append([row.name, "mean" if row.seed is None else str(row.seed), *pairs])
        return _table(header, cells)

    def _truncation_table(self) -> str:
        header = ["T", "mean candidates", "candidate recall", *(f"HR@{k}" for k in self.ks)]
        return _table(
            header,
            [
                [
                    str(cut.truncation),
                    f"{cut.mean_candidates:.1f}",
                    _interval(cut.candidate_recall),
                    *(_interval(cut.hit_rates[k]) for k in self.ks),
                ]
                for cut in self.cuts
            ],
        )

    def _decay_table(self) -> str:
        decay, newest = self.decay, self.decay.probability(1, 1)
        cells = []
        for first, last in INDEX_RANGES:
            chance = decay.probability(first, last)
            n_targets = int(decay.n_targets[first - 1 : last].sum())
            if n_targets:
                times = f"{newest / chance:.2f}" if chance > 0 else "-"
                index = str(first) if first == last else f"{first} to {last}"
                cells.append([index, str(n_targets), f"{chance:.4f}", times])
        header = [
            "trigger index",
            "pairs of target and trigger",
            "fires",
            "the newest fires so many times as often",
        ]
        return _table(header, cells)

    def _user_table(self) -> str:
        cells = []
        for user in self.users:
            indices = np.repeat(np.arange(len(user.n_fired)) + 1, user.n_fired)
            quartiles = np.quantile(indices, [0.25, 0.5, 0.75], method="nearest").tolist()
            cells.append([str(user.user_id), str(len(indices)), *(str(each) for each in quartiles)])
        return _table(
            ["user", "clicks that a trigger reaches", "first quarter up to index", "half", "three"], cells
        )


def _interval(found: Interval, sign: str = "") -> str:
    return f"{found.value:{sign}.4f} [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
