"""Wire one day: logs -> tables -> samples -> models -> metrics -> release."""

import sys
from datetime import date, timedelta

import pendulum
from airflow.sdk import (
    Asset,
    BaseSensorOperator,
    Context,
    CronDataIntervalTimetable,
    DeadlineAlert,
    DeadlineReference,
    SyncCallback,
    dag,
    get_current_context,
    task,
)

from dags.alerts import after_logical_date, run_failed, run_is_late
from dags.steps import DAY_PARAM, RETRY_WHAT_A_RETRY_CAN_MEND, report, resolve, run_type, step
from dags.turn import WAIT, is_turn_of
from lakehouse.sources import timezone_of
from tasks.settings import load_settings

SETTINGS = load_settings()
TIMEZONE = timezone_of(SETTINGS.source)
LONGEST_RUN = timedelta(hours=12)
# Not from when the run was queued: Airflow 3.3.2 cannot clear a run with such a deadline (TypeError).
LATE = DeadlineAlert(
    name="daily run",
    reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
    interval=after_logical_date(SETTINGS.alerts),
    callback=SyncCallback(run_is_late),
)
# `dags test` of Airflow 3.3.2 fails at the end of a run that has a deadline: it looks the alert up by its
# whole definition in place of its id.
IS_DAGS_TEST = sys.argv[1:3] == ["dags", "test"]


def table(name: str) -> Asset:
    """Name a table of the lakehouse, so that lineage shows in the UI."""
    return Asset(name=name, uri=f"tributary://lakehouse/{name}")


class WaitForTurn(BaseSensorOperator):
    """Wait for the days before and for the logs; refuse to start on top of a day that failed."""

    template_fields = ("day",)

    def __init__(self, *, day: str, **options):
        """Wait for the turn of ``day``; ``options`` are those of a sensor."""
        super().__init__(**options)
        self.day = day

    def poke(self, context: Context) -> bool:
        """Tell whether the day may start."""
        with step():
            return is_turn_of(_date(self.day), context, run_type(), load_settings())


@task(outlets=[table(name) for name in ("exposure", "ranking_log", "retrieval_log", "item", "user")])
def ingest_logs(day: str) -> None:
    """Read the day's logs from the source; refuse bad rows into quarantine."""
    from tasks import ingest

    with step():
        report(ingest.ingest_logs(_date(day), load_settings()))


@task
def validate_data(day: str) -> None:
    """Check the day's tables with Great Expectations; stop on a critical failure."""
    from tasks import validate

    with step():
        report(validate.validate_data(_date(day), load_settings()))


@task(outlets=[table("click"), table("user_history"), table("item_index")])
def build_histories(day: str) -> None:
    """Derive clicks, user histories and the dense item index."""
    from tasks import histories

    with step():
        report(histories.build_histories(_date(day), load_settings()))


@task(outlets=[table("i2i_table")])
def rebuild_swing_index(day: str) -> None:
    """Rebuild the Swing i2i table from the window's clicks."""
    from tasks import swing

    with step():
        report(swing.rebuild_swing_index(_date(day), load_settings()))


@task(outlets=[table(name) for name in ("target_group", "increc_sample", "pi2i_sample")])
def construct_samples(day: str) -> None:
    """Split each request's targets into RTG, ITG and ETG and make training samples, PI2I's of the clicks."""
    from tasks import samples

    with step():
        report(samples.construct_samples(_date(day), load_settings()))


@task
def list_methods() -> list[str]:
    """List the configured methods to train."""
    with step():
        return list(load_settings().trained_methods)


@task(max_active_tis_per_dagrun=1, map_index_template="{{ method_name }}")
def train(day: str, method: str) -> None:
    """Train one method on the window that ends the day before."""
    from tasks import train

    get_current_context()["method_name"] = method
    with step():
        report(train.train(_date(day), method, load_settings()))


@task(outlets=[table("metric")])
def evaluate(day: str) -> None:
    """Measure Hit@K and what is incremental on the day's behaviour, beside the champion."""
    from tasks import evaluate

    with step():
        report(evaluate.evaluate(_date(day), load_settings()))


@task
def build_release(day: str) -> None:
    """Stage the release as of the day, weights exactly as evaluated."""
    from tasks import release

    with step():
        report(release.build_release(_date(day), load_settings()))


@task(outlets=[table("gate")])
def check_gates(day: str) -> None:
    """Hold the day's figures against mlflow/gates.toml."""
    from tasks import gates

    with step():
        report(gates.check_gates(_date(day), load_settings()))


@task(outlets=[Asset(name="release", uri="tributary://release")])
def register_release(day: str) -> None:
    """Register the release in MLflow with its verdict; alias challenger, and champion by policy."""
    from tasks import register

    with step():
        report(
            register.register_release(
                _date(day),
                load_settings(),
                dag_run_id=get_current_context()["dag_run"].run_id,
                is_backfill=run_type() == "backfill",
            )
        )


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone=TIMEZONE),
    start_date=pendulum.datetime(2022, 4, 1, tz=TIMEZONE),
    catchup=False,
    max_active_runs=1,
    params={"day": DAY_PARAM},
    default_args=RETRY_WHAT_A_RETRY_CAN_MEND,
    dagrun_timeout=LONGEST_RUN,
    on_failure_callback=run_failed,
    deadline=None if IS_DAGS_TEST else LATE,
    tags=["daily"],
    doc_md="""
### One day of the retrieval stage

Turns the logs of day D into the next release: ingest, validate, histories, Swing index, samples, models,
evaluation, release, gates, registration in MLflow.

- **Which day**: scheduled and backfilled runs know theirs; a manual run needs the parameter `day`.
- **Safe to rerun**: every step replaces whole partitions; equal inputs give equal digests.
- **Order**: days run oldest first, one at a time. `wait_for_turn` waits while a run of another day is at work
  and for logs that are late; it fails where the day before failed or is not there, and names it. Mend that
  day and clear it, then clear this run.
- **Backfill**: `make backfill FROM= TO= [REPROCESS=failed|completed]`; it brings in the days before FROM
  first and never moves `champion`.
- **Alerts**: a failed run, and one not done in time, are told to the log and to the webhook of the settings.
  A run that was created after its deadline is not late: last night's, when this DAG is unpaused by day.
- **Bad data, a missing partition or a wrong setting fail at once**, in one line; only what a retry can mend
  is retried.
- **Review**: the registered model `retrieval` in MLflow; serving follows its alias `champion`, see
  `publish_release`.
""",
)
def daily_cycle():
    """Run steps 1-9 of a day."""
    day = resolve()
    trained = train.partial(day=day).expand(method=list_methods())
    (
        WaitForTurn(
            task_id=WAIT, day=day, mode="reschedule", poke_interval=timedelta(minutes=1), timeout=LONGEST_RUN
        )
        >> ingest_logs(day)
        >> validate_data(day)
        >> build_histories(day)
        >> rebuild_swing_index(day)
        >> construct_samples(day)
        >> trained
        >> evaluate(day)
        >> build_release(day)
        >> check_gates(day)
        >> register_release(day)
    )


def _date(day: str) -> date:
    return date.fromisoformat(day)


daily_cycle()
