"""A study of PI2I as one figure of four panels (PI2I, Fig. 3-6)."""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tasks.figures import COLOURS, STYLE
from tasks.pi2i_results import PI2IStudy


def study_figure(study: PI2IStudy) -> Figure:
    """Draw ablations, truncation, decay and users; of several seeds the first."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10.5, 7.5), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2, 2).ravel()
        _draw_ablations(axes[0], study)
        _draw_truncation(axes[1], study)
        _draw_decay(axes[2], study)
        _draw_users(axes[3], study)
        figure.suptitle(f"PI2I on {study.source}, {study.days}")
    return figure


def _draw_ablations(axes: Axes, study: PI2IStudy) -> None:
    rows = [row for row in study.rows if row.seed == study.rows[0].seed]
    for row, colour in zip(rows, np.resize(COLOURS, len(rows)), strict=True):
        rates = [row.hit_rates[k] for k in study.ks]
        style = {"linewidth": 2.2} if not row.full_leads else {"linewidth": 1.1}
        axes.plot(study.ks, [rate.value for rate in rates], color=colour, marker="o", label=row.name, **style)
    axes.set_xscale("log")
    axes.set_xticks(study.ks, [str(k) for k in study.ks])
    axes.minorticks_off()
    axes.set(xlabel="K", ylabel="HR@K", title="Ablations")
    axes.legend(frameon=False, fontsize=7)


def _draw_truncation(axes: Axes, study: PI2IStudy) -> None:
    ts = [cut.truncation for cut in study.cuts]
    k = study.ks[-1]
    for label, found in (
        ("all candidates", [cut.candidate_recall for cut in study.cuts]),
        (f"HR@{k}", [cut.hit_rates[k] for cut in study.cuts]),
    ):
        (line,) = axes.plot(ts, [each.value for each in found], marker="o", markersize=3.5, label=label)
        lows, highs = [each.low for each in found], [each.high for each in found]
        axes.fill_between(ts, lows, highs, color=line.get_color(), alpha=0.12)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="truncation T", ylabel="hit rate, 95% intervals", title="Truncation")
    axes.legend(frameon=False, fontsize=7, loc="lower right")
    others = axes.twinx()
    others.plot(ts, [cut.mean_candidates for cut in study.cuts], "--", color="#7F7F7F")
    others.set_ylabel("mean candidates per user (dashed)")
    others.set_ylim(bottom=0)
    others.grid(False)


def _draw_decay(axes: Axes, study: PI2IStudy) -> None:
    indices = np.arange(len(study.decay.n_targets)) + 1
    chances = [study.decay.probability(index, index) for index in indices]
    axes.plot(indices, chances, color=COLOURS[0], linewidth=0, marker="o", markersize=3)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="trigger index, 1 the newest", ylabel="fires", title="Trigger decay")


def _draw_users(axes: Axes, study: PI2IStudy) -> None:
    for place, user in enumerate(study.users):
        indices = np.arange(len(user.n_fired)) + 1 + 0.25 * place
        label = f"user {user.user_id}"
        axes.bar(indices, user.n_fired, width=0.8, color=COLOURS[place], alpha=0.7, label=label)
    axes.set(xlabel="index of the trigger that fired", ylabel="clicks", title="Triggers of users")
    if study.users:
        axes.legend(frameon=False, fontsize=7)
