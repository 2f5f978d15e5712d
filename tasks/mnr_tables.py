"""What does a study of MNR say? The paper's Tables 1-4 as offline stand-ins: rows, Markdown and CSV."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from models.metrics import Interval

TITLES = {
    "table1": "Table 1. Channels; differences to the channel swing",
    "table2": "Table 2. As they come (streaming) against once a day (daily); differences to daily",
    "table3": "Table 3. Score (Eq. 6) against time alone (fifo) against chance; differences to the row above",
    "table4": "Table 4. Alpha of Eq. 6; differences to the configured alpha",
}
COLUMNS = {
    "pvr": "replay PVR",
    "hit_rate": "normalised hit rate",
    "click_conversion": "replay conversion, clicks",
    "order_conversion": "replay conversion, orders",
}
COMPARED = ("pvr", "hit_rate")


@dataclass(frozen=True)
class Row:
    """One channel in one variant, and what it differs by from another."""

    table: str
    channel: str
    variant: str
    share_with_list: float
    """Of the requests for which it held anything."""
    items_per_request: float
    """Items that it held, less the history, per request."""
    figures: Mapping[str, Interval]
    against: str
    """Channel or variant that it is compared with; empty for none."""
    differences: Mapping[str, Interval]


@dataclass(frozen=True)
class MNRStudy:
    """Channels measured at the same requests."""

    first_day: date
    last_day: date
    source: str
    primary_scenario: str
    is_stand_in: bool
    """Whether visits stand in for rankings."""
    k: int
    n_requests: int
    n_users: int
    n_exposed: int
    click_rate: float
    """Of all exposures, what replay conversions are relative to."""
    order_rate: float
    not_trained: tuple[str, ...]
    """Methods of the settings that were not trained on every day, and are not here."""
    rows: tuple[Row, ...]

    @property
    def days(self) -> str:
        """The day, or the first and the last."""
        return (
            str(self.first_day) if self.first_day == self.last_day else f"{self.first_day} .. {self.last_day}"
        )

    def of_table(self, table: str) -> list[Row]:
        """Give the rows of one table."""
        return [row for row in self.rows if row.table == table]

    def find(self, table: str, channel: str, variant: str) -> Row:
        """Give one row."""
        return next(r for r in self.of_table(table) if (r.channel, r.variant) == (channel, variant))

    def table(self, table: str) -> str:
        """Give one table as Markdown."""
        heads = ["channel", "variant", "requests with a list", "items a request"]
        heads += [*COLUMNS.values(), *(f"{COLUMNS[name]}: difference" for name in COMPARED)]
        lines = [f"**{TITLES[table]}**", "", f"| {' | '.join(heads)} |"]
        lines.append("| --- | --- |" + " ---: |" * (len(heads) - 2))
        for row in self.of_table(table):
            cells = [row.channel, row.variant, f"{row.share_with_list:.1%}", f"{row.items_per_request:.1f}"]
            cells += [_cell(row.figures[name], is_signed="conversion" in name) for name in COLUMNS]
            cells += [_cell(row.differences.get(name), is_signed=True) for name in COMPARED]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def summary(self) -> str:
        """Say what was measured, and what stood in for rankings."""
        rankings = (
            "Visits stand in for rankings, each visible from its last exposure on: the source logs none."
            if self.is_stand_in
            else "Rankings are the source's ranking_log."
        )
        missing = f" Not trained, so not here: {', '.join(self.not_trained)}." if self.not_trained else ""
        orders = f", {self.order_rate:.2%} ordered" if self.order_rate > 0 else ", no orders"
        return (
            f"MNR by replay on {self.source}, {self.days}: {self.n_requests:,} requests of {self.n_users:,} "
            f"users in scenario {self.primary_scenario}, K = {self.k} per list. {rankings} Of "
            f"{self.n_exposed:,} exposed items {self.click_rate:.1%} were clicked{orders}. These are offline "
            f"stand-ins for the paper's online figures; brackets are 95% intervals over users.{missing}"
        )

    def markdown(self) -> str:
        """Give the whole study."""
        return "\n\n".join([self.summary(), *(self.table(name) for name in TITLES)]) + "\n"

    def csv(self) -> str:
        """Give every figure and difference as one line."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["table", "channel", "variant", "figure", "against", "value", "low", "high"])
        for row in self.rows:
            for against, found in (("", row.figures), (row.against, row.differences)):
                for name, figure in found.items():
                    values = (figure.value, figure.low, figure.high)
                    writer.writerow([row.table, row.channel, row.variant, name, against, *values])
        return text.getvalue()


def _cell(figure: Interval | None, *, is_signed: bool) -> str:
    if figure is None or math.isnan(figure.value):
        return "-"
    value, low, high = (
        f"{100 * number:+.2f}" if is_signed else f"{100 * number:.2f}"
        for number in (figure.value, figure.low, figure.high)
    )
    return f"{value}%" if math.isnan(figure.low) else f"{value}% [{low}, {high}]"
