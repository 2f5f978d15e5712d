"""Figures of a day: Hit@K curves with their intervals, and loss curves; of a study and of a comparison."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tasks.comparison import Comparison
from tasks.records import DayRecord
from tasks.review import HIT_RATE
from tasks.study import Study

# Okabe and Ito's colours, which colour-blind readers tell apart; black comes last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
# A name has its colour on every day; those without one here share the rest.
COLOUR_OF = {
    "merged": COLOURS[0],
    "champion": "#000000",
    "popularity": "#7F7F7F",
    "swing": COLOURS[4],
    "base": COLOURS[1],
    "increc": COLOURS[2],
    "increc_na": COLOURS[3],
    "pi2i": COLOURS[5],
}
OTHER_COLOURS = ("#882255", "#999933", "#44AA99", "#AA4499", "#117733")
# In the table beside the plot, but not drawn: parts of the champion, and Swing with its gaps filled.
NOT_DRAWN = ("champion_", "swing_filled")
CONTROL = "_reseeded"
DECIDING = ("merged", "champion")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
}


def hit_rate_figure(record: DayRecord) -> Figure | None:
    """
    Draw Hit@K over K with its 95% interval; None when nothing was measured.

    Drawn are the merged list, the champion and every method; controls are thin.
    """
    curves: dict[str, list[dict]] = {}
    for row in record.metric_rows(HIT_RATE):
        if not row["method"].startswith(NOT_DRAWN):
            curves.setdefault(row["method"], []).append(row)
    if not curves:
        return None
    colours = colours_of(curves)
    with rc_context(STYLE):
        figure, axes = _empty_figure()
        for method, rows in curves.items():
            ks, values = [row["k"] for row in rows], [row["value"] for row in rows]
            axes.plot(ks, values, color=colours[method], label=method, **_line_style(method))
            has_band = all(row["low"] is not None and row["high"] is not None for row in rows)
            if has_band and not method.endswith(CONTROL):
                lows, highs = [row["low"] for row in rows], [row["high"] for row in rows]
                axes.fill_between(ks, lows, highs, color=colours[method], alpha=0.12, linewidth=0)
        ticks = sorted({row["k"] for rows in curves.values() for row in rows})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set(xlabel="K", ylabel="Hit@K", title=f"Hit@K on {record.day}, 95% intervals")
        _legend_by_value(axes)
    return figure


def colours_of(methods: Iterable[str]) -> dict[str, str]:
    """Give each method its colour: its own, the controls' grey, else by its place among other names."""
    methods = list(methods)
    others = sorted(name for name in methods if name not in COLOUR_OF and not name.endswith(CONTROL))
    found = {name: OTHER_COLOURS[place % len(OTHER_COLOURS)] for place, name in enumerate(others)}
    return {name: COLOUR_OF.get(name) or found.get(name, "#BBBBBB") for name in methods}


def _line_style(method: str) -> dict[str, Any]:
    if method.endswith(CONTROL):
        return {"linewidth": 0.8, "zorder": 1}
    if method in DECIDING:
        return {"linewidth": 2.4, "marker": "o", "markersize": 4.5, "zorder": 3}
    dashes = "--" if method in ("popularity", "swing") else "-"
    return {"linewidth": 1.3, "linestyle": dashes, "marker": "o", "markersize": 3}


def loss_figure(method: str, losses: Mapping[str, Sequence[float]]) -> Figure:
    """Draw every loss term over the epochs."""
    with rc_context(STYLE):
        figure, axes = _empty_figure()
        for number, (term, values) in enumerate(losses.items()):
            epochs = range(1, len(values) + 1)
            axes.plot(
                epochs, values, color=COLOURS[number % len(COLOURS)], marker="o", markersize=3, label=term
            )
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", ylabel="loss", title=f"{method}: training loss")
        _legend_by_value(axes)
    return figure


def truncation_figure(study: Study) -> Figure:
    """Draw the Hit rate with its 95% interval and the mean number of candidates over T (PI2I Fig. 4)."""
    with rc_context(STYLE):
        figure, axes = _empty_figure()
        ts = [step.truncation for step in study.steps]
        rates = [step.hit_rate for step in study.steps]
        axes.plot(ts, [rate.value for rate in rates], color=COLOURS[0], marker="o", markersize=3.5)
        axes.fill_between(
            ts, [rate.low for rate in rates], [rate.high for rate in rates], color=COLOURS[0], alpha=0.12
        )
        axes.set_ylim(bottom=0)
        axes.set(xlabel="truncation T", title=f"Truncation study, {study.days}")
        axes.set_ylabel("Hit rate of all candidates, 95% intervals", color=COLOURS[0])
        others = axes.twinx()
        candidates = [step.mean_candidates for step in study.steps]
        others.plot(ts, candidates, "--", color=COLOURS[1], marker="s", markersize=3.5)
        others.set_ylim(bottom=0)
        others.set_ylabel("mean candidates per user", color=COLOURS[1])
        others.grid(False)
        others.spines["right"].set_visible(True)
        if study.saturated_at is not None:
            axes.axvline(study.saturated_at, color="#444444", linewidth=1, linestyle=":")
    return figure


def comparison_figure(comparison: Comparison) -> Figure:
    """Draw the rows of Table 1 over K, a panel per backbone: means over the seeds, bands of one deviation."""
    drawn = [figure for figure in comparison.figures if figure.table == "table1"]
    backbones = comparison.plan.backbones
    n_columns = min(3, len(backbones))
    n_lines = -(-len(backbones) // n_columns)
    labels = list(dict.fromkeys(cell.label for cell in drawn))
    with rc_context(STYLE):
        figure = Figure(figsize=(1.8 + 3.4 * n_columns, 3.4 * n_lines), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        for place, backbone in enumerate(backbones, start=1):
            axes = figure.add_subplot(n_lines, n_columns, place)
            for number, label in enumerate(labels):
                cells = [cell for cell in drawn if (cell.backbone, cell.label) == (backbone, label)]
                ks, means = [cell.k for cell in cells], [100 * cell.mean for cell in cells]
                spread = [100 * cell.deviation if cell.deviation > 0 else 0.0 for cell in cells]
                low, high = zip(*((m - s, m + s) for m, s in zip(means, spread, strict=True)), strict=True)
                colour = COLOURS[number % len(COLOURS)]
                dashes = "--" if "minus" in label or "seed" in label else "-"
                axes.plot(ks, means, dashes, color=colour, marker="o", markersize=3, label=label)
                axes.fill_between(ks, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.set_xscale("log")
            axes.set_xticks(ks, [str(k) for k in ks])
            axes.minorticks_off()
            axes.set_ylim(bottom=0)
            axes.set(xlabel="K", title=backbone)
            if (place - 1) % n_columns == 0:
                axes.set_ylabel("hits of incremental targets, %")
        handles, names = axes.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", frameon=False)
    return figure


def _empty_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _legend_by_value(axes: Axes) -> None:
    """
    List the lines beside the plot in their order at the last place that all reach; what a release is decided
    by comes first, controls last.
    """
    handles, labels = axes.get_legend_handles_labels()
    last = min(len(handle.get_ydata()) for handle in handles) - 1
    order = sorted(
        range(len(handles)),
        key=lambda i: (
            labels[i] not in DECIDING,
            labels[i].endswith(CONTROL),
            -handles[i].get_ydata()[last],
        ),
    )
    axes.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
    )
