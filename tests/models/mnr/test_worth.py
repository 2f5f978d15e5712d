"""Normalised hit rate, replay PVR and conversion: by hand, against a brute force, and their intervals."""

import numpy as np
import pyarrow as pa
import pytest

from models.mnr import worth
from models.mnr.worth import Lists, Requests, count, differences, figures, intervals, per_user

OPTIONS = {"seed": 1, "n_resamples": 200}


def lists_of(rows: list[list[int]]) -> pa.ListArray:
    return pa.array(rows, pa.list_(pa.int64()))


def requests(users, histories, targets, exposed, clicks=(), orders=()) -> Requests:
    """``clicks`` and ``orders`` are pairs (request, item) among the exposed."""
    flat = [(row, item) for row, items in enumerate(exposed) for item in items]
    is_click, is_order = (np.array([pair in of for pair in flat], bool) for of in (clicks, orders))
    columns = (lists_of(rows) for rows in (histories, targets, exposed))
    return Requests(np.array(users), *columns, is_click, is_order)


def pairs(*held: tuple[int, int]) -> Lists:
    columns = np.array(held, np.int64).reshape(-1, 2)
    return Lists(columns[:, 0], columns[:, 1])


def test_what_two_requests_were_worth_by_hand():
    given = requests(
        users=[7, 8],
        histories=[[1], []],
        targets=[[2, 3], [5]],
        exposed=[[2, 4, 9], [5, 6]],
        clicks=[(0, 2), (1, 5), (1, 6)],
        orders=[(0, 2)],
    )
    held = pairs((0, 1), (0, 2), (0, 2), (0, 4), (1, 6), (1, 7))
    #                retrieved, hits, held, its clicks, its orders, exposed, clicks, orders
    assert count(held, given).tolist() == [[2, 1, 2, 1, 1, 3, 1, 1], [2, 0, 1, 1, 0, 2, 2, 0]]
    sums = count(held, given).sum(axis=0)
    assert figures(sums) == pytest.approx([1 / 4, 3 / 5, (2 / 3) / (3 / 5) - 1, (1 / 3) / (1 / 5) - 1])


def test_a_channel_that_held_nothing_has_no_hit_rate_and_no_conversion():
    given = requests([7], [[]], [[1]], [[1, 2]], clicks=[(0, 1)])
    found = count(pairs(), given)
    assert found.tolist() == [[0, 0, 0, 0, 0, 2, 1, 0]]
    assert figures(found.sum(axis=0)) == pytest.approx([np.nan, 0, np.nan, np.nan], nan_ok=True)


def test_counts_agree_with_sets_on_random_requests():
    generator = np.random.default_rng(3)

    def some(n: int) -> list[int]:
        return generator.permutation(30)[: generator.integers(0, n)].tolist()

    n = 60
    histories, targets, exposed = ([some(8) for _ in range(n)] for _ in range(3))
    flat = [(row, item) for row, items in enumerate(exposed) for item in items]
    clicks = [pair for pair in flat if generator.random() < 0.4]
    given = requests(range(n), histories, targets, exposed, clicks, clicks[::2])
    held = [
        (int(row), int(item)) for row, item in zip(*generator.integers(0, (n, 40), (500, 2)).T, strict=True)
    ]
    found = count(pairs(*held), given)
    for row in range(n):
        mine = {item for of, item in held if of == row} - set(histories[row])
        shown = mine & set(exposed[row])
        clicked = {item for of, item in clicks if of == row}
        ordered = {item for of, item in clicks[::2] if of == row}
        expected = [len(mine), len(mine & set(targets[row])), len(shown), len(shown & clicked)]
        expected += [len(shown & ordered), len(exposed[row]), len(clicked), len(ordered)]
        assert found[row].tolist() == expected


def test_lists_of_a_matrix_follow_the_rows_of_requests():
    found = worth.lists_of_matrix(np.array([[4, -1], [5, 6]]), np.array([1, 0, 1]))
    assert list(zip(found.request.tolist(), found.item.tolist(), strict=True)) == [
        (0, 5), (0, 6), (1, 4), (2, 5), (2, 6)
    ]  # fmt: skip


def test_requests_of_a_user_add_up():
    counts = np.arange(3 * worth.N_COUNTS).reshape(3, -1)
    found = per_user(np.array([9, 4, 9]), counts)
    assert found.tolist() == [counts[1].tolist(), (counts[0] + counts[2]).tolist()]


def test_intervals_hold_the_figure_and_a_channel_does_not_differ_from_itself():
    generator = np.random.default_rng(2)
    counts = generator.integers(1, 9, (200, worth.N_COUNTS))
    for figure in intervals(counts, **OPTIONS).values():
        assert figure.low < figure.value < figure.high
        assert figure.n_users == 200
    for figure in differences(counts, counts.copy(), **OPTIONS).values():
        assert (figure.value, figure.low, figure.high) == (0, 0, 0)


def test_a_channel_that_hits_twice_as_often_differs_above_zero():
    generator = np.random.default_rng(2)
    counts = generator.integers(5, 9, (200, worth.N_COUNTS))
    better = counts.copy()
    better[:, worth.HITS] *= 2
    found = differences(better, counts, **OPTIONS)["hit_rate"]
    assert 0 < found.low < found.value < found.high


def test_one_user_has_figures_but_no_interval():
    found = intervals(np.ones((1, worth.N_COUNTS), np.int64), **OPTIONS)["hit_rate"]
    assert found.value == 1
    assert np.isnan(found.low)
