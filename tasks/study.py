"""What does a truncation study say? Hit rate and candidates at each T, and where more of T stops to pay."""

from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from models.metrics import Interval

# PI2I 4.5: beyond its T the Hit rate gains less than this from the next step.
LEAST_GAIN = 0.005


@dataclass(frozen=True)
class Step:
    """One truncation: the Hit rate of all candidates, and their number."""

    truncation: int
    hit_rate: Interval
    mean_candidates: float
    """Per user with a target."""
    share_of_largest: float
    """Of the Hit rate at the largest T; NaN where that is 0."""
    gain: float | None
    """Relative gain in Hit rate of the next T over this one; None for the last, and from a Hit rate of 0."""


@dataclass(frozen=True)
class Study:
    """Truncations compared on the same users and targets, each day counting its own users."""

    first_day: date
    last_day: date
    source: str
    n_triggers: int
    steps: tuple[Step, ...]

    @property
    def days(self) -> str:
        """The day, or the first and the last."""
        return (
            str(self.first_day) if self.first_day == self.last_day else f"{self.first_day} .. {self.last_day}"
        )

    @property
    def saturated_at(self) -> int | None:
        """The smallest T whose next step gains less than 0.5%; None if every step gains more."""
        for step in self.steps:
            if step.gain is not None and step.gain < LEAST_GAIN:
                return step.truncation
        return None

    def table(self) -> str:
        """Give the study as a Markdown table, and what it says below."""
        measured = self.steps[0].hit_rate
        lines = [
            "| T | Hit rate [95%] | of the largest T | gain of the next T | mean candidates |",
            "| ---: | ---: | ---: | ---: | ---: |",
        ]
        for step in self.steps:
            rate = step.hit_rate
            gain = "" if step.gain is None else f"{step.gain:+.2%}"
            lines.append(
                f"| {step.truncation} | {rate.value:.4f} [{rate.low:.4f}, {rate.high:.4f}] |"
                f" {step.share_of_largest:.1%} | {gain} | {step.mean_candidates:.1f} |"
            )
        at = self.saturated_at
        kept = next((step.share_of_largest for step in self.steps if step.truncation == at), None)
        if at is None:
            said = f"every step gains {LEAST_GAIN:.1%} or more: the largest T is not enough to tell"
        else:
            said = f"from T = {at} on a step gains less than {LEAST_GAIN:.1%}; it keeps {kept:.1%} of the"
            said += f" Hit rate at T = {self.steps[-1].truncation}"
        who = f"{measured.n_users} users and {measured.n_targets} targets of {self.source}, {self.days}"
        return "\n".join([*lines, "", f"{who}; {said}."])


def make_steps(
    truncations: tuple[int, ...], hit_rates: list[Interval], mean_candidates: list[float]
) -> tuple[Step, ...]:
    """Put the figures of each truncation beside what they are to the next and to the largest."""
    values = [rate.value for rate in hit_rates]
    gains = [after / before - 1.0 if before > 0 else None for before, after in pairwise(values)]
    shares = [value / values[-1] if values[-1] > 0 else float("nan") for value in values]
    return tuple(
        Step(*figures)
        for figures in zip(truncations, hit_rates, mean_candidates, shares, [*gains, None], strict=True)
    )
