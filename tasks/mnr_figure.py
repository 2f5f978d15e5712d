"""The figure of a study of MNR: normalised hit rate and replay PVR of every row, a panel per table."""

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tasks.figures import COLOURS, STYLE
from tasks.mnr_tables import COLUMNS, COMPARED, TITLES, MNRStudy


def mnr_figure(study: MNRStudy) -> Figure:
    """Draw each table's rows with their 95% intervals; of tables 2-4 all scenarios together alone."""
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 10), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(TITLES), len(COMPARED))
        for line, table in enumerate(TITLES):
            rows = study.of_table(table)
            if table != "table1":
                rows = [row for row in rows if row.channel == "mnr"]
            names = [row.channel if table == "table1" else row.variant for row in rows]
            for axes, name in zip(panels[line], COMPARED, strict=True):
                for place, row in enumerate(rows):
                    found = row.figures[name]
                    bounds = [[found.value - found.low], [found.high - found.value]]
                    axes.errorbar(
                        100 * found.value,
                        place,
                        xerr=[[100 * bound for bound in side] for side in bounds],
                        fmt="o",
                        markersize=4,
                        color=COLOURS[COMPARED.index(name)],
                    )
                axes.set_yticks(range(len(rows)), names)
                axes.invert_yaxis()
                axes.set_xlim(left=0)
                axes.set_xlabel(f"{COLUMNS[name]}, %")
                axes.set_title(TITLES[table].split(".")[0])
        figure.suptitle(f"MNR by replay, {study.source}, {study.days}, K = {study.k}")
    return figure
