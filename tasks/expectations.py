"""
How does a frame fare against its expectations, and where can a person read it?

The only importer of Great Expectations (which takes seconds to import). Nothing is sent anywhere.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core.expectation_validation_result import ExpectationValidationResult
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

from lakehouse.folder_lock import one_writer
from tasks.suites import Expectation

SITE = "day"
N_SHOWN = 3


@dataclass(frozen=True)
class Outcome:
    """How one expectation fared. ``error`` says why it crashed: then nothing is known about the data."""

    name: str
    severity: str
    is_success: bool
    observed: str
    error: str | None = None

    def __str__(self) -> str:
        """Tell what was seen, or why it crashed."""
        return f"{self.name}: {self.error or self.observed}"


class DayOfSuites:
    """
    The suites of one day and their data docs.

    Pages are written to ``<folder>/.<day>`` first; ``keep_docs`` puts them at ``<folder>/<day>``.
    """

    def __init__(self, day: date, folder: Path):
        """Start the day's pages, in memory."""
        self.day = day
        self._kept = folder.absolute() / day.isoformat()
        self._written = self._kept.with_name(f".{day}")
        self._context = gx.get_context(mode="ephemeral", project_config=_project(self._written))
        self._source = self._context.data_sources.add_pandas("lakehouse")

    @property
    def docs(self) -> str:
        """URL of the day's data docs."""
        return (self._kept / "index.html").as_uri()

    def docs_of(self, suite: str) -> str:
        """Give the URL of the page with the results of a suite that was run."""
        return (self._kept / "validations" / suite / self._run_path / f"lakehouse-{suite}.html").as_uri()

    @property
    def _run_path(self) -> str:
        return f"{self.day}/{self.day:%Y%m%d}T000000.000000Z"

    def run(
        self,
        suite: str,
        frame: pd.DataFrame,
        expectations: Sequence[Expectation],
        parameters: dict[str, Any],
    ) -> list[Outcome]:
        """Hold ``frame`` against the expectations; ``parameters`` are the values of ``$PARAMETER``."""
        definition = self._context.validation_definitions.add(
            gx.ValidationDefinition(
                name=suite,
                data=self._source.add_dataframe_asset(suite).add_batch_definition_whole_dataframe("day"),
                suite=self._context.suites.add(
                    gx.ExpectationSuite(suite, expectations=[_declare(e, parameters) for e in expectations])
                ),
            )
        )
        run_time = datetime.combine(self.day, time(), UTC)
        result = definition.run(
            batch_parameters={"dataframe": frame},
            expectation_parameters=parameters,
            result_format="SUMMARY",
            run_id=gx.RunIdentifier(run_name=self.day.isoformat(), run_time=run_time),
        )
        outcomes = {outcome.name: outcome for outcome in map(_outcome, result.results)}
        return [outcomes[expectation.name] for expectation in expectations]

    def keep_docs(self) -> None:
        """Write the pages and put them in the place of the day's earlier ones; one process at a time."""
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        with one_writer(self._kept.parent):
            shutil.rmtree(self._written, ignore_errors=True)
            self._context.build_data_docs(site_names=[SITE])
            for animation in (self._written / "static" / "images").glob("*.gif"):
                animation.unlink()  # 3 MB a day of a tutorial that the pages do not show
            shutil.rmtree(self._kept, ignore_errors=True)
            self._written.rename(self._kept)


def _project(folder: Path) -> DataContextConfig:
    site = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "show_cta_footer": False},
    }
    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={SITE: site},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )


def _declare(expectation: Expectation, parameters: dict[str, Any]) -> gxe.Expectation:
    bounds = {
        name: parameters[value["$PARAMETER"]] if isinstance(value, dict) else value
        for name, value in expectation.kwargs.items()
    }
    told = ", ".join(f"{name} {value}" for name, value in bounds.items())
    return getattr(gxe, expectation.type)(
        severity=expectation.severity,
        description=f"{expectation.name}: {expectation.meaning} ({told})".replace("$", "$$"),
        meta={"name": expectation.name},
        **expectation.kwargs,
    )


def _outcome(result: ExpectationValidationResult) -> Outcome:
    config = result.expectation_config
    return Outcome(
        config.meta["name"],
        config.severity.value,
        bool(result.success),
        _observed(result.result),
        _error(result.exception_info),
    )


def _error(exception_info: dict[str, Any]) -> str | None:
    """Find what an expectation crashed with: flat, or one entry per metric that crashed."""
    entries = [exception_info] if "raised_exception" in exception_info else [*exception_info.values()]
    messages = {str(entry["exception_message"]) for entry in entries if entry["raised_exception"]}
    return " ".join("; ".join(sorted(messages)).split()) or None


def _observed(result: dict[str, Any]) -> str:
    if "unexpected_count" in result:
        examples = ", ".join(str(value) for value in result["partial_unexpected_list"][:N_SHOWN])
        return f"{result['unexpected_count']} of {result['element_count']} rows, e.g. {examples}"
    value = result.get("observed_value")
    return f"observed {', '.join(map(str, value)) or 'none' if isinstance(value, list) else value}"
