"""The reviewer's page: whole, self-contained, escaped, without secrets; the same facts give the same page."""

import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse import tables
from lakehouse.store import Lakehouse
from tasks import tracking
from tasks.figures import hit_rate_figure
from tasks.records import COMPARED, ChampionStatus, Deciding, MethodRecord
from tasks.release import shaping_settings
from tasks.report import Facts, collect_facts, made_with, render_report
from tasks.report.changes import changes_since, differing
from tasks.report.facts import Change
from tasks.tracking import LoggedOrigin
from tests.tasks.small_releases import (
    DAY,
    metric_rows,
    small_contents,
    small_record,
    small_settings,
    write_small,
)

EVIL = "<script>alert(1)</script>"
EVE = DAY - timedelta(days=1)
DECIDING = Deciding("merged", 100, 0.05, 200)
CHAMPION = ChampionStatus(COMPARED, "3", str(EVE), "digest")


class Page(HTMLParser):
    """Collects what a browser would load or run, the text, and open elements."""

    def __init__(self, html: str):
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " " if tag in ("td", "th", "tr") else ""
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def compared_rows(method: str) -> pa.Table:
    """Rows of a challenger that is 2 % better overall and 10 % worse in one scenario with few users."""
    rows = metric_rows(method, 0.36).slice(1, 1).to_pylist()
    row = rows[0] | {"metric": "relative_to_champion"}
    found = [
        row | {"cohort": "scenario=2", "value": -0.1, "low": -0.3, "high": 0.1, "n_users": 20},
        row | {"cohort": "all", "value": 0.02, "low": 0.01, "high": 0.03},
        row | {"cohort": f"scenario={EVIL}", "value": None, "low": None, "high": None, "n_users": 5},
        row | {"metric": "overlap_with_champion", "value": 0.75, "low": None, "high": None},
    ]
    return pa.Table.from_pylist(found, tables.METRIC.schema)


def compared_record(**changes: object):
    methods = (
        MethodRecord("merged", {}, pa.concat_tables([metric_rows("merged", 0.36), compared_rows("merged")])),
        MethodRecord("champion", {}, metric_rows("champion", 0.353)),
    )
    return small_record(**{"methods": methods, "champion": CHAMPION, "deciding": DECIDING} | changes)


@pytest.fixture
def lakehouse(tmp_path: Path) -> Lakehouse:
    """A day with one example user, item features and figures of drift."""
    lakehouse = Lakehouse(tmp_path / "var" / "lakehouse")
    example = {
        "user_id": 7,
        "kind": "short history",
        "n_history": 1,
        "history_item_ids": [1],
        "item_ids": [2, 3],
        "channels": ["swing", EVIL],
        "target_item_ids": [3, 9],
        "target_places": [2, 0],
    }
    lakehouse.replace(tables.EXAMPLE, DAY, pa.Table.from_pylist([example], tables.EXAMPLE.schema))
    names = tables.ITEM_SNAPSHOT.schema.names
    items = [
        dict.fromkeys(names) | {"item_id": n, "category_id": 10 * n, "is_available": True}
        for n in (1, 2, 3, 4)
    ]
    lakehouse.replace(tables.ITEM_SNAPSHOT, DAY, pa.Table.from_pylist(items, tables.ITEM_SNAPSHOT.schema))
    figures = [
        ("input", "rows", "table=click", 80.0),
        ("input", "rows_before", "table=click", 100.0),
        ("input", "click_rate", "all", 0.2),
        ("input", "click_rate_before", "all", 0.1),
        ("input", "psi", "hour", 0.31),
        ("input", "share", f"hour={EVIL}", 0.5),
        ("input", "share_before", f"hour={EVIL}", 0.25),
        ("base", "common_items", "all", 30.0),
        ("base", "neighbour_overlap", "all", 0.62),
        ("base", "norm", "all", 2.0),
        ("base", "norm_before", "all", 1.0),
    ]
    rows = [
        {"method": method, "metric": metric, "k": 10, "cohort": cohort, "value": value}
        | {"low": None, "high": None, "n_users": 0, "n_targets": 40}
        for method, metric, cohort, value in figures
    ]
    meta = {"champion": "", "days_before": str(EVE)}
    table = pa.Table.from_pylist(rows, tables.METRIC.schema)
    lakehouse.replace(tables.METRIC, DAY, table, part="drift", meta=meta)
    return lakehouse


def register_champion(tmp_path: Path, **settings: object) -> tuple[str, tracking.ReleaseVersion]:
    """Register a champion of the day before, made with other settings."""
    theirs = small_settings(tmp_path / "var", **settings)
    made = made_with(shaping_settings(theirs), "[volume]\nfloor = 0.5\n")
    digests = {f"increc_sample/{EVE - timedelta(days=n)}": f"s{n}" for n in range(3)}
    record = small_record(EVE, made_with=made, data_digests=digests, code_version="old", verdict="passed")
    folder = theirs.staged_root / str(EVE)
    write_small(folder, small_contents(), EVE)
    run = tracking.log_day(record, theirs)
    return tracking.register_version(folder, record, run.run_id, theirs)


def test_page_shows_all_that_a_reviewer_decides_from(lakehouse: Lakehouse, tmp_path: Path) -> None:
    version = register_champion(tmp_path, window_days=7).version
    settings = small_settings(tmp_path / "var", window_days=9)
    record = compared_record(
        champion=ChampionStatus(COMPARED, version, str(EVE), "digest"),
        made_with=made_with(shaping_settings(settings), "[volume]\nfloor = 0.4\n"),
        data_digests={f"increc_sample/{EVE - timedelta(days=n)}": f"s{min(n, 1)}" for n in range(3)},
    )
    page = Page(render_report(collect_facts(record, lakehouse, settings)))
    text = re.sub(r"\s+", " ", page.text)
    for shown in (
        "1 of 2 gates passed; not passed: volume",
        "-0.1000",  # margin of the gate volume, 0.4 - 0.5
        "all 500 0.3600 0.3530 +2.0 % +1.0 % .. +3.0 %",
        "scenario=2 20 - - -10.0 %",
        "merged 75.0 % of the first 100.",
        "1 category 10",
        "3 category 30 at place 2; 9 not in the list",
        "click 80 100 0.80",
        "hour 0.3100 moved",
        "30 of 40 62.0 % of 10 2.0000 1.0000",
        "window_days 7 9",
        "volume.floor 0.5 0.4",
        f"their samples differ on {EVE - timedelta(days=2)}",
        "old abc123",
    ):
        assert shown in text, f"{shown!r} is not in {text}"


def test_page_opens_by_itself_and_nothing_from_outside_is_run(lakehouse: Lakehouse, tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "var")
    record = compared_record(champion=ChampionStatus(COMPARED, "99", str(EVE), "digest", EVIL))
    html = render_report(collect_facts(record, lakehouse, settings))
    page = Page(html)
    assert "script" not in page.tags
    assert EVIL in page.text
    images = [address for address in page.loads if not address.startswith("#")]
    assert len(images) == 2
    assert all(address.startswith("data:image/png;base64,") for address in images)
    assert "http://" not in html
    assert "The champion's record is gone" in page.text


def test_sentences_have_their_spaces_and_name_what_they_are_about(lakehouse: Lakehouse, tmp_path) -> None:
    settings = small_settings(tmp_path / "var")
    methods = (*compared_record().methods, MethodRecord("popularity", {}, metric_rows("popularity", 0.24)))
    text = Page(render_report(collect_facts(compared_record(methods=methods), lakehouse, settings))).text
    assert "is above -5.0 % (dashed). Grey: fewer than 200 users" in text
    assert "Users without a history: Hit@100 of merged is 0.1200, of popularity 0.0800." in text
    first = small_record(methods=(), is_backfill=True)
    text = Page(render_report(collect_facts(first, lakehouse, settings))).text
    assert "There is no champion yet. Made by a backfill: it is never promoted automatically." in text


DRAWN = ("merged", "champion", "popularity", "swing", "base", "increc", "increc_na", "base_reseeded")


def lines_of(*names: str) -> dict[str, object]:
    """The lines that a day with these methods draws, by name."""
    methods = tuple(MethodRecord(name, {}, metric_rows(name, 0.3)) for name in names)
    (axes,) = hit_rate_figure(small_record(methods=methods)).axes
    return {line.get_label(): line for line in axes.lines}


def test_hit_rate_plot_of_a_day_with_a_champion_has_lines_that_can_be_told_apart() -> None:
    lines = lines_of(*DRAWN, "champion_as_served", "champion_base", "champion_swing", "swing_filled")
    assert set(lines) == set(DRAWN)
    colours = [line.get_color() for line in lines.values()]
    assert len(set(colours)) == len(colours)
    assert lines["merged"].get_linewidth() > lines["increc"].get_linewidth()
    assert lines["increc"].get_linewidth() > lines["base_reseeded"].get_linewidth()


def test_legend_begins_with_what_decides_and_ends_with_controls() -> None:
    values = {"base_reseeded": 0.5, "increc": 0.2, "champion": 0.1, "base": 0.4, "merged": 0.3}
    methods = tuple(MethodRecord(name, {}, metric_rows(name, value)) for name, value in values.items())
    (axes,) = hit_rate_figure(small_record(methods=methods)).axes
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == ["merged", "champion", "base", "increc", "base_reseeded"]


def test_a_method_has_the_same_colour_on_every_day() -> None:
    first = lines_of("popularity", "base", "merged", "wide", "mine")
    second = lines_of("merged", "champion", "mine", "swing", "base", "wide", "popularity", "increc")
    assert all(line.get_color() == second[name].get_color() for name, line in first.items())


def test_equal_facts_give_equal_pages_whoever_ran_the_day(lakehouse: Lakehouse, tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "var")
    pages = {
        render_report(collect_facts(compared_record(champion=CHAMPION, **run), lakehouse, settings))
        for run in ({"dag_run_id": "a"}, {"dag_run_id": "b"})
    }
    assert len(pages) == 1


def test_a_day_with_nothing_yet_says_so(tmp_path: Path) -> None:
    lakehouse = Lakehouse(tmp_path / "var" / "lakehouse")
    record = small_record(methods=(), gates=tables.GATE.schema.empty_table(), verdict="warming up")
    facts = collect_facts(record, lakehouse, small_settings(tmp_path / "var"))
    text = re.sub(r"\s+", " ", Page(render_report(facts)).text)
    for shown in (
        "There is no champion yet",
        "Nothing was measured",
        "There are none.",
        "It was not measured",
    ):
        assert shown in text


def test_passwords_of_addresses_are_not_in_what_a_run_keeps_or_shows(tmp_path: Path) -> None:
    settings = small_settings(
        tmp_path / "var",
        online_store_url="redis://:hunter2@localhost:6379/0",
        source={"preset": "kuairand", "data": "s3://key:hunter2@bucket/logs"},
        alerts={"webhook_url": "https://user:hunter2@hooks.example.com/hunter2"},
    )
    kept = made_with(shaping_settings(settings), "")
    record = small_record(made_with=kept)
    page = render_report(Facts(record=record, quotas={}, release={}))
    assert "hunter2" not in str(kept) + page


def test_what_differs_is_named_with_both_values() -> None:
    old = {"a": 1, "tower": {"dim": 8, "gone": True}, "same": {"x": [1, 2]}}
    new = {"a": 1, "tower": {"dim": 16}, "same": {"x": [1, 2]}, "new": "value"}
    assert differing(old, new) == (
        Change("new", None, "value"),
        Change("tower.dim", "8", "16"),
        Change("tower.gone", "true", None),
    )


def test_a_champion_whose_run_keeps_no_settings_is_compared_in_the_rest() -> None:
    record = compared_record(data_digests={"increc_sample/2022-05-02": "a"})
    changes = changes_since(CHAMPION, LoggedOrigin("old", "c", {}, None), record)
    assert changes.settings is changes.gates is None
    assert changes.code == Change("code", "old", "abc123")
    assert changes.window == Change("learned from", None, "2022-05-02 .. 2022-05-02 (1 day)")
    assert (changes.n_common_days, changes.changed_samples) == (0, ())


def test_a_day_s_samples_differ_where_those_of_either_method_do() -> None:
    theirs = {"increc_sample/2022-05-01": "a", "increc_sample/2022-05-02": "b", "pi2i_sample/2022-05-01": "c"}
    ours = theirs | {"pi2i_sample/2022-05-01": "d", "pi2i_sample/2022-05-02": "e"}
    changes = changes_since(
        CHAMPION, LoggedOrigin("old", "c", theirs, None), compared_record(data_digests=ours)
    )
    assert (changes.n_common_days, changes.changed_samples) == (2, ("2022-05-01",))
