"""What may be configured, and what is refused in one line."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from lakehouse.sources import SourceConfig, SourceError, open_source
from lakehouse.sources.config import effective_mapping
from lakehouse.sources.mapping import load_preset

GENERIC = {
    "name": "shop",
    "timezone": "Europe/Lisbon",
    "primary_scenario": "home",
    "tables": {
        "exposure": {
            "files": ["log/*.csv"],
            "take": "day",
            "log_date": "left(shown_at, 10)",
            "columns": {
                "user_id": "u",
                "item_id": "i",
                "scenario": "page",
                "event_time": "local_to_utc(shown_at)",
                "is_click": "clicked",
                "is_order": "false",
            },
        },
        "item": {
            "files": ["items.csv"],
            "take": "all",
            "columns": {"item_id": "i", "price": "price", "is_available": "true"},
        },
        "user": {
            "files": ["users.csv"],
            "take": "all",
            "profile_columns": ["city"],
            "columns": {"user_id": "u"},
        },
    },
}


def changed(**tables: dict | None) -> dict:
    """Give the generic mapping with some keys of some tables replaced; None drops the key."""
    mapped = {name: dict(table) for name, table in GENERIC["tables"].items()}
    for name, changes in tables.items():
        merged = mapped.get(name, {}) | changes
        mapped[name] = {key: value for key, value in merged.items() if value is not None}
    return GENERIC | {"tables": mapped}


@pytest.mark.parametrize("preset", ["kuairand", "kuairec", "taobao"])
def test_every_preset_is_a_valid_mapping(preset: str):
    mapping = effective_mapping(SourceConfig(preset=preset, data="."))
    assert mapping.name == preset
    assert mapping.timezone == "Asia/Shanghai"
    assert {"exposure", "item", "user"} <= set(mapping.tables)


def test_default_source_is_the_synthetic_world():
    source = open_source(SourceConfig())
    assert source.name == "synthetic"
    assert source.tables == {"exposure", "ranking_log", "item", "user"}
    assert source.read("exposure", source.first_day).num_rows > 0


def test_options_of_a_mapped_source_are_refused_for_the_synthetic_world():
    with pytest.raises(ValidationError, match="timezone has no meaning for preset synthetic"):
        SourceConfig(timezone="UTC")
    assert SourceConfig(data="").data is None


@pytest.mark.parametrize("changes", [{"files": ["/etc/passwd"]}, {"files": ["logs/../../*.csv"]}])
def test_files_stay_in_the_folder_of_the_source(changes: dict):
    with pytest.raises(ValidationError, match="must be relative to DATA and stay in it"):
        SourceConfig(preset="generic", data=".", mapping=changed(exposure=changes))


@pytest.mark.parametrize("folder", ["/etc", "../..", "logs/../../etc"])
def test_folders_stay_in_or_beside_the_folder_of_the_source(folder: str):
    with pytest.raises(ValidationError, match="must be in DATA, or"):
        SourceConfig(preset="generic", data=".", mapping=changed(exposure={"folders": [folder]}))


def test_an_expression_reads_no_other_file(tmp_path: Path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "1.csv").write_text("u,i,page,shown_at,clicked\n1,2,home,2022-05-01 10:00:00,1\n")
    (tmp_path / "items.csv").write_text("i,price\n2,1\n")
    (tmp_path / "users.csv").write_text("u,city\n1,x\n")
    (tmp_path / "secret.csv").write_text("u\n1\n")
    stealing = f"(select count(*) from read_csv('{tmp_path}/secret.csv'))"
    columns = GENERIC["tables"]["exposure"]["columns"] | {"is_order": stealing}
    mapping = changed(exposure={"columns": columns})
    with pytest.raises(SourceError, match="Permission Error"):
        open_source(SourceConfig(preset="generic", data=str(tmp_path), mapping=mapping))


def test_unknown_preset_and_unknown_option_are_refused():
    with pytest.raises(ValidationError, match="preset"):
        SourceConfig(preset="netflix", data=".")
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        SourceConfig(preset="kuairand", data=".", warmstart=True)


def test_generic_preset_and_mapping_go_together():
    with pytest.raises(ValidationError, match="go together"):
        SourceConfig(preset="generic", data=".")
    with pytest.raises(ValidationError, match="go together"):
        SourceConfig(preset="kuairand", data=".", mapping=GENERIC)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (GENERIC | {"timezone": "Europe/Atlantis"}, "no time zone 'Europe/Atlantis'"),
        (changed(exposure={"columns": {"user_id": "u"}}), "tables.exposure.columns must give item_id"),
        (changed(user={"columns": {"user_id": "u", "age": "a"}}), "tables.user has no column age"),
        (changed(user={"take": "seen"}), "take = 'seen' goes with a log_date"),
        (changed(exposure={"take": "all"}), "take = 'all' goes without log_date"),
        (changed(exposure={"take": "seen"}), "tables.exposure is a log: take = 'day'"),
        (changed(item={"header": False}), "header = false needs layout"),
        (changed(item={"files": ["/etc/*.csv"]}), "must be relative to DATA"),
        (changed(clicks=GENERIC["tables"]["exposure"]), "tables.clicks is no canonical input"),
        (
            GENERIC | {"tables": {"exposure": GENERIC["tables"]["exposure"]}},
            "tables.item is missing",
        ),
    ],
)
def test_mapping_that_cannot_be_read_is_refused_with_its_place(mapping: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        SourceConfig(preset="generic", data=".", mapping=mapping)


def test_overrides_lie_over_the_preset():
    config = SourceConfig(
        preset="kuairec",
        data=".",
        primary_scenario="main",
        columns={"exposure": {"scenario": "'main'", "is_click": "try_cast(watch_ratio as double) >= 3"}},
        files={"exposure": ("small_matrix.csv",)},
    )
    mapping = effective_mapping(config)
    assert mapping.primary_scenario == "main"
    assert mapping.tables["exposure"].files == ("small_matrix.csv",)
    assert mapping.tables["exposure"].columns["is_click"].endswith(">= 3")
    assert mapping.tables["exposure"].columns["user_id"] == "user_id"
    assert load_preset("kuairec")["primary_scenario"] == "feed"


def test_override_of_what_the_source_does_not_map_is_refused():
    with pytest.raises(SourceError, match="source taobao maps no table ranking_log"):
        effective_mapping(SourceConfig(preset="taobao", data=".", files={"ranking_log": ("x.csv",)}))
    with pytest.raises(SourceError, match="has no column clicked"):
        effective_mapping(SourceConfig(preset="taobao", data=".", columns={"item": {"clicked": "1"}}))
    with pytest.raises(SourceError, match="source taobao has no warm start"):
        effective_mapping(SourceConfig(preset="taobao", data=".", warm_start=True))


def test_missing_or_wrong_data_folder_is_named(tmp_path: Path):
    with pytest.raises(SourceError, match="source kuairand needs DATA"):
        open_source(SourceConfig(preset="kuairand"))
    with pytest.raises(SourceError, match=r"no folder .*nowhere; set DATA"):
        open_source(SourceConfig(preset="kuairand", data=str(tmp_path / "nowhere")))
    with pytest.raises(
        SourceError, match=r"no log_standard_4_08_to_4_21\*.csv or .* in .*, from which exposure"
    ):
        open_source(SourceConfig(preset="kuairand", data=str(tmp_path)))


def test_generic_mapping_reads_local_times_and_profiles(tmp_path: Path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "a.csv").write_text(
        "shown_at,u,i,page,clicked\n2026-07-01 00:30:00,1,5,home,1\n2026-07-02 09:00:00,1,6,home,0\n"
    )
    (tmp_path / "items.csv").write_text("i,price\n5,1.5\n6,2\n")
    (tmp_path / "users.csv").write_text("u,city\n1,Porto\n2,\n")
    source = open_source(SourceConfig(preset="generic", data=str(tmp_path), mapping=GENERIC))
    rows = source.read("exposure", source.first_day).to_pylist()
    assert source.last_day.isoformat() == "2026-07-02"
    # Lisbon is an hour ahead of UTC in summer.
    assert [row["event_time"] for row in rows] == ["2026-06-30 23:30:00"]
    assert source.read("user", source.first_day)["profile"].to_pylist() == [["city=Porto"], []]
