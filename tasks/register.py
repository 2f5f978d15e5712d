"""
Registration tasks: the day's facts and its staged release -> MLflow.

One parent run per day with a nested run per method, the release as one version of the registered model,
alias ``challenger`` if the gates passed, and ``champion`` where policy lets a run promote.
"""

import json
from dataclasses import dataclass, replace
from datetime import date

import pyarrow.compute as pc

from lakehouse import tables
from lakehouse.releases import remove_release
from lakehouse.store import Lakehouse
from tasks import policy, tracking
from tasks.code_version import code_version
from tasks.days import ONE_DAY, ingested, source_first_day, window
from tasks.gates import NO_COMPARISON, WARMING_UP, deciding_comparison
from tasks.publish_lock import LOCK_TIMEOUT_SECONDS, publish_lock
from tasks.records import PASSED, ChampionStatus, DayRecord, MethodRecord
from tasks.release import config_digest, shaping_settings
from tasks.report import collect_facts, made_with, render_report
from tasks.settings import PI2I, Settings
from tasks.train import read_losses

READ_TABLES = (tables.EXPOSURE, tables.CLICK, tables.INCREC_SAMPLE)


class NothingStaged(LookupError):
    """The day has no staged release to register."""


@dataclass(frozen=True)
class RegisterReport:
    """The day's run and version in MLflow, and which aliases moved, with the reason if champion did not."""

    verdict: str
    run_address: str
    version: str | None
    is_challenger: bool
    is_champion: bool
    reason: str


def register_release(
    day: date, settings: Settings, *, dag_run_id: str | None = None, is_backfill: bool = False
) -> RegisterReport:
    """
    Log the day, register its staged release with the verdict, and move the aliases that policy allows.

    A rerun that found the same adds neither a run nor a version, nor do two runs at once: one registers at a
    time. While warming up there is no release.

    Raises:
        MissingPartition: the day has no verdict.
        TrackingUnavailable: MLflow does not answer.
        PublishLocked: another run registers, and did so for too long.
        NothingStaged: there is no staged folder, and what build_release made is not registered either.
        ReleaseCorrupt: the staged folder is not what its manifest says.
    """
    lakehouse = Lakehouse(settings.lakehouse_root)
    verdict = lakehouse.require(tables.GATE, day).meta["verdict"]
    record = _read_record(lakehouse, day, verdict, settings, dag_run_id, is_backfill)
    record = replace(record, report=render_report(collect_facts(record, lakehouse, settings)))
    with publish_lock(settings.staged_root, LOCK_TIMEOUT_SECONDS):
        return _register(lakehouse, record, settings)


def _register(lakehouse: Lakehouse, record: DayRecord, settings: Settings) -> RegisterReport:
    day, verdict = record.day, record.verdict
    logged = tracking.log_day(record, settings)
    if verdict == WARMING_UP:
        return RegisterReport(verdict, logged.address, None, False, False, "warming up: no release yet")
    staged = settings.staged_root / day.isoformat()
    known = tracking.find_version(day, settings)
    is_known = known is not None and known["release_digest"] == _built_digest(lakehouse, day)
    if not staged.is_dir() and not is_known:
        raise NothingStaged(f"no staged release of {day} in {staged}; run build_release of that day first")
    if is_known and (verdict == NO_COMPARISON or not staged.is_dir()):
        # A rerun of a day that is champion already, or one whose first run ended before it could say so: what
        # the version was decided on stays on its page.
        remove_release(staged)
        reason = "the same release is registered already; its page is left as it was"
        return RegisterReport(verdict, logged.address, known["version"], False, False, reason)
    version = tracking.register_version(staged, record, logged.run_id, settings).version
    is_challenger = _move_challenger(day, version, verdict, settings)
    if verdict == PASSED:
        may, reason = policy.promote_automatically(version, day, record.is_backfill, settings)
    else:
        may, reason = False, f"the verdict is {verdict}"
    remove_release(staged)
    return RegisterReport(verdict, logged.address, version, is_challenger, may, reason)


def _built_digest(lakehouse: Lakehouse, day: date) -> str | None:
    return lakehouse.require(tables.METRIC, day, part="build_release").meta.get("release_digest")


def _move_challenger(day: date, version: str, verdict: str, settings: Settings) -> bool:
    """Make a version that passed the challenger, unless that is of a later day; tell whether it is."""
    challenger = tracking.challenger(settings)
    is_challenger = verdict == PASSED and (challenger is None or challenger.day <= day)
    if is_challenger:
        tracking.set_challenger(version, settings)
    return is_challenger


def _read_record(
    lakehouse: Lakehouse,
    day: date,
    verdict: str,
    settings: Settings,
    dag_run_id: str | None,
    is_backfill: bool,
) -> DayRecord:
    metrics = lakehouse.read(tables.METRIC, day, part="evaluate")
    names = pc.unique(metrics["method"]).to_pylist()
    methods = tuple(
        MethodRecord(
            name=name,
            params=_params(name, settings),
            metrics=metrics.filter(pc.field("method") == name),
            losses=read_losses(lakehouse, day, name) if name in settings.trained_methods else {},
        )
        for name in names
    )
    evaluated = lakehouse.require(tables.METRIC, day, part="evaluate").meta
    data_docs = settings.var / "data_docs" / day.isoformat() / "index.html"
    return DayRecord(
        day=day,
        verdict=verdict,
        gates=lakehouse.read(tables.GATE, day),
        methods=methods,
        code_version=code_version(),
        config_digest=config_digest(settings),
        data_digests=_data_digests(lakehouse, day, settings),
        dag_run_id=dag_run_id,
        is_backfill=is_backfill,
        data_docs=str(data_docs) if data_docs.exists() else None,
        params={
            "source": settings.source.preset,
            "window_days": settings.window_days,
            "swing": settings.swing.model_dump(mode="json"),
            "samples": settings.samples.model_dump(mode="json"),
            "channels": dict(settings.channels),
        },
        figures=_figures(lakehouse, day),
        champion=ChampionStatus(**json.loads(evaluated["champion"])),
        deciding=deciding_comparison(settings),
        made_with=made_with(shaping_settings(settings), settings.gates_file.read_text()),
    )


def _params(name: str, settings: Settings) -> dict[str, object]:
    """Give the hyperparameters of a trained method, nothing for any other row."""
    if name not in settings.trained_methods:
        return {}
    config = settings.pi2i if name == PI2I else settings.methods[name]
    return config.model_dump(mode="json")


def _data_digests(lakehouse: Lakehouse, day: date, settings: Settings) -> dict[str, str]:
    """Give the digests of the day's own tables, and of the samples of each day that was learned from."""
    first_day = source_first_day(ingested(lakehouse, day))
    digests = {table.name: lakehouse.require(table, day).digest for table in READ_TABLES}
    digests["i2i_table"] = lakehouse.require(tables.I2I_TABLE, day - ONE_DAY).digest
    for learned in window(day - ONE_DAY, settings.window_days, first_day):
        for table in (tables.INCREC_SAMPLE, *([tables.PI2I_SAMPLE] if settings.pi2i else [])):
            digests[f"{table.name}/{learned}"] = lakehouse.require(table, learned).digest
    return digests


def _figures(lakehouse: Lakehouse, day: date) -> dict[str, float]:
    """Give the staged release's figures and the rows of the day's tables."""
    figures = {f"rows_{table.name}": float(lakehouse.require(table, day).n_rows) for table in READ_TABLES}
    if lakehouse.commit(tables.METRIC, day, part="build_release"):
        rows = lakehouse.read(tables.METRIC, day, part="build_release").to_pylist()
        figures |= {f"release_{row['metric']}": row["value"] for row in rows if row["value"] is not None}
    return figures
