"""Wire MNR's daily batch, and a look at its streaming job."""

from datetime import date, timedelta

import pendulum
from airflow.sdk import (
    Asset,
    BaseSensorOperator,
    Context,
    CronDataIntervalTimetable,
    CronTriggerTimetable,
    dag,
    task,
)

from dags.alerts import run_failed
from dags.steps import DAY_PARAM, RETRY_WHAT_A_RETRY_CAN_MEND, report, resolve, step
from lakehouse.sources import timezone_of
from tasks.settings import load_settings

SETTINGS = load_settings()
TIMEZONE = timezone_of(SETTINGS.source)
LONGEST_RUN = timedelta(hours=12)


class WaitForLogs(BaseSensorOperator):
    """Wait until ``daily_cycle`` has ingested the day's logs."""

    template_fields = ("day",)

    def __init__(self, *, day: str, **options):
        """Wait for the logs of ``day``; ``options`` are those of a sensor."""
        super().__init__(**options)
        self.day = day

    def poke(self, context: Context) -> bool:
        """Tell whether the logs are there."""
        from tasks import nearline_rankings

        with step():
            return nearline_rankings.has_logs(date.fromisoformat(self.day), load_settings())


@task(outlets=[Asset(name="mnr_candidates", uri="tributary://lakehouse/mnr_candidates")])
def rebuild_mnr_candidates(day: str) -> None:
    """Score the window's rankings into each user's candidates as of the end of the day."""
    from tasks import nearline_rankings

    with step():
        report(nearline_rankings.rebuild_mnr_candidates(date.fromisoformat(day), load_settings()))


@task
def load_mnr_candidates(day: str) -> None:
    """Write them to the online store, where the newer of two writes stays."""
    from tasks import nearline_rankings

    with step():
        report(nearline_rankings.load_mnr_candidates(date.fromisoformat(day), load_settings()))


@task
def check_streaming_job() -> None:
    """Ask Flink whether the streaming job runs, keeps up and checkpoints; nothing where there is none."""
    from tasks import streaming

    with step():
        report(streaming.check_streaming_job(load_settings()))


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone=TIMEZONE),
    start_date=pendulum.datetime(2022, 4, 1, tz=TIMEZONE),
    catchup=False,
    max_active_runs=1,
    params={"day": DAY_PARAM},
    default_args=RETRY_WHAT_A_RETRY_CAN_MEND,
    dagrun_timeout=LONGEST_RUN,
    on_failure_callback=run_failed,
    tags=["nearline"],
    doc_md="""
### Other scenarios' rankings, once a day

MNR's batch: the rankings of the window that ends on day D, scored as the streaming job scores them, become
`mnr_candidates` of D and lists `mnr@<scenario>` of the online store. It waits until `daily_cycle` has
ingested D. A write never replaces a newer one of the streaming job; lists older than the window leave the
store. Safe to rerun, for any day whose logs are there.
""",
)
def nearline_rankings():
    """Score and load a day's rankings."""
    day = resolve()
    (
        WaitForLogs(
            task_id="wait_for_logs",
            day=day,
            mode="reschedule",
            poke_interval=timedelta(minutes=1),
            timeout=LONGEST_RUN,
        )
        >> rebuild_mnr_candidates(day)
        >> load_mnr_candidates(day)
    )


@dag(
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC") if SETTINGS.mnr_daily.flink_url else None,
    start_date=pendulum.datetime(2022, 4, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=RETRY_WHAT_A_RETRY_CAN_MEND,
    dagrun_timeout=timedelta(minutes=15),
    on_failure_callback=run_failed,
    tags=["nearline"],
    doc_md="""
### Is the streaming job well?

Every five minutes, where `mnr_daily.flink_url` is set: the job runs, its results are not more than
`mnr_daily.max_lag_seconds` behind, checkpoints complete. Its counters and how fresh the store is are in the
task's log. What is wrong is told in one line, to the log and to the webhook of the settings.
""",
)
def watch_streaming_job():
    """Look after MNR's streaming job."""
    check_streaming_job()


nearline_rankings()
watch_streaming_job()
