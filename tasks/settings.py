"""
What is configured, and from where?

The only reader of the environment and of ``settings.toml``. Order of precedence: environment variables
(``TRIBUTARY_`` prefix, ``__`` between levels), then the settings file, then the defaults below.
``TRIBUTARY_SETTINGS`` names another settings file. Unknown names are refused.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from lakehouse.sources import SourceConfig
from models.increc.config import IncRecConfig, Variant
from models.mnr import MNRConfig
from models.pi2i.config import PI2IConfig
from models.swing import SwingConfig
from nearline.click_config import NearlineConfig
from nearline.mnr_config import MNRStreamConfig
from tasks.alerts_config import AlertsConfig
from tasks.mnr_config import MNRDailyConfig
from tasks.retention_config import RetentionConfig
from tasks.services_config import ServicesConfig
from tasks.spark_config import SparkConfig
from tasks.validation_config import ValidationConfig

REPOSITORY = Path(__file__).resolve().parents[1]

Quota = Annotated[int, Field(ge=1, le=10_000)]

BASE = "base"
PI2I = "pi2i"
ITEM_CHANNELS = ("swing", "popularity")
RESERVED = {*ITEM_CHANNELS, "mnr", "glare", PI2I, "swing_filled", "merged", "release"}
VARIANTS = get_args(Variant)
METHOD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
PREFIX = "TRIBUTARY_"
# Read before the settings are: where they are, and where tests find real data.
NO_SETTINGS = {"TRIBUTARY_SETTINGS", "TRIBUTARY_TEST_DATA"}


class BadSettings(ValueError):
    """The settings cannot be used; the message names the setting and what it takes."""


class SamplesConfig(BaseModel):
    """How requests become IncRec samples (METHODS, section 2)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    visit_gap_seconds: int = Field(
        1800, ge=1, description="A pause this long starts a new visit, where logs carry no request ids."
    )
    retrieved_by: Literal["simulated", "logged", "release", "random"] = Field(
        "simulated",
        description="Where R_u, the existing channels' answer to a request, comes from: simulated channels; "
        "the table retrieval_log; the channels of a registered release; as a control, items at random.",
    )
    release: str | None = Field(
        None, description="Version of the release of retrieved_by = release; unset, the one that serves."
    )
    retrieved_per_user: int = Field(
        200,
        ge=1,
        le=10_000,
        description="Size of the simulated (or random) R_u; a log and a release have their own.",
    )
    simulated_channels: tuple[Literal["swing", "mnr"], ...] = Field(
        ("swing",),
        min_length=1,
        description="The channels that a simulated R_u unites, each with retrieved_per_user items: Swing; "
        "what MNR held for the user at that moment.",
    )
    n_triggers: int = Field(100, ge=1, description="Most recent history items that reach for targets.")


class EvaluationConfig(BaseModel):
    """What the daily evaluation measures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ks: tuple[Quota, ...] = Field((50, 100, 200, 500), description="K of Hit@K, ascending.")
    n_bootstrap: int = Field(1000, ge=100, le=100_000, description="Bootstrap resamples per interval.")
    max_users: int = Field(50_000, ge=1, description="Users measured a day: a seeded draw where more came.")
    seed: int = Field(1, ge=0, description="Seed of the draw and of the bootstrap.")

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.ks or list(self.ks) != sorted(set(self.ks)):
            raise ValueError(f"evaluation.ks must be ascending and not empty, not {list(self.ks)}")
        return self


class Settings(BaseSettings):
    """All settings of Tributary; frozen."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    var: Path = Field(Path("var"), description="State folder: everything that is not told otherwise.")
    lakehouse_root: str = Field(
        "", description="Folder or fsspec URL of the tables; default <var>/lakehouse."
    )
    release_root: Path = Field(Path(), description="Folder of served releases; default <var>/releases.")
    tracking_uri: str = Field("", description="MLflow tracking; default sqlite in <var>/mlflow.db.")
    online_store_url: str = Field("", description="sqlite:///file or redis://...; default <var>/online.db.")
    gates_file: Path = Field(REPOSITORY / "mlflow" / "gates.toml", description="The gates of a release.")

    source: SourceConfig = Field(default_factory=SourceConfig, description="Where the logs come from.")
    max_quarantine_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="A day fails when a larger share of a table's rows is refused; repeats do not count.",
    )
    validation: ValidationConfig = Field(default_factory=ValidationConfig, description="Bounds of checks.")

    window_days: int = Field(14, ge=1, le=365, description="Days of clicks and samples a day learns from.")
    history_length: int = Field(200, ge=1, le=10_000, description="Items kept of a user's history.")
    swing: SwingConfig = Field(default_factory=SwingConfig, description="The Swing index.")
    samples: SamplesConfig = Field(default_factory=SamplesConfig, description="IncRec samples.")
    methods: dict[str, IncRecConfig] = Field(description="The trained methods by name; base is TB-Online.")
    pi2i: PI2IConfig | None = Field(None, description="PI2I's scorer of what Swing reaches; unset: off.")
    channels: dict[str, Quota] = Field(description="Served channels and their quota in the merged list.")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="What is measured.")

    mnr: MNRConfig = Field(
        default_factory=MNRConfig, description="MNR: candidates from other scenarios' rankings."
    )
    mnr_stream: MNRStreamConfig = Field(
        default_factory=MNRStreamConfig, description="The streaming job that keeps them fresh."
    )
    mnr_daily: MNRDailyConfig = Field(
        default_factory=MNRDailyConfig, description="Replays of MNR, and a look at its streaming job."
    )

    promotion: Literal["manual", "auto"] = Field("manual", description="Who moves the alias champion.")
    experiment: str = Field("daily_cycle", min_length=1, description="MLflow experiment of the daily runs.")
    model_name: str = Field("retrieval", min_length=1, description="MLflow registered model.")

    alerts: AlertsConfig = Field(
        default_factory=AlertsConfig, description="Who hears of failed and late runs."
    )
    retention: RetentionConfig = Field(default_factory=RetentionConfig, description="What is kept, how long.")
    services: ServicesConfig = Field(default_factory=ServicesConfig, description="Services beside the tasks.")
    engine: Literal["duckdb", "spark"] = Field(
        "duckdb", description="What runs sql/ and Swing: this process, or Spark, with the same results."
    )
    spark: SparkConfig = Field(default_factory=SparkConfig, description="The session of engine = spark.")

    nearline: NearlineConfig = Field(
        default_factory=NearlineConfig, description="The worker that answers clicks (make nearline)."
    )

    n_threads: int = Field(2, ge=1, le=1024, description="Threads of one task.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the towers train.")

    @model_validator(mode="before")
    @classmethod
    def _fill_paths(cls, values: dict) -> dict:
        var = Path(values.get("var") or "var").expanduser().absolute()
        defaults = {
            "lakehouse_root": str(var / "lakehouse"),
            "release_root": var / "releases",
            "tracking_uri": f"sqlite:///{var / 'mlflow.db'}",
            "online_store_url": f"sqlite:///{var / 'online.db'}",
        }
        return {**values, "var": var, **{k: values.get(k) or v for k, v in defaults.items()}}

    @model_validator(mode="after")
    def _state_is_a_folder(self) -> Self:
        if self.var.exists() and not self.var.is_dir():
            raise ValueError(f"var is the state folder, but {self.var} is a file; name a folder")
        return self

    @model_validator(mode="after")
    def _retention_keeps_the_window(self) -> Self:
        needed = {"window_days": self.window_days, "validation.trailing_days": self.validation.trailing_days}
        for name, n_days in self.retention.partition_days:
            for limit, least in needed.items():
                if n_days is not None and n_days < least + 1:
                    raise ValueError(
                        f"retention.partition_days.{name} is {n_days}, but the next day needs {limit} + 1 = "
                        f"{least + 1} days"
                    )
        return self

    @model_validator(mode="after")
    def _known_methods_and_channels(self) -> Self:
        base = self.methods.get(BASE)
        if base is None or base.variant != "TB-Online":
            raise ValueError(f"methods.{BASE} must be there with variant TB-Online: Base@K and Sup@K are its")
        known = [*ITEM_CHANNELS, *self.trained_methods]
        for channel in self.channels:
            if channel == PI2I and self.pi2i is None:
                raise ValueError("channels.pi2i needs PI2I's scorer: add the section [pi2i], or take it out")
            if channel not in known:
                raise ValueError(f"channels.{channel} is no method; known: {', '.join(known)}")
        for method in self.methods:
            if not METHOD_NAME.fullmatch(method):
                raise ValueError(f"methods.{method}: a name has letters, digits, _ and - only")
            if method in VARIANTS:
                raise ValueError(f"methods.{method} is the name of a variant of the paper; choose another")
            if method in RESERVED or method.startswith("champion"):
                raise ValueError(f"methods.{method} is the name of a built-in row; choose another")
        if not self.channels:
            raise ValueError("channels is empty: name at least one channel with its quota")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over what the settings file gives."""
        return env_settings, init_settings

    @property
    def trained_methods(self) -> tuple[str, ...]:
        """Names of what is trained each day: the methods, then PI2I's scorer where it is on."""
        return (*self.methods, *([PI2I] if self.pi2i else []))

    @property
    def clicks_url(self) -> str:
        """Where clicks come from: as set, else the online store's Redis, else a file in the state folder."""
        if self.nearline.clicks_url:
            return self.nearline.clicks_url
        if self.online_store_url.startswith(("redis://", "rediss://")):
            return self.online_store_url
        return (self.var / "nearline" / "clicks.jsonl").as_uri()

    @property
    def staged_root(self) -> Path:
        """Folder in which a day's release waits for its verdict."""
        return self.release_root / "staged"

    @property
    def local_root(self) -> Path:
        """Folder of verified copies of registered releases, named by their digests."""
        return self.release_root / "local"


def load_settings() -> Settings:
    """
    Read the settings file and the environment.

    Raises:
        BadSettings: a missing or broken file, an unknown name or a value out of bounds.
    """
    path = Path(os.environ.get("TRIBUTARY_SETTINGS") or REPOSITORY / "settings.toml")
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSettings(f"cannot read the settings file {path}: {error}") from error
    _refuse_unknown_variables()
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        message = first["msg"].removeprefix("Value error, ")
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise BadSettings(f"{where}: {message}, in {path} or TRIBUTARY_ variables{more}") from error
    except SettingsError as error:
        raise BadSettings(f"{error}; check the TRIBUTARY_ variables") from error


def _refuse_unknown_variables() -> None:
    for name in sorted(os.environ):
        if name.upper().startswith(PREFIX) and name.upper() not in NO_SETTINGS:
            field = name[len(PREFIX) :].split("__")[0].lower()
            if field not in Settings.model_fields:
                raise BadSettings(f"{name}: there is no setting {field}; see tasks/settings.py")
