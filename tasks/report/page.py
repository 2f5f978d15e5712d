"""How is the page shown? One HTML file that opens by itself: styles and plots inside, no script."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tasks.figures import COLOURS, STYLE, hit_rate_figure
from tasks.records import PASSED
from tasks.redact import without_passwords
from tasks.report.facts import Difference, Facts
from tasks.review import HIT_RATE, SHOWN_METRICS

STABLE_PSI, MOVED_PSI = 0.1, 0.25
UNDEFINED = "-"


def render_report(facts: Facts) -> str:
    """Give the page as HTML; equal facts give equal pages. Everything from outside is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "signed": signed, "psi_word": psi_word}
    record = facts.record
    hit_rates = record.metric_rows(HIT_RATE)
    return environment.get_template("page.html.j2").render(
        facts=facts,
        record=record,
        PASSED=PASSED,
        gates=record.gates.to_pylist(),
        missed=record.missed_gates(),
        ks=sorted({row["k"] for row in hit_rates}),
        hit_rates=_by_method(hit_rates),
        other_metrics=[row for metric in SHOWN_METRICS for row in record.metric_rows(metric)],
        hit_rate_plot=_data_uri(hit_rate_figure(record)),
        difference_plot=_data_uri(difference_figure(facts.differences, _margin(facts))),
        without_passwords=without_passwords,
    )


def number(value: float | None) -> str:
    """Show a figure with four decimals, a large one without."""
    if value is None:
        return UNDEFINED
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.0f}"


def percent(value: float | None, decimals: int = 1) -> str:
    """Show a share."""
    return UNDEFINED if value is None else f"{100 * value:.{decimals}f} %"


def signed(value: float | None, decimals: int = 1) -> str:
    """Show a relative difference with its sign."""
    return UNDEFINED if value is None else f"{100 * value:+.{decimals}f} %"


def psi_word(value: float | None) -> str:
    """Say in a word what a population stability index means."""
    if value is None:
        return "unknown"
    return "stable" if value < STABLE_PSI else "shifting" if value < MOVED_PSI else "moved"


def difference_figure(differences: Sequence[Difference], margin: float | None) -> Figure | None:
    """Draw the paired relative difference and its interval for each cohort; None without a comparison."""
    drawn = [each for each in differences if None not in (each.value, each.low, each.high)]
    if not drawn:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.28 * len(drawn)), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for place, each in enumerate(drawn):
            colour = "#aaaaaa" if each.is_small else COLOURS[0]
            ends = [[100 * (each.value - each.low)], [100 * (each.high - each.value)]]
            axes.errorbar(100 * each.value, place, xerr=ends, fmt="o", color=colour, markersize=4, capsize=2)
        axes.axvline(0, color="#444444", linewidth=0.8)
        if margin is not None:
            axes.axvline(-100 * margin, color=COLOURS[1], linewidth=1, linestyle="--")
        axes.set_yticks(range(len(drawn)), [each.cohort for each in drawn])
        axes.invert_yaxis()
        axes.set(xlabel="(challenger - champion) / champion, %, with 95% intervals")
    return figure


def _margin(facts: Facts) -> float | None:
    return facts.record.deciding.margin if facts.record.deciding else None


def _by_method(rows: Sequence[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["method"], {})[row["k"]] = row
    return found


def _data_uri(figure: Figure | None) -> str:
    """Give a figure as an address that holds all of it; without one, nothing."""
    if figure is None:
        return ""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
