"""Wire publishing: make the served release equal to the alias ``champion``."""

from datetime import timedelta

import pendulum
from airflow.sdk import CronTriggerTimetable, dag, task

from dags.alerts import publishing_failed
from dags.steps import RETRY_WHAT_A_RETRY_CAN_MEND, report, step
from tasks.settings import load_settings


@dag(
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC"),
    start_date=pendulum.datetime(2022, 4, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    default_args=RETRY_WHAT_A_RETRY_CAN_MEND,
    dagrun_timeout=timedelta(hours=1),
    on_failure_callback=publishing_failed,
    tags=["serving"],
    doc_md="""
### Publish the champion

Every five minutes: if the alias `champion` of the registered model `retrieval` names another version than the
served one, verify it, load the online store, flip the pointer and write the promotion log. Nothing to do when
they are equal. **Rollback is moving the alias back** (`make rollback`). A failed publish leaves the old
release serving.

A champion that did not pass its gates and was not forced, or whose artifacts are gone, is refused: the run
fails once, with the cause; after that the log warns, until the alias moves or the cause changes. A store or
an MLflow that is away is tried again.
""",
)
def publish_release():
    """Publish the champion if it is not served yet."""

    @task
    def publish() -> None:
        """Make the world equal to the alias."""
        from tasks import scheduled_publish

        with step():
            report(scheduled_publish.publish_on_schedule(load_settings()))

    publish()


publish_release()
