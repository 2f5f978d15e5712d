"""The Swing index on Spark gives the rows of one machine, whole or cut, with any option."""

import numpy as np
import pyarrow as pa
import pytest

from models.swing import I2I_SCHEMA, BadClicks, BudgetTooSmall, SwingConfig, build_i2i_table
from models.swing.on_spark import iter_i2i_blocks_on_spark
from tests.models.swing.click_logs import click_table, nearly_full_clicks, random_clicks

WHOLE, CUT = 1 << 40, 0


def on_spark(clicks: pa.Table, config: SwingConfig, spark, broadcast_bytes: int):
    blocks = iter_i2i_blocks_on_spark(clicks, config, spark, broadcast_bytes=broadcast_bytes)
    return pa.Table.from_batches(list(blocks), I2I_SCHEMA), blocks.report


@pytest.mark.parametrize("broadcast_bytes", [WHOLE, CUT], ids=["whole", "cut"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"truncation": 7, "alpha": 0.5, "user_weight": "none"},
        {"max_users_per_item": 9, "max_items_per_user": 6, "seed": 3},
        {"include_self_pairs": True},
    ],
    ids=["default", "truncated", "capped", "self pairs"],
)
def test_rows_are_those_of_one_machine(options: dict, broadcast_bytes: int, spark) -> None:
    clicks = click_table(random_clicks(np.random.default_rng(1), n=3000))
    config = SwingConfig(**options)
    expected, told = build_i2i_table(clicks, config)
    found, report = on_spark(clicks, config, spark, broadcast_bytes)
    assert expected.num_rows > 700
    assert found.equals(expected)
    same = (
        "n_clicks",
        "n_users",
        "n_items",
        "n_triggers",
        "n_rows",
        "n_items_capped",
        "share_clicks_dropped",
    )
    assert {name: getattr(report, name) for name in same} == {name: getattr(told, name) for name in same}


@pytest.mark.parametrize("broadcast_bytes", [WHOLE, CUT], ids=["whole", "cut"])
def test_nearly_full_matrix_gives_the_rows_of_one_machine(broadcast_bytes: int, spark) -> None:
    clicks = click_table(nearly_full_clicks(np.random.default_rng(2)))
    found, report = on_spark(clicks, SwingConfig(), spark, broadcast_bytes)
    assert found.equals(build_i2i_table(clicks, SwingConfig())[0])
    assert report.path == "complement, whole index on Spark"


def test_a_second_index_in_the_same_workers_is_scored_by_itself(spark) -> None:
    for seed in (3, 4):
        clicks = click_table(random_clicks(np.random.default_rng(seed), n=800))
        assert on_spark(clicks, SwingConfig(), spark, WHOLE)[0].equals(
            build_i2i_table(clicks, SwingConfig())[0]
        )


def test_waves_come_in_the_order_of_one_machine(spark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.swing.on_spark.ROWS_PER_WAVE", 500)
    clicks = click_table(random_clicks(np.random.default_rng(5), n=3000))
    blocks = iter_i2i_blocks_on_spark(clicks, SwingConfig(), spark, broadcast_bytes=WHOLE)
    assert len(blocks._waves()) > 3
    assert pa.Table.from_batches(list(blocks), I2I_SCHEMA).equals(build_i2i_table(clicks, SwingConfig())[0])


def test_no_clicks_give_no_rows(spark) -> None:
    for broadcast_bytes in (WHOLE, CUT):
        found, report = on_spark(click_table([]), SwingConfig(), spark, broadcast_bytes)
        assert found.num_rows == report.n_rows == report.n_clicks == 0


def test_what_cannot_be_built_is_refused_before_the_first_block(spark) -> None:
    with pytest.raises(BadClicks, match="no column item_id"):
        on_spark(click_table([]).drop(["item_id"]), SwingConfig(), spark, WHOLE)
    clicks = click_table(random_clicks(np.random.default_rng(6), n=800))
    with pytest.raises(BudgetTooSmall):
        on_spark(clicks, SwingConfig(memory_budget_gib=0.001), spark, WHOLE)
