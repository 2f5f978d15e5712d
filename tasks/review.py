"""
What does a reviewer read before deciding whether a release may serve?

One Markdown page: the verdict in a sentence, every gate with its figure and margin, the challenger against
the champion, Hit@K of every method, and where it all comes from.
"""

from collections.abc import Iterable

from lakehouse.releases import Manifest
from tasks.records import PASSED, DayRecord

HIT_RATE = "hit_rate"
MOST_CHARACTERS = 5_000
TO_CHAMPION = "relative_to_champion"
SHOWN_METRICS = (
    "base",
    "sup",
    "inc",
    "inc_minus_sup",
    "sup_minus_r_u",
    "inc_minus_r_u",
    "filtered_inc_minus_sup",
    "exposure_hit",
    "candidate_recall",
    "mean_candidates",
    "marginal_hits",
)


def describe_day(record: DayRecord) -> str:
    """Give the page of a day."""
    return "\n\n".join(_day_sections(record))


def describe_release(record: DayRecord, manifest: Manifest, run_address: str) -> str:
    """
    Give the page of a registered release, which links its MLflow run.

    A registry on PostgreSQL takes 5,000 characters: what is over is left to the run's page, whole sections
    at a time, from the end.
    """
    quotas = ", ".join(f"{name} {quota}" for name, quota in manifest.quotas.items())
    n_bytes = sum(entry.size for entry in manifest.files.values())
    facts = [
        ("Report", f"[examples, cohorts, drift, what changed]({run_address}/artifacts/report.html)"),
        ("MLflow run", f"[{record.day}]({run_address})"),
        ("Release digest", f"`{manifest.digest}`"),
        ("Channels and quotas", quotas),
        ("Size", f"{n_bytes / 2**20:.1f} MiB in {len(manifest.files)} files"),
    ]
    sections, release = _day_sections(record), "### Release\n\n" + _table(("", ""), facts)
    page = "\n\n".join([*sections, release])
    while len(page) > MOST_CHARACTERS and len(sections) > 1:
        sections.pop()
        page = "\n\n".join([*sections, f"The rest is on the [page of the run]({run_address}).", release])
    return page[:MOST_CHARACTERS]


def gate_table(record: DayRecord) -> str:
    """Give every gate with its status, figure, floor and margin (figure - floor)."""
    rows = []
    for gate in record.gates.to_pylist():
        figure, floor = gate["figure"], gate["floor"]
        margin = None if figure is None or floor is None else figure - floor
        mark = f"**{gate['status']}**" if gate["status"] != PASSED else gate["status"]
        rows.append((gate["gate"], mark, _number(figure), _number(floor), _signed(margin), gate["detail"]))
    return _table(("gate", "status", "figure", "floor", "margin", "detail"), rows)


def key_figures(record: DayRecord) -> dict[str, str]:
    """Give Hit@K of every method with its interval, for a version's tags: ``merged.hit_rate_at_100``."""
    return {
        f"{row['method']}.{HIT_RATE}_at_{row['k']}": _interval(row) for row in record.metric_rows(HIT_RATE)
    }


def _day_sections(record: DayRecord) -> list[str]:
    gates, missed = record.gates.to_pylist(), record.missed_gates()
    summary = f"{len(gates) - len(missed)} of {len(gates)} gates passed"
    if missed:
        summary += f"; not passed: {', '.join(missed)}"
    sections = [f"## {record.day}: {record.verdict}\n\n{summary}."]
    origin = [
        ("Data docs", _address(record.data_docs) if record.data_docs else "none"),
        ("Code", f"`{record.code_version}`"),
        ("Configuration", f"`{record.config_digest}`"),
        ("DAG run", f"`{record.dag_run_id}` for {record.day}" if record.dag_run_id else "none"),
        ("Backfill", "yes" if record.is_backfill else "no"),
    ]
    tables = {
        "Gates": gate_table(record) if gates else "",
        "Challenger against champion": _champion_table(record),
        "Hit@K, with 95% intervals": _hit_rate_table(record),
        "Where it comes from": _table(("", ""), origin),
        "What the models add": _other_metrics_table(record),
    }
    return sections + [f"### {title}\n\n{table}" for title, table in tables.items() if table]


def _address(place: str) -> str:
    """Link what a browser can open; a path on the machine that ran the day it cannot."""
    return f"[{place}]({place})" if place.startswith(("http://", "https://")) else f"`{place}`"


def _champion_table(record: DayRecord) -> str:
    rows = record.metric_rows(TO_CHAMPION)
    if not rows:
        return "No champion was compared on this day."
    cells = [
        (row["method"], row["k"], *(_percent(row[end]) for end in ("value", "low", "high")), row["n_users"])
        for row in rows
    ]
    return _table(("method", "K", "(challenger - champion) / champion", "low", "high", "users"), cells)


def _percent(value: float | None) -> str:
    """Show a share; an end of an interval of too few users is undefined."""
    return "-" if value is None else f"{value:+.2%}"


def _hit_rate_table(record: DayRecord) -> str:
    rows = record.metric_rows(HIT_RATE)
    if not rows:
        return ""
    ks = sorted({row["k"] for row in rows})
    cells = {(row["method"], row["k"]): _interval(row) for row in rows}
    methods = dict.fromkeys(row["method"] for row in rows)
    n_users = {row["method"]: row["n_users"] for row in rows}
    return _table(
        ("method", *(f"Hit@{k}" for k in ks), "users"),
        [(method, *(cells.get((method, k), "") for k in ks), n_users[method]) for method in methods],
    )


def _other_metrics_table(record: DayRecord) -> str:
    rows = [row for metric in SHOWN_METRICS for row in record.metric_rows(metric)]
    cells = [(row["metric"], row["method"], row["k"] or "", _interval(row), row["n_users"]) for row in rows]
    return _table(("metric", "method", "K", "value", "users"), cells) if rows else ""


def _interval(row: dict[str, object]) -> str:
    if row["low"] is None or row["high"] is None:
        return _number(row["value"])
    return f"{_number(row['value'])} [{_number(row['low'])}, {_number(row['high'])}]"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.0f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def _table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    header = [str(cell) for cell in header]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
