"""Which source is read, and what is told differently from its preset?"""

from datetime import date
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lakehouse.sources.mapping import SourceMapping, load_preset
from lakehouse.sources.source import SourceError
from lakehouse.sources.synthetic import SyntheticConfig

OVERRIDES = ("timezone", "primary_scenario", "first_day", "last_day")
NOT_SYNTHETIC = ("data", "warm_start", *OVERRIDES, "files", "columns", "mapping")


class SourceConfig(BaseModel):
    """The source of the logs: a preset, its folder, and what to tell differently."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["synthetic", "kuairand", "kuairec", "taobao", "generic"] = Field(
        "synthetic", description="A known layout; generic is told by mapping, synthetic is generated."
    )
    data: str | None = Field(None, description="DATA: the folder that holds the source's files.")
    warm_start: bool | None = Field(
        None,
        description="Users' past as initial_history: true demands its file, false leaves it out, "
        "unset takes it where it lies.",
    )
    timezone: str | None = Field(None, description="IANA time zone in place of the preset's.")
    primary_scenario: str | None = Field(None, description="Primary scenario in place of the preset's.")
    first_day: date | None = Field(None, description="Leave out rows of earlier log dates.")
    last_day: date | None = Field(None, description="Leave out rows of later log dates.")
    files: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Canonical table -> file patterns in place of the preset's."
    )
    columns: dict[str, dict[str, str]] = Field(
        default_factory=dict, description="Canonical table -> column -> SQL expression over the preset's."
    )
    mapping: SourceMapping | None = Field(None, description="The whole mapping, for preset generic.")
    synthetic: SyntheticConfig = Field(
        default_factory=SyntheticConfig, description="The generated world, for preset synthetic."
    )

    @field_validator("data", mode="before")
    @classmethod
    def _empty_is_unset(cls, data: object) -> object:
        return data or None

    @model_validator(mode="after")
    def _options_fit_the_preset(self) -> Self:
        if (self.preset == "generic") != (self.mapping is not None):
            raise ValueError("preset generic and mapping go together: give both or neither")
        if self.preset == "synthetic":
            for name in NOT_SYNTHETIC:
                if getattr(self, name) not in (None, {}):
                    raise ValueError(f"{name} has no meaning for preset synthetic; set its options instead")
        return self


def effective_mapping(config: SourceConfig) -> SourceMapping:
    """
    Give the mapping of a preset (or the generic one) with the config's own words over it.

    Raises:
        SourceError: the outcome is no mapping; names the field.
    """
    base = config.mapping.model_dump(mode="json") if config.mapping else load_preset(config.preset)
    base |= {name: getattr(config, name) for name in OVERRIDES if getattr(config, name) is not None}
    mapped = base["tables"]
    for name in {*config.files, *config.columns} - set(mapped):
        raise SourceError(f"source {base['name']} maps no table {name}; it has {', '.join(sorted(mapped))}")
    for name, files in config.files.items():
        mapped[name]["files"] = files
    for name, columns in config.columns.items():
        mapped[name]["columns"] |= columns
    if config.warm_start is not None:
        if config.warm_start and "initial_history" not in mapped:
            raise SourceError(f"source {base['name']} has no warm start: leave source.warm_start unset")
        if config.warm_start:
            mapped["initial_history"]["optional"] = False
        else:
            mapped.pop("initial_history", None)
    try:
        return SourceMapping.model_validate(base)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("source", *(str(part) for part in first["loc"])))
        raise SourceError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error
