"""What may be compared, and what is refused in one line before anything is trained."""

import math
from datetime import date, timedelta

import pyarrow as pa
import pytest

from lakehouse import tables
from lakehouse.store import Lakehouse
from models.increc import backbones
from tasks.comparison_plan import VARIANTS, BadComparison, Plan, Unit, config_of, make_plan, plan_of
from tasks.settings import Settings
from tests.tasks.small_worlds import world_settings

FIRST = date(2026, 1, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(5)]
N_ITEMS, N_RETRIEVED, N_HISTORY = 104, 20, 4


def one_row(table: tables.Table, **given: object) -> pa.Table:
    """Give one row of a table: lists are empty, times the first day, other columns 1, unless given."""
    values = {
        field.name: [] if pa.types.is_list(field.type) else FIRST if pa.types.is_timestamp(field.type) else 1
        for field in table.schema
    }
    row = {name: [value] for name, value in (values | given).items()}
    return pa.table({f.name: pa.array(row[f.name]).cast(f.type) for f in table.schema}, schema=table.schema)


@pytest.fixture
def settings(tmp_path) -> Settings:
    """Five prepared days, as far as a plan looks at them; the first has no samples."""
    settings = world_settings(tmp_path, window_days=3)
    lakehouse = Lakehouse(settings.lakehouse_root)
    ids = list(range(N_ITEMS))
    nothing, available = [None] * N_ITEMS, [True] * N_ITEMS
    items = pa.table([ids, *[nothing] * 4, available], schema=tables.ITEM_SNAPSHOT.schema)
    target_group = one_row(tables.TARGET_GROUP, retrieved_item_ids=ids[:N_RETRIEVED])
    history = one_row(tables.USER_HISTORY, item_ids=ids[:N_HISTORY])
    for day in DAYS:
        lakehouse.replace(tables.USER_HISTORY, day, history)
        lakehouse.replace(tables.ITEM_SNAPSHOT, day, items)
        lakehouse.replace(tables.TARGET_GROUP, day, target_group)
        lakehouse.replace(tables.INCREC_SAMPLE, day, one_row(tables.INCREC_SAMPLE).slice(0, int(day > FIRST)))
    return settings


def test_the_window_is_the_last_days_that_a_daily_training_sees_and_the_day_measured(settings):
    plan = make_plan(settings)
    assert (plan.training_days, plan.evaluated_days) == (DAYS[1:4], DAYS[4:])
    assert plan.methods == VARIANTS
    assert plan.backbones == backbones.names()
    assert plan.ks == settings.evaluation.ks


def test_the_window_may_be_named_and_several_days_measured(settings):
    plan = make_plan(settings, first_day=DAYS[0], last_day=DAYS[3], n_evaluated=2)
    assert (plan.training_days, plan.evaluated_days) == (DAYS[:2], DAYS[2:4])
    assert make_plan(settings, n_days=2).training_days == DAYS[3:4]
    assert make_plan(settings, n_days=40).training_days == DAYS[:4]


def test_tb_online_is_always_trained_and_every_seed_has_another_base(settings):
    plan = make_plan(settings, methods=["IncRec"], backbones=["dssm"], seeds=[4, 7])
    assert plan.methods == ("TB-Online", "IncRec")
    named = [Unit(method, "dssm", seed) for seed in (4, 7) for method in plan.methods]
    assert plan.units == tuple(named)
    assert [plan.other_seed(seed) for seed in (4, 7)] == [7, 4]
    single = make_plan(settings, methods=["IncRec"], backbones=["dssm"], seeds=[4])
    assert single.units == (*named[:2], Unit("TB-Online", "dssm", 5))


def test_a_papers_method_has_the_hyperparameters_of_the_base_and_one_of_the_settings_its_own(settings):
    methods = dict(settings.methods)
    changes = {"dim": 8, "variant": "IncRec-NA", "seed": 9, "start": "carry_on", "filter_retrieved": True}
    methods["tuned"] = methods["base"].model_copy(update=changes)
    settings = settings.model_copy(update={"methods": methods})
    for variant in VARIANTS:
        config = config_of(Unit(variant, "dssm", 3), settings)
        assert (config.variant, config.backbone, config.seed) == (variant, "dssm", 3)
        assert config.dim == settings.methods["base"].dim
    tuned = config_of(Unit("tuned", "dssm", 3), settings)
    assert (tuned.variant, tuned.dim, tuned.seed) == ("IncRec-NA", 8, 3)
    assert (tuned.start, tuned.filter_retrieved) == ("scratch", False)
    assert make_plan(settings, methods=["tuned"]).methods == ("TB-Online", "tuned")


def test_a_plan_travels_as_plain_values(settings):
    plan = make_plan(settings, seeds=[3, 1])
    assert Plan.from_json(plan.to_json()) == plan
    unset = dict.fromkeys(("from_day", "to_day", "last_days", "methods", "backbones", "seeds", "ks"))
    assert plan_of(unset | {"evaluated_days": 1}, settings) == make_plan(settings)
    days = {"from_day": "2026-01-02", "to_day": "2026-01-04"}
    asked = plan_of(unset | days | {"methods": ["IncRec"], "ks": [5]}, settings)
    assert (asked.first_day, asked.last_day, asked.ks) == (DAYS[1], DAYS[3], (5,))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"methods": ["IncRec", "MagicRec"]}, "unknown method MagicRec; known: TB-Online, TB-ITG, TB-boost"),
        ({"methods": []}, "name at least one method; known: TB-Online"),
        ({"methods": ["IncRec", "IncRec"]}, "method IncRec is given twice"),
        ({"backbones": ["resnet"]}, "unknown backbone resnet; known: "),
        ({"seeds": []}, "give at least one seed"),
        ({"seeds": [-1]}, "seed -1 must be from 0"),
        ({"seeds": [2**32]}, "seed 4294967296 must be from 0"),
        ({"seeds": [1, 1]}, "seed 1 is given twice in 1, 1"),
        ({"ks": [0]}, "K 0 must be from 1"),
        ({"ks": [10, 5]}, "the K must ascend, not 10, 5"),
        (
            {"ks": [5, 41]},
            "K = 41 is too large: Base@K, Sup@K, R_u and a history (24) need 106 items, and 104 are",
        ),
        ({"n_evaluated": 0}, "EVALUATED=0 must be at least 1"),
        ({"n_days": 1}, "has 1 of the 2 days that are needed: at least 1 to learn from and 1 to measure on"),
        ({"n_days": 0}, "has 0 of the 2 days that are needed"),
        ({"n_days": 2, "n_evaluated": 2}, "has 2 of the 3 days that are needed"),
        ({"first_day": DAYS[3], "last_day": DAYS[3]}, "has 1 of the 2 days that are needed"),
        ({"first_day": DAYS[3], "last_day": DAYS[2]}, "FROM=2026-01-04 is after TO=2026-01-03"),
        ({"first_day": DAYS[3]}, "name the window by FROM= and TO=, or by LAST= days"),
        ({"first_day": DAYS[1], "last_day": DAYS[3], "n_days": 3}, "or by LAST= days"),
        (
            {"first_day": DAYS[3], "last_day": DAYS[4] + timedelta(days=2)},
            "2026-01-06, 2026-01-07 not prepared",
        ),
        ({"first_day": DAYS[0], "last_day": DAYS[1]}, "2026-01-01 .. 2026-01-01 have no training samples"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line(settings, asked, message):
    with pytest.raises(BadComparison) as refused:
        make_plan(settings, **asked)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_hyperparameters_that_do_not_fit_a_backbone_are_told_in_one_line_before_training(settings):
    methods = settings.methods | {
        "base": settings.methods["base"].model_copy(update={"dim": 9, "n_heads": 2})
    }
    settings = settings.model_copy(update={"methods": methods})
    assert make_plan(settings, backbones=["dssm"]).backbones == ("dssm",)
    with pytest.raises(
        BadComparison, match=r"^TB-Online over sasrec: sasrec cuts dim into n_heads"
    ) as refused:
        make_plan(settings, backbones=["dssm", "sasrec"])
    assert "\n" not in str(refused.value)


def test_the_largest_k_that_is_told_is_taken(settings):
    assert make_plan(settings, ks=[math.floor((N_ITEMS - N_RETRIEVED - N_HISTORY) / 2)]).ks == (40,)


def test_days_to_run_are_named(settings):
    asked = {"first_day": DAYS[3], "last_day": DAYS[4] + timedelta(days=1)}
    with pytest.raises(BadComparison, match="run `make run FROM=2026-01-06 TO=2026-01-06` first"):
        make_plan(settings, **asked)


def test_a_state_folder_without_days_says_what_to_run(tmp_path):
    with pytest.raises(BadComparison, match=r"no day is prepared below .*: run `make run` first"):
        make_plan(world_settings(tmp_path))
