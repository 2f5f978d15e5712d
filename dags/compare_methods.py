"""Wire a comparison of methods: plan -> train each method and seed -> measure -> the paper's tables."""

from datetime import timedelta

import pendulum
from airflow.sdk import Param, dag, get_current_context, task

from dags.alerts import run_failed
from dags.steps import RETRY_WHAT_A_RETRY_CAN_MEND, report, step
from tasks.settings import load_settings


def day_param(text: str) -> Param:
    """Describe a parameter that is a day or unset."""
    return Param(None, type=["null", "string"], format="date", description=text)


def number_param(text: str, default: int | None = None) -> Param:
    """Describe a parameter that is a whole number from 1 on, or unset."""
    return Param(
        default, type=["null", "integer"] if default is None else "integer", minimum=1, description=text
    )


def list_param(of: str, text: str) -> Param:
    """Describe a parameter that is a list, or unset."""
    return Param(None, type=["null", "array"], items={"type": of}, description=text)


PARAMS = {
    "from_day": day_param("First day of the window, with to_day."),
    "to_day": day_param("Last day of the window."),
    "last_days": number_param("Instead: so many days, up to the last that is prepared."),
    "evaluated_days": number_param("How many of the window's last days are measured.", 1),
    "methods": list_param("string", "Methods; unset, the paper's six."),
    "backbones": list_param("string", "Backbones; unset, all."),
    "seeds": list_param("integer", "Seeds; unset, 1, 2 and 3."),
    "ks": list_param("integer", "K of Base@K, Sup@K and Inc@K, ascending; unset, those of the settings."),
}


@task
def make_plan() -> dict:
    """Check what is to be compared and complete it."""
    from tasks.comparison_plan import plan_of

    with step():
        return plan_of(get_current_context()["params"], load_settings()).to_json()


@task
def list_trainings(plan: dict) -> list[list]:
    """List the trainings: method, backbone and seed."""
    from tasks.comparison_plan import Plan

    with step():
        return [[unit.method, unit.backbone, unit.seed] for unit in Plan.from_json(plan).units]


@task(max_active_tis_per_dagrun=1, map_index_template="{{ training }}")
def train(plan: dict, unit: list) -> None:
    """Train one method over one backbone with one seed, unless an equal training is kept."""
    from tasks.compare import train_unit
    from tasks.comparison_plan import Plan, Unit

    get_current_context()["training"] = str(Unit(*unit))
    with step():
        report(train_unit(Unit(*unit), Plan.from_json(plan), load_settings()))


@task
def list_groups(plan: dict) -> list[list]:
    """List what is measured together: backbone and seed."""
    from tasks.comparison_plan import Plan

    with step():
        read = Plan.from_json(plan)
        return [[backbone, seed] for backbone in read.backbones for seed in read.seeds]


@task(max_active_tis_per_dagrun=1, map_index_template="{{ group }}")
def measure(plan: dict, group: list) -> None:
    """Count the hits of all methods of one backbone and seed on the same users."""
    from tasks.compare import measure_group
    from tasks.comparison_plan import Plan

    backbone, seed = group
    get_current_context()["group"] = f"{backbone}, seed {seed}"
    with step():
        report(measure_group(backbone, seed, Plan.from_json(plan), load_settings()))


@task
def conclude(plan: dict) -> None:
    """Make the tables with their intervals, and log them with a nested run per training."""
    from tasks import compare
    from tasks.comparison_plan import Plan

    with step():
        kept = compare.conclude(Plan.from_json(plan), load_settings())
        report(f"tables: {kept.folder}, MLflow: {kept.address}")
        report("\n" + kept.comparison.markdown())


@dag(
    schedule=None,
    start_date=pendulum.datetime(2022, 4, 1, tz="UTC"),
    max_active_runs=1,
    is_paused_upon_creation=False,
    params=PARAMS,
    default_args=RETRY_WHAT_A_RETRY_CAN_MEND,
    dagrun_timeout=timedelta(days=7),
    on_failure_callback=run_failed,
    tags=["research"],
    doc_md="""
### Compare methods

Trains every method over every backbone with every seed on the first days of a window, measures all on the
same users of its last days, and ends in Tables 1-3 of IncRec with paired intervals: in MLflow, experiment
`compare_methods`, and below the state folder in `compare/`.

- **Days** must be prepared (steps 1-5 of `daily_cycle`); the run names those that are not.
- **Safe to rerun or to clear**: a training or a measurement with equal inputs is kept, not done again.
- The same without a scheduler: `make compare`.
""",
)
def compare_methods():
    """Plan, train, measure, conclude."""
    plan = make_plan()
    trained = train.partial(plan=plan).expand(unit=list_trainings(plan))
    measured = measure.partial(plan=plan).expand(group=list_groups(plan))
    trained >> measured >> conclude(plan)


compare_methods()
