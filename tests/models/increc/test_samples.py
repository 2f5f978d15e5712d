from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from models.increc.features import MissingColumn
from models.increc.samples import NoSamples, read_samples
from models.increc.vocabulary import build_vocabulary

NO_USERS = pa.table({"user_id": pa.array([], pa.int64()), "profile": pa.array([], pa.list_(pa.string()))})


def read(tables, config, *columns, users=NO_USERS, **changes):
    item_table, sample_table = tables
    config = config.model_copy(update=changes)
    vocabulary = build_vocabulary(item_table([10, 20, 30, 40]), config)
    return read_samples(sample_table(*columns), users, vocabulary, config)


def test_ids_become_rows_and_the_newest_history_stays(tables, config):
    samples, _ = read(tables, config, [[10, 20, 30]], [[40]], [[]], [[10]], history_length=2)
    assert samples.history.values.tolist() == [2, 3]
    assert samples.rtg.values.tolist() == [4]
    assert samples.etg.values.tolist() == []


def test_empty_history_becomes_no_item(tables, config):
    samples, _ = read(tables, config, [[], [99]], [[40], [40]], [[], []], [[], []])
    assert samples.history.values.tolist() == [0, 0]


def test_unknown_targets_are_left_out_and_counted(tables, config):
    samples, n_unknown = read(tables, config, [[10], [10]], [[40, 98], [99]], [[], []], [[], []])
    assert (len(samples), n_unknown) == (1, 2)


@pytest.mark.parametrize(
    ("variant", "n_kept"), [("TB-Online", 2), ("TB-ITG", 1), ("IncRec-NA", 2), ("IncRec", 3)]
)
def test_samples_without_a_positive_of_the_variant_are_dropped(tables, config, variant, n_kept):
    columns = [[10]] * 3, [[20], [], []], [[], [20], []], [[], [], [30]]
    assert len(read(tables, config, *columns, variant=variant)[0]) == n_kept


def test_no_positive_at_all_is_no_samples(tables, config):
    with pytest.raises(NoSamples, match="none of 1 samples has a positive"):
        read(tables, config, [[10]], [[]], [[]], [[20]])
    with pytest.raises(NoSamples, match="none of 0 samples"):
        read(tables, config, [], [], [], [])


@pytest.mark.parametrize("variant", ["TB-ITG", "IncRec-NA", "IncRec"])
def test_serving_tower_without_any_incremental_target_is_no_samples(tables, config, variant):
    with pytest.raises(NoSamples, match=r"nothing to learn from"):
        read(tables, config, [[10]], [[20]], [[]], [[30]], variant=variant)


def test_profiles_are_joined_by_user(tables, config):
    users = pa.table({"user_id": pa.array([5, 1, 0]), "profile": pa.array([["a=1"], ["a=2", "b=3"], []])})
    columns = [[10]] * 3, [[20]] * 3, [[]] * 3, [[]] * 3
    samples, _ = read(tables, config, *columns, users=users)
    assert samples.profile.lengths.tolist() == [1, 2, 1]
    assert (samples.profile.values > 0).tolist() == [False, True, True, False]


def test_day_is_the_partition_where_there_is_one(tables, config):
    _, sample_table = tables
    samples = sample_table([[10]] * 3, [[20]] * 3, [[]] * 3, [[]] * 3)
    vocabulary = build_vocabulary(tables[0]([10, 20]), config)
    assert read_samples(samples, NO_USERS, vocabulary, config)[0].day.tolist() == [0, 0, 0]
    days = pa.array([date(2026, 1, 2), date(2026, 1, 1), date(2026, 1, 2)])
    samples = samples.append_column("ds", days)
    assert read_samples(samples, NO_USERS, vocabulary, config)[0].day.tolist() == [1, 0, 1]


def test_missing_column_is_named(tables, config):
    item_table, sample_table = tables
    samples = sample_table([[10]], [[20]], [[]], [[]]).drop_columns("itg_item_ids")
    with pytest.raises(MissingColumn, match="sample table lacks column itg_item_ids"):
        read_samples(samples, NO_USERS, build_vocabulary(item_table([10]), config), config)


def test_taking_samples_keeps_their_groups_together(tables, config):
    samples, _ = read(tables, config, [[10], [20]], [[30], [40]], [[], [10]], [[], []])
    taken = samples.take(np.array([1]))
    assert [part.values.tolist() for part in (taken.history, taken.rtg, taken.itg)] == [[2], [4], [1]]
