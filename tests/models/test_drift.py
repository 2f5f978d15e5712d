"""Drift of inputs, embeddings and lists: by hand, and blind to what does not matter."""

from math import log

import numpy as np
import pytest

from models.drift import (
    distribution,
    list_overlap,
    mean_norm,
    neighbour_overlap,
    population_stability_index,
)


def test_psi_by_hand():
    # shares with half a row more: 30.5/101, 70.5/101 now; 50.5/101 each before
    p, q = np.array([30.5, 70.5]) / 101, np.array([50.5, 50.5]) / 101
    expected = (p[0] - q[0]) * log(p[0] / q[0]) + (p[1] - q[1]) * log(p[1] / q[1])
    assert population_stability_index(np.array([30, 70]), np.array([50, 50])) == pytest.approx(expected)


def test_psi_of_equal_shares_is_next_to_nothing_and_of_a_lost_value_finite():
    assert population_stability_index(np.array([40, 60]), np.array([400, 600])) < 1e-3
    assert population_stability_index(np.array([7, 3]), np.array([7, 3])) == 0
    lost = population_stability_index(np.array([1000, 0]), np.array([500, 500]))
    assert np.isfinite(lost)
    assert lost > 0.25


def test_psi_without_rows_is_undefined():
    assert np.isnan(population_stability_index(np.array([0, 0]), np.array([1, 2])))
    assert np.isnan(population_stability_index(np.array([], int), np.array([], int)))


def test_distribution_keeps_the_most_frequent_values_of_before():
    now, before = {"a": 5, "b": 1, "new": 4}, {"a": 2, "b": 6, "c": 6, "d": 1}
    found = distribution(now, before, n_values=3)
    assert found.values == ("b", "c", "a", "other")
    assert found.now.tolist() == [1, 0, 5, 4]
    assert found.before.tolist() == [6, 6, 2, 1]
    assert found.shares[0].tolist() == [0.1, 0.0, 0.5, 0.4]


def test_distribution_without_a_rest_has_no_other_and_may_be_empty():
    assert distribution({"a": 1}, {"a": 2}).values == ("a",)
    assert distribution({"a": 1, "b": 3}, {}).values == ("b", "a")
    assert distribution({}, {}).values == ()


def test_list_overlap_by_hand():
    lists = np.array([[1, 2, 3], [4, 5, -1], [-1, -1, -1], [7, -1, -1]])
    others = np.array([[3, 1, 9], [5, 4, -1], [-1, -1, -1], [7, 8, -1]])
    found = list_overlap(lists, others)
    assert found[[0, 1, 3]].tolist() == [2 / 3, 1.0, 0.5]
    assert np.isnan(found[2])


def points(n=60, d=6):
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


def test_neighbours_by_hand():
    # on a circle, degrees: neighbours of 0 are 10, of 10 are 0 or 25, ...; one point moves across
    def on_circle(*degrees):
        angles = np.radians(degrees)
        return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)

    before, now = on_circle(0, 10, 90, 95), on_circle(0, 10, 90, 12)
    # nearest before: 1, 0, 3, 2; now: 1, 3, 3, 1
    assert neighbour_overlap(now, before, k=1) == 0.5
    assert neighbour_overlap(now, before, k=10) == 1.0


def test_neighbours_do_not_see_rotation_reflection_or_scale():
    vectors = points()
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    moved = (3 * vectors @ rotation * [1, 1, 1, 1, 1, -1]).astype(np.float32)
    assert neighbour_overlap(vectors, moved) == 1.0


def test_neighbours_of_unrelated_spaces_are_equal_by_chance_only():
    others = np.random.default_rng(2).normal(size=(60, 9)).astype(np.float32)
    assert neighbour_overlap(points(), others) == pytest.approx(10 / 59, abs=0.06)


def test_the_sample_is_seeded():
    others = points() + np.random.default_rng(3).normal(size=(60, 6)).astype(np.float32)
    found = [neighbour_overlap(points(), others, n_sample=20, seed=seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_too_few_or_other_rows():
    assert np.isnan(neighbour_overlap(points(1), points(1)))
    assert np.isnan(neighbour_overlap(points(0), points(0)))
    with pytest.raises(ValueError, match="not the same rows"):
        neighbour_overlap(points(5), points(6))


def test_mean_norm():
    assert mean_norm(np.array([[3.0, 4.0], [0.0, 1.0]])) == 3.0
    assert np.isnan(mean_norm(np.empty((0, 2))))
