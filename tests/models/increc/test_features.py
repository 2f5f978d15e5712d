import numpy as np
import pyarrow as pa
import pytest

from models.increc.config import IncRecConfig
from models.increc.features import (
    MissingColumn,
    field_sizes,
    gap_buckets,
    hash_buckets,
    price_buckets,
    profile_buckets,
    side_buckets,
    token_buckets,
)


def test_ids_hash_to_the_same_buckets_everywhere():
    buckets = hash_buckets(pa.chunked_array([pa.array([1, 2, -3, None], pa.int64())]), 1000)
    assert buckets.tolist() == [466, 111, 534, 0]


def test_null_has_its_own_bucket_and_zero_is_an_id():
    buckets = hash_buckets(pa.chunked_array([pa.array([None, 0], pa.int64())]), 7)
    assert buckets[0] == 0
    assert 1 <= buckets[1] <= 7


def test_buckets_are_used_evenly():
    buckets = hash_buckets(pa.chunked_array([pa.array(np.arange(10_000) * 64)]), 10)
    assert np.bincount(buckets, minlength=11)[1:].min() > 900


def test_prices_fall_between_powers_of_two():
    prices = pa.chunked_array([pa.array([0, 1, 2.9, 3, 1e9, None, -1, float("nan")], pa.float32())])
    assert price_buckets(prices, 8).tolist() == [1, 2, 2, 3, 8, 0, 0, 0]


def test_profile_tokens_hash_and_a_user_without_any_has_bucket_zero():
    profiles = profile_buckets(pa.array([["age=3", "city=9"], [], None, ["age=3"]]), 50)
    assert profiles.offsets.tolist() == [0, 2, 3, 4, 5]
    assert profiles.values.tolist() == [38, 10, 0, 0, 38]


def test_side_features_switch_on_by_their_buckets(tables):
    item_table, _ = tables
    items = item_table([1, 2], category_ids=[5, None])
    assert side_buckets(items, IncRecConfig(n_price_buckets=4)).shape == (2, 4)
    only_category = IncRecConfig(n_author_buckets=0, n_brand_buckets=0)
    assert (side_buckets(items, only_category)[:, 0] > 0).tolist() == [True, False]
    assert field_sizes(only_category) == [1025]


def test_missing_side_column_is_named(tables):
    item_table, _ = tables
    with pytest.raises(MissingColumn, match="item table lacks column author_id"):
        side_buckets(item_table([1]).drop_columns("author_id"), IncRecConfig())


def test_gaps_fall_between_powers_of_two_of_seconds():
    seconds = [0, 1, 2, 3, 6, 7, 1e8, -5]
    gaps = np.array([*(np.timedelta64(int(1e6 * each), "us") for each in seconds), np.timedelta64("NaT")])
    assert gap_buckets(gaps, 8).tolist() == [1, 2, 2, 3, 3, 4, 8, 1, 0]


def test_texts_hash_and_no_text_has_bucket_zero():
    buckets = token_buckets(pa.array(["home", "", None, "search", "home"]), 50)
    assert buckets[[1, 2]].tolist() == [0, 0]
    assert buckets[0] == buckets[4] != buckets[3]
    assert 1 <= buckets[[0, 3]].min() <= buckets.max() <= 50
    assert token_buckets(pa.array([], pa.string()), 50).tolist() == []
