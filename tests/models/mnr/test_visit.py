"""Which items of a ranking count, and what is left out."""

import numpy as np
import pytest

from models.mnr import Cleaning, MNRConfig, UnknownScenario, clean_ranking


def clean(items, categories=None, scores=None, scenario="search", **config):
    arrays = [None if column is None else np.array(column, dtype) for column, dtype in
              ((categories, np.int64), (scores, np.float64))]  # fmt: skip
    return clean_ranking(1, 0, scenario, np.array(items, np.int64), *arrays, MNRConfig(**config))


def test_repeated_item_keeps_its_best_rank():
    visit, cleaning = clean([5, 6, 5, 7, 6], [1, 2, 3, 4, 5])
    assert visit.item_ids.tolist() == [5, 6, 7]
    assert visit.category_ids.tolist() == [1, 2, 4]
    assert cleaning == Cleaning(0, 0, 2)


def test_item_without_a_finite_score_or_with_a_negative_id_is_left_out_and_counted():
    visit, cleaning = clean([5, 6, -4, 7, 8], None, [np.nan, 0.4, 0.3, np.inf, 0.1])
    assert visit.item_ids.tolist() == [6, 8]
    assert visit.category_ids.tolist() == [-1, -1]
    assert cleaning == Cleaning(n_unknown=1, n_bad_scores=2, n_repeated=0)


def test_item_with_a_bad_score_may_come_back_with_a_good_one():
    visit, cleaning = clean([5, 6, 5], None, [np.nan, 0.5, 0.4])
    assert visit.item_ids.tolist() == [6, 5]
    assert cleaning == Cleaning(0, 1, 0)


def test_order_of_the_log_is_trusted_whatever_the_scores():
    assert clean([5, 6, 7], None, [0.1, 0.9, 0.5])[0].item_ids.tolist() == [5, 6, 7]


def test_truncation_is_the_scenarios_and_counts_what_remains():
    ranked = [5, -1, 5, 6, 7, 8]
    assert clean(ranked, truncation={"shop": 2}, scenario="shop")[0].item_ids.tolist() == [5, 6]
    assert clean(ranked, truncation={"shop": 2}, default_truncation=3)[0].item_ids.tolist() == [5, 6, 7]


def test_unknown_scenario_is_refused_in_one_line_where_no_default_is_set():
    with pytest.raises(
        UnknownScenario, match=r"'video' has no truncation; name it in mnr\.truncation"
    ) as caught:
        clean([1], scenario="video", truncation={"shop": 2}, default_truncation=None)
    assert "\n" not in str(caught.value)
    assert clean([1], scenario="shop", truncation={"shop": 2}, default_truncation=None)[
        0
    ].item_ids.tolist() == [1]


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="a ranking of 2 items has 1 categories and 2 scores"):
        clean([1, 2], [1], [0.2, 0.1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", 0),
        ("alpha", -1.0),
        ("alpha", float("nan")),
        ("beta", 0),
        ("beta", float("inf")),
        ("k", 0),
        ("n_visits", 0),
        ("max_per_category", 0),
        ("truncation", {"search": 0}),
        ("default_truncation", 0),
        ("order", "best"),
        ("idle_seconds", 0),
        ("aplha", 1),
    ],
)
def test_wrong_hyperparameter_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        MNRConfig(**{name: value})
