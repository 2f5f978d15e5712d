"""
How is a published layout told in terms of the canonical tables?

A mapping is configuration: per canonical table the files, how they are read, and one SQL expression over
the raw columns per canonical column (raw CSV columns are text). Beside DuckDB's functions an expression may
use ``epoch_to_utc(value, per_second)`` (a count since 1970 as a UTC time), ``local_to_utc(value)`` (a time in
the source's time zone as UTC) and ``local_date(value)`` (the date in that zone of a UTC time), and in
``where`` the parameter ``$day``.
"""

import tomllib
from datetime import date
from importlib import resources
from pathlib import PurePath
from typing import Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lakehouse import tables

INPUTS = {
    table.name: table
    for table in (
        tables.EXPOSURE,
        tables.RANKING_LOG,
        tables.RETRIEVAL_LOG,
        tables.ITEM_SNAPSHOT,
        tables.USER_SNAPSHOT,
        tables.INITIAL_HISTORY,
    )
}
REQUIRED_INPUTS = ("exposure", "item", "user")


class TableMapping(BaseModel):
    """Where the rows of one canonical table come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folders: tuple[str, ...] = Field(
        (".",), min_length=1, description="Folders under DATA to look in; the first that has a file counts."
    )
    files: tuple[str, ...] = Field(
        min_length=1, description="File name patterns; those present are read, one at least must be."
    )
    format: Literal["csv", "parquet"] = Field("csv", description="File format; CSV is UTF-8.")
    delimiter: str = Field(",", min_length=1, max_length=1, description="Between the values of a CSV line.")
    header: bool = Field(True, description="The first CSV line names the columns; if not, layout does.")
    layout: tuple[str, ...] = Field(
        (), description="Published raw columns, in order; columns beyond them are ignored and noted."
    )
    take: Literal["day", "seen", "all"] = Field(
        description="Rows of a day: those of its log date; the latest of each key up to it; all, every day."
    )
    log_date: str | None = Field(None, description="SQL expression of a row's log date; not for take = all.")
    where: str | None = Field(None, description="SQL condition on raw columns and $day; others are not read.")
    columns: dict[str, str] = Field(description="Canonical column -> SQL expression over raw columns.")
    profile_columns: tuple[str, ...] = Field(
        (), description="Raw columns that give user.profile as name=value, empty values left out."
    )
    optional: bool = Field(False, description="The source may go without this table's files.")

    @field_validator("files")
    @classmethod
    def _patterns_are_relative(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in files:
            if not pattern or pattern.startswith("/") or ".." in PurePath(pattern).parts:
                raise ValueError(f"file pattern {pattern!r} must be relative to DATA and stay in it")
        return files

    @field_validator("folders")
    @classmethod
    def _folders_are_in_or_beside_data(cls, folders: tuple[str, ...]) -> tuple[str, ...]:
        for folder in folders:
            if folder.startswith("/") or (".." in PurePath(folder).parts and folder != ".."):
                raise ValueError(f"folder {folder!r} must be in DATA, or '..' for the one that holds it")
        return folders

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if (self.log_date is None) != (self.take == "all"):
            raise ValueError(f"take = {self.take!r} goes {'without' if self.log_date else 'with a'} log_date")
        if not self.header and not self.layout:
            raise ValueError("header = false needs layout to name the columns")
        return self


class SourceMapping(BaseModel):
    """A published layout as canonical inputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, description="Name of the source, kept with what was ingested.")
    timezone: str = Field(description="IANA time zone in which the source's days begin and end.")
    primary_scenario: str = Field(min_length=1, description="The scenario that the retrieval stage serves.")
    first_day: date | None = Field(None, description="Rows of earlier log dates are left out.")
    last_day: date | None = Field(None, description="Rows of later log dates are left out.")
    tables: dict[str, TableMapping] = Field(description="Canonical table -> where its rows come from.")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"no time zone {name!r}; give an IANA name such as Asia/Shanghai") from error
        return name

    @model_validator(mode="after")
    def _names_canonical_columns(self) -> Self:
        for name in REQUIRED_INPUTS:
            if name not in self.tables:
                raise ValueError(f"tables.{name} is missing; a source has {', '.join(REQUIRED_INPUTS)}")
        for name, mapping in self.tables.items():
            if name not in INPUTS:
                raise ValueError(f"tables.{name} is no canonical input; known: {', '.join(INPUTS)}")
            mapped = {*mapping.columns, *(("profile",) if mapping.profile_columns else ())}
            for column in sorted(mapped - {c.name for c in INPUTS[name].columns}):
                raise ValueError(f"tables.{name} has no column {column}")
            for column in INPUTS[name].columns:
                if not column.nullable and column.name not in mapped:
                    raise ValueError(f"tables.{name}.columns must give {column.name}")
        for name in ("exposure", "ranking_log", "retrieval_log"):
            if name in self.tables and self.tables[name].take != "day":
                raise ValueError(f"tables.{name} is a log: take = 'day'")
        return self


def load_preset(name: str) -> dict:
    """Read the mapping of a published layout from ``presets/<name>.toml``."""
    text = resources.files("lakehouse.sources").joinpath("presets", f"{name}.toml").read_text("utf-8")
    return tomllib.loads(text)
