"""Every way of computing the scores gives the formula's, and blocks of triggers give the whole table."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.swing import (
    BadClicks,
    ClickIndex,
    SwingConfig,
    block_rows,
    build_i2i_table,
    index_clicks,
    iter_i2i_blocks,
    plan_blocks,
)
from models.swing import build as build_module
from models.swing import table as table_module
from models.swing.clicks import COLUMNS
from tests.models.swing.click_logs import (
    assert_table_is,
    brute_force,
    click_table,
    nearly_full_clicks,
    random_clicks,
)

PATHS = ("walk", "pairs")


def table_by(path, rows, config, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(build_module, "path_of_table", lambda index, config: path)
        table, report = build_i2i_table(click_table(rows), config)
    assert report.path == path
    return table.combine_chunks()


def test_the_path_follows_from_the_clicks():
    generator = np.random.default_rng(0)
    thin = [(user, int(item), 0) for user in range(2000) for item in generator.integers(0, 900, 2)]
    assert build_i2i_table(click_table(thin), SwingConfig())[1].path == "walk"
    dense = click_table(random_clicks(generator))
    assert build_i2i_table(dense, SwingConfig())[1].path == "pairs"
    assert build_i2i_table(dense, SwingConfig(max_users_per_item=5))[1].path == "walk"
    assert build_i2i_table(dense, SwingConfig(include_self_pairs=True))[1].path == "walk"
    full = click_table(nearly_full_clicks(generator))
    assert build_i2i_table(full, SwingConfig())[1].path == "complement"
    assert build_i2i_table(full, SwingConfig(max_users_per_item=5))[1].path == "walk"


@pytest.mark.parametrize("user_weight", ["inverse_sqrt", "none"])
@pytest.mark.parametrize("path", PATHS)
def test_each_path_equals_brute_force(path, user_weight, monkeypatch):
    rows = random_clicks(np.random.default_rng(1), n=900, n_users=60, n_items=40)
    config = SwingConfig(alpha=0.7, user_weight=user_weight, max_items_per_user=12, truncation=20)
    assert_table_is(table_by(path, rows, config, monkeypatch), brute_force(rows, config), 20)


@pytest.mark.parametrize("seed", range(5))
def test_walk_and_pairs_give_the_same_bytes(seed, monkeypatch):
    rows = random_clicks(np.random.default_rng(seed))
    config = SwingConfig(truncation=40)
    walk, pairs = (table_by(path, rows, config, monkeypatch) for path in PATHS)
    assert walk.equals(pairs)


@pytest.mark.parametrize("cells_at_once", [1, 40, 1000])
def test_pairs_of_items_a_span_at_a_time_give_the_same_bytes(cells_at_once, monkeypatch):
    rows, config = random_clicks(np.random.default_rng(5)), SwingConfig()
    expected = table_by("pairs", rows, config, monkeypatch)
    monkeypatch.setattr(table_module, "CELLS_AT_ONCE", cells_at_once)
    n_spans, spans = [], table_module._spans
    monkeypatch.setattr(
        table_module, "_spans", lambda cells: n_spans.append(len(list(spans(cells)))) or spans(cells)
    )
    assert table_by("pairs", rows, config, monkeypatch).equals(expected)
    assert n_spans[0] > 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), share=st.floats(0, 0.15), weight=st.sampled_from(["inverse_sqrt", "none"]))
def test_nearly_full_clicks_equal_brute_force(seed, share, weight):
    rows = nearly_full_clicks(np.random.default_rng(seed), n_users=24, n_items=16, share_missing=share)
    config = SwingConfig(user_weight=weight)
    table, report = build_i2i_table(click_table(rows), config)
    assert report.path == "complement"
    assert_table_is(table, brute_force(rows, config), config.truncation)


def test_an_item_that_everyone_clicked_and_a_user_who_clicked_everything_are_exact(monkeypatch):
    rows = random_clicks(np.random.default_rng(2), n=300, n_users=50, n_items=30)
    rows += [(user, 7, 0) for user in range(50)] + [(3, item, 0) for item in range(30)]
    for path in PATHS:
        table = table_by(path, rows, SwingConfig(), monkeypatch)
        assert_table_is(table, brute_force(rows, SwingConfig()), 1250)


def test_more_candidates_than_truncation_keeps_the_best(monkeypatch):
    generator = np.random.default_rng(6)
    rows = random_clicks(generator, n=20_000, n_users=200, n_items=1500)
    whole, _ = build_i2i_table(click_table(rows), SwingConfig(truncation=5000))
    for path in PATHS:
        for truncation in (1, 7, 100):
            cut = table_by(path, rows, SwingConfig(truncation=truncation), monkeypatch)
            assert cut.equals(whole.filter(pa.compute.field("rank") <= truncation).combine_chunks())


@pytest.mark.parametrize("n_blocks", [None, 1, 3, 50, 10_000])
@pytest.mark.parametrize("options", [{}, {"max_users_per_item": 9}, {"include_self_pairs": True}])
def test_blocks_of_triggers_give_the_table_byte_for_byte(n_blocks, options):
    clicks = click_table(random_clicks(np.random.default_rng(7)))
    config = SwingConfig(truncation=30, **options)
    expected, _ = build_i2i_table(clicks, config)
    index = pickle.loads(pickle.dumps(ClickIndex.from_arrays(index_clicks(clicks, config).arrays())))
    blocks = plan_blocks(index, config, n_blocks=n_blocks)
    assert [block.first for block in blocks] == [0, *[block.last for block in blocks[:-1]]]
    assert blocks[-1].last == index.n_items
    batches = [block_rows(index, block, config) for block in reversed(blocks)][::-1]
    assert pa.Table.from_batches(batches).combine_chunks().equals(expected.combine_chunks())


def test_clicks_in_chunks_give_the_same_table_and_report():
    clicks = click_table(random_clicks(np.random.default_rng(8)))
    expected, report = build_i2i_table(clicks, SwingConfig())
    batches = clicks.to_batches(max_chunksize=17)
    for chunks in (batches, iter(batches), pa.RecordBatchReader.from_batches(clicks.schema, batches)):
        blocks = iter_i2i_blocks(chunks, SwingConfig())
        table = pa.Table.from_batches(list(blocks), blocks.schema)
        assert table.combine_chunks().equals(expected.combine_chunks())
        assert {**vars(blocks.report), "seconds": 0} == {**vars(report), "seconds": 0}


def test_the_report_is_there_once_the_blocks_were_read_and_they_are_read_once():
    blocks = iter_i2i_blocks(click_table(random_clicks(np.random.default_rng(9))), SwingConfig())
    with pytest.raises(RuntimeError, match="once all its blocks were read"):
        _ = blocks.report
    assert sum(batch.num_rows for batch in blocks) == blocks.report.n_rows
    with pytest.raises(RuntimeError, match="read once"):
        next(iter(blocks))


def test_ids_at_the_ends_of_int64_and_repeated_clicks_change_nothing():
    rows = random_clicks(np.random.default_rng(10), n=400, n_users=40, n_items=20)
    ends = [-(2**63), 2**63 - 1, 0, -1]
    far = [ends[i] if i < len(ends) else 2**62 + i for i in range(60)]
    plain, _ = build_i2i_table(click_table(rows), SwingConfig())
    repeated = [(far[user], far[item], time) for user, item, time in rows * 3]
    table, report = build_i2i_table(click_table(repeated), SwingConfig())
    assert (report.n_clicks, report.n_distinct_clicks) == (1200, len({row[:2] for row in rows}))
    expected = {
        (far[row["trigger_item_id"]], far[row["target_item_id"]]): row["score"] for row in plain.to_pylist()
    }
    found = {(row["trigger_item_id"], row["target_item_id"]): row["score"] for row in table.to_pylist()}
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(score, rel=1e-11) for pair, score in expected.items())


@pytest.mark.parametrize(
    "rows", [[(1, 5, 0)], [(1, item, 0) for item in range(9)], [(u, 5, 0) for u in range(9)]]
)
def test_one_click_one_user_and_one_item_give_no_targets(rows):
    table, report = build_i2i_table(click_table(rows), SwingConfig())
    assert (table.num_rows, report.n_triggers, report.n_items) == (0, 0, len({row[1] for row in rows}))


@pytest.mark.parametrize("kind", [pa.string(), pa.float64(), pa.bool_(), pa.date32(), pa.list_(pa.int64())])
def test_ids_that_are_no_integers_are_refused(kind):
    clicks = pa.table({"user_id": pa.nulls(0, kind), "item_id": pa.array([], pa.int64())})
    clicks = clicks.append_column("event_time", pa.array([], pa.int64()))
    with pytest.raises(BadClicks, match=r"user_id of type .* no integer"):
        build_i2i_table(clicks, SwingConfig())


def test_ids_beyond_int64_are_refused():
    too_large = pa.table({"user_id": pa.array([2**63], pa.uint64()), "item_id": [1], "event_time": [0]})
    with pytest.raises(BadClicks, match="user_id that is no int64"):
        build_i2i_table(too_large, SwingConfig())


def test_chunks_of_other_types_and_repeated_columns_are_refused():
    column = pa.array([1], pa.int64())
    times = [column.cast(pa.timestamp(unit)) for unit in ("us", "s")]
    chunks = [pa.record_batch([column, column, time], list(COLUMNS)) for time in times]
    with pytest.raises(BadClicks, match="differ in their types"):
        build_i2i_table(iter(chunks), SwingConfig(max_items_per_user=2))
    twice = pa.table([column] * 4, [*COLUMNS, "item_id"])
    with pytest.raises(BadClicks, match="more than one column item_id"):
        build_i2i_table(twice, SwingConfig())


def test_one_record_batch_is_a_table_too():
    clicks = click_table(random_clicks(np.random.default_rng(8)))
    (batch,) = clicks.combine_chunks().to_batches()
    assert build_i2i_table(batch, SwingConfig())[0].equals(build_i2i_table(clicks, SwingConfig())[0])
