import numpy as np
import pyarrow as pa
import pytest

from models.popularity import fill_with_popular, rank_popular, retrieve_popular
from models.ragged import NotAligned


def id_lists(lists):
    return pa.array(lists, pa.list_(pa.int64()))


def test_items_are_ranked_by_clicks_and_ties_by_id():
    assert rank_popular(pa.table({"item_id": [7, 3, 9, 3, 9, 1]})).tolist() == [3, 9, 1, 7]


def test_no_clicks_give_an_empty_ranking():
    assert rank_popular(pa.table({"item_id": pa.array([], pa.int64())})).tolist() == []


def test_popular_items_outside_the_history_are_retrieved():
    retrieved = retrieve_popular(np.array([3, 9, 1, 7]), id_lists([[9, 3], [], [5], None]), 3)
    assert retrieved.tolist() == [[1, 7, -1], [3, 9, 1], [3, 9, 1], [3, 9, 1]]


def test_free_places_are_filled_with_what_the_user_lacks():
    retrieved = np.array([[9, -1, -1], [-1, -1, -1], [4, 5, 6]])
    filled = fill_with_popular(retrieved, np.array([3, 9, 1]), id_lists([[1], [3, 9, 1], []]))
    assert filled.tolist() == [[9, 3, -1], [-1, -1, -1], [4, 5, 6]]
    assert retrieved[0].tolist() == [9, -1, -1]


@pytest.mark.parametrize("ranking", [[], [1, 2]])
def test_no_users_are_no_rows(ranking):
    assert retrieve_popular(np.array(ranking, np.int64), id_lists([]), 4).shape == (0, 4)


def test_histories_of_other_users_are_refused():
    with pytest.raises(NotAligned, match="histories has 1 lists for 2 rows"):
        fill_with_popular(np.full((2, 3), -1), np.array([1]), id_lists([[]]))
