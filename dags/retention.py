"""Wire retention: delete once a day what nothing needs any more."""

from datetime import timedelta

import pendulum
from airflow.sdk import CronTriggerTimetable, Param, dag, get_current_context, task

from dags.alerts import run_failed
from dags.steps import RETRY_WHAT_A_RETRY_CAN_MEND, report, step
from tasks.settings import load_settings


@dag(
    schedule=CronTriggerTimetable("0 12 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2022, 4, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    params={"dry_run": Param(False, type="boolean", description="Only tell what would be deleted.")},
    default_args=RETRY_WHAT_A_RETRY_CAN_MEND,
    dagrun_timeout=timedelta(hours=2),
    on_failure_callback=run_failed,
    tags=["housekeeping"],
    doc_md="""
### Retention

Once a day, far from the nightly run: deletes superseded data files, old quarantine, data docs and staged
folders, local copies of releases and, where `release_days` is set, registered releases with the runs of
their days and all artifacts, by the limits in `[retention]` of the settings. Never what serves, what
rollbacks would serve, champion or challenger; nothing at all while MLflow is away. With the parameter
`dry_run` it only tells.
""",
)
def retention():
    """Delete what is past its limit."""

    @task
    def apply_retention() -> None:
        """Delete, or tell with dry_run, what nothing needs."""
        from tasks import retention

        with step():
            is_dry_run = bool(get_current_context()["params"]["dry_run"])
            report(retention.apply_retention(load_settings(), is_dry_run=is_dry_run))

    apply_retention()


retention()
