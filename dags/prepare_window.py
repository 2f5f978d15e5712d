"""Wire the start of a deployment: bring in the days before a first ``daily_cycle``."""

from datetime import date

import pendulum
from airflow.sdk import chain, dag, get_current_context, task

from dags.alerts import run_failed
from dags.steps import DAY_PARAM, RETRY_WHAT_A_RETRY_CAN_MEND, report, resolve_day, step
from tasks import prepare
from tasks.settings import load_settings


@dag(
    schedule=None,
    start_date=pendulum.datetime(2022, 4, 1, tz="UTC"),
    max_active_runs=1,
    is_paused_upon_creation=False,
    params={"day": DAY_PARAM},
    default_args=RETRY_WHAT_A_RETRY_CAN_MEND,
    on_failure_callback=run_failed,
    tags=["daily"],
    doc_md="""
### Before the first day

Runs steps 1-5 (ingest, validate, histories, Swing index, samples) for every day of the source before `day`
that is not there yet, oldest first. Run it once before a deployment's first
`daily_cycle`, or before a backfill that starts where no window exists. Safe to rerun: a day whose samples
are committed is left as it is.
""",
)
def prepare_window():
    """Bring in the days before ``day``."""

    @task
    def list_missing_days() -> list[str]:
        """List the days that have no samples yet, oldest first."""
        with step():
            day = resolve_day(get_current_context())
            return [d.isoformat() for d in prepare.list_missing_days(day, load_settings())]

    def each_day(name: str):
        """Make the task of one step."""

        @task(task_id=name)
        def run(days: list[str]) -> None:
            """Run this step for every missing day, oldest first."""
            with step():
                for day in days:
                    report(prepare.run_step(name, date.fromisoformat(day), load_settings()))

        return run

    days = list_missing_days()
    chain(*(each_day(name)(days) for name in prepare.STEPS))


prepare_window()
