import faiss
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models.search
import models.search_kernel
from models.ragged import NotAligned
from models.search import BadVectors, build_index, exact_top_k, index_recall, index_top_k
from models.search_kernel import SAMPLED, Catalogue


def id_lists(lists):
    return pa.array(lists, pa.list_(pa.int64()))


def vectors(generator, *shape):
    return generator.normal(size=shape).astype(np.float32)


def brute_force(users, items, item_ids, k, exclude):
    """Whole numbers, so that every sum is exact."""
    rows = []
    for user, excluded in zip(users, exclude, strict=True):
        scores = np.max(np.atleast_2d(user) @ items.T, axis=0)
        ranked = sorted((-score, i) for score, i in zip(scores, item_ids, strict=True) if i not in excluded)
        best = [int(i) for _, i in ranked[:k]]
        rows.append(best + [-1] * (k - len(best)))
    return rows


def test_the_nearest_items_come_first_and_ties_by_item_id():
    items = np.array([[1, 0], [0, 1], [1, 0], [-1, 0]], np.float32)
    found = exact_top_k(np.array([[2, 1], [-1, 0]], np.float32), items, np.array([30, 20, 10, 40]), 3)
    assert found.dtype == np.int64
    assert found.tolist() == [[10, 30, 20], [40, 20, 10]]


def test_the_score_of_several_interests_is_their_maximum():
    users = np.array([[[1, 0], [0, 3]]], np.float32)
    items = np.array([[2, 0], [0, 1], [1, 1]], np.float32)
    assert exact_top_k(users, items, np.array([5, 6, 7]), 3).tolist() == [[6, 7, 5]]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 999),
    n=st.integers(0, 5),
    n_items=st.integers(0, 30),
    n_interests=st.sampled_from([None, 1, 3]),
    k=st.integers(1, 35),
    n_threads=st.sampled_from([1, 3]),
)
def test_search_equals_brute_force(seed, n, n_items, n_interests, k, n_threads):
    generator = np.random.default_rng(seed)
    shape = (n, 3) if n_interests is None else (n, n_interests, 3)
    users = generator.integers(-2, 3, shape).astype(np.float32)
    items = generator.integers(-2, 3, (n_items, 3)).astype(np.float32)
    item_ids = generator.permutation(100)[:n_items]
    exclude = [generator.choice(100, 20).tolist() for _ in range(n)]
    found = exact_top_k(users, items, item_ids, k, exclude=id_lists(exclude), n_threads=n_threads)
    assert found.tolist() == brute_force(users, items, item_ids, k, exclude)


@pytest.mark.parametrize("order", ["mixed", "rising", "falling"])
@pytest.mark.parametrize("k", [1, 40, 900, 2600])
def test_a_catalogue_of_several_tiles_with_ties_everywhere_equals_brute_force(order, k):
    generator = np.random.default_rng(6)
    n_items = 2500
    items = generator.integers(-1, 2, (n_items, 5)).astype(np.float32)  # 243 distinct vectors
    users = generator.integers(-2, 3, (9, 3, 5)).astype(np.float32)
    if order != "mixed":
        users = np.abs(users)
        items = items[np.argsort(items.sum(axis=1) * (1 if order == "rising" else -1), kind="stable")]
    exclude = [generator.choice(n_items + 50, 300).tolist() for _ in users]  # some twice, some no items
    exclude[4] = list(range(n_items - 3))
    item_ids = np.arange(n_items) if order != "mixed" else generator.permutation(n_items)
    found = exact_top_k(users, items, item_ids, k, exclude=id_lists(exclude), n_threads=2)
    assert found.tolist() == brute_force(users, items, item_ids, k, exclude)


@pytest.mark.parametrize("deviations", [5.0, -6.0])
def test_a_long_list_is_exact_whatever_floor_the_sample_tells(monkeypatch, deviations):
    generator = np.random.default_rng(7)
    n_items, k = 12_000, 2000
    items = generator.integers(-3, 4, (n_items, 4)).astype(np.float32)
    users = generator.integers(-3, 4, (6, 2, 4)).astype(np.float32)
    exclude = [generator.choice(n_items, 50).tolist() for _ in users]
    exclude[2] = list(range(0, n_items - 1000))
    place = Catalogue(items, np.arange(n_items)).sample_place(k)
    assert k / SAMPLED < place < n_items / SAMPLED / 2
    # so few deviations that every floor is too high, and all users must be searched again
    monkeypatch.setattr(models.search_kernel, "DEVIATIONS", deviations)
    found = exact_top_k(users, items, np.arange(n_items), k, exclude=id_lists(exclude), n_threads=2)
    assert found.tolist() == brute_force(users, items, np.arange(n_items), k, exclude)


def test_scores_that_are_zero_tie_whatever_their_sign():
    items = np.array([[0, 1], [0, -1], [0, 1], [-1, 0]], np.float32)
    users = np.array([[1e-30, 0], [0, 0], [-1e-30, 0]], np.float32)
    found = exact_top_k(users, items * np.float32(1e-30), np.arange(4), 4)
    assert found.tolist() == [[0, 1, 2, 3]] * 3


@settings(max_examples=50, deadline=None)
@given(scores=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=60))
def test_any_float32_scores_are_ranked_by_falling_score(scores):
    items = np.array(scores, np.float32).reshape(-1, 1)
    found = exact_top_k(np.ones((1, 1), np.float32), items, np.arange(len(items)), 60)
    expected = sorted(range(len(items)), key=lambda i: (-items[i, 0], i))
    assert found[0, : len(items)].tolist() == expected


def test_search_over_many_items_agrees_with_faiss():
    generator = np.random.default_rng(1)
    users, items = vectors(generator, 40, 16), vectors(generator, 5000, 16)
    index = faiss.IndexFlatIP(16)
    index.add(items)
    _, expected = index.search(users, 50)
    assert np.mean(exact_top_k(users, items, np.arange(5000), 50) == expected) > 0.999


def test_neither_the_batch_nor_the_threads_nor_the_blocks_change_a_result(monkeypatch):
    generator = np.random.default_rng(2)
    users, items = vectors(generator, 50, 8), np.repeat(vectors(generator, 700, 8), 3, axis=0)
    expected = exact_top_k(users, items, np.arange(2100), 20, n_threads=1)
    alone = [exact_top_k(users[row : row + 1], items, np.arange(2100), 20)[0] for row in range(50)]
    assert np.array_equal(expected, alone)
    monkeypatch.setattr(models.search, "ROWS_PER_BLOCK", 7)
    assert np.array_equal(expected, exact_top_k(users, items, np.arange(2100), 20, n_threads=3))
    assert (np.diff(expected.reshape(50, -1, 20)[:, 0, :3]) == 1).all()  # the three copies, by item id


def test_no_users_no_items_or_everything_excluded_give_padding():
    items = np.ones((2, 2), np.float32)
    assert exact_top_k(np.empty((0, 2), np.float32), items, np.arange(2), 3).shape == (0, 3)
    assert exact_top_k(items, np.empty((0, 2), np.float32), np.arange(0), 3).tolist() == [[-1] * 3] * 2
    found = exact_top_k(items, items, np.arange(2), 1, exclude=id_lists([[0, 1], [0]]))
    assert found.tolist() == [[-1], [1]]


def test_vectors_that_do_not_fit_or_are_not_finite_are_refused():
    users, items = np.ones((1, 2), np.float32), np.ones((3, 2), np.float32)
    with pytest.raises(BadVectors, match=r"\(1, 2\) do not fit item vectors of shape \(3, 1\)"):
        exact_top_k(users, items[:, :1], np.arange(3), 1)
    with pytest.raises(BadVectors, match="2 item ids for 3 item vectors"):
        exact_top_k(users, items, np.arange(2), 1)
    with pytest.raises(BadVectors, match="user vectors are not finite"):
        exact_top_k(users * np.nan, items, np.arange(3), 1)
    with pytest.raises(BadVectors, match="finite"):
        build_index(items * np.inf, seed=0)
    with pytest.raises(NotAligned):
        exact_top_k(users, items, np.arange(3), 1, exclude=id_lists([]))


def test_a_flat_index_has_full_recall_even_with_ties():
    generator = np.random.default_rng(3)
    items = np.repeat(vectors(generator, 60, 8), 4, axis=0)
    users = vectors(generator, 30, 2, 8)
    index = build_index(items, seed=0)
    assert isinstance(index, faiss.IndexFlatIP)
    assert index_recall(index, items, users[:, 0], 10) == 1.0
    assert index_recall(index, items, users, 500) == 1.0
    assert np.isnan(index_recall(index, items, users[:0], 10))


def test_a_large_index_is_an_inverted_file_with_measured_recall(monkeypatch):
    monkeypatch.setattr(models.search, "N_ITEMS_FLAT", 5000)
    generator = np.random.default_rng(4)
    centres = vectors(generator, 40, 8)
    items = centres[generator.integers(0, 40, 6000)] + 0.1 * vectors(generator, 6000, 8)
    users = centres[:20] + 0.1 * vectors(generator, 20, 8)
    index = build_index(items, seed=7)
    assert isinstance(index, faiss.IndexIVFFlat)
    recall = index_recall(index, items, users, 20)
    assert 0.5 < recall <= 1.0
    assert index_recall(build_index(items, seed=7), items, users, 20) == recall
    index.nprobe = index.nlist
    assert index_recall(index, items, users, 20) == 1.0


@pytest.mark.parametrize("shape", [(30, 8), (30, 3, 8)])
def test_asking_the_index_excludes_like_exact_search(shape):
    generator = np.random.default_rng(5)
    users, items = vectors(generator, *shape), vectors(generator, 90, 8)
    item_ids = generator.permutation(1000)[:90]
    exclude = id_lists([generator.choice(item_ids, row, replace=False).tolist() for row in range(30)])
    index = build_index(items, seed=0)
    for k in (5, 80):
        found = index_top_k(index, item_ids, users, k, exclude=exclude)
        assert np.array_equal(found, exact_top_k(users, items, item_ids, k, exclude=exclude))
