import numpy as np
import pytest

from models.increc.vocabulary import VocabularyChanged, build_vocabulary


def test_items_sit_at_their_index(tables, config):
    item_table, _ = tables
    vocabulary = build_vocabulary(item_table([70, 50], first_index=3), config)
    assert vocabulary.item_ids.tolist() == [-1, -1, -1, 70, 50]
    assert vocabulary.rows(np.array([50, 60, 70, 80])).tolist() == [4, 0, 3, 0]
    assert vocabulary.known_item_ids.tolist() == [70, 50]


def test_vocabulary_grows_behind_what_is_there(tables, config):
    item_table, _ = tables
    before = build_vocabulary(item_table([70, 50]), config)
    after = build_vocabulary(item_table([90], first_index=3), config, before=before)
    assert after.item_ids.tolist() == [-1, 70, 50, 90]


def test_item_that_left_the_catalogue_keeps_its_row(tables, config):
    item_table, _ = tables
    before = build_vocabulary(item_table([70, 50]), config)
    after = build_vocabulary(item_table([50], first_index=2), config, before=before)
    assert after.item_ids.tolist() == before.item_ids.tolist()


@pytest.mark.parametrize("moved", [([50, 70], 1), ([70], 2), ([99], 1)])
def test_moved_index_is_refused(tables, config, moved):
    item_table, _ = tables
    before = build_vocabulary(item_table([70, 50]), config)
    with pytest.raises(VocabularyChanged, match="append-only"):
        build_vocabulary(item_table(moved[0], first_index=moved[1]), config, before=before)


def test_index_zero_and_duplicates_are_refused(tables, config):
    item_table, _ = tables
    with pytest.raises(VocabularyChanged, match="must be 1 or more"):
        build_vocabulary(item_table([70], first_index=0), config)
    with pytest.raises(VocabularyChanged, match="item_id 70 more than once"):
        build_vocabulary(item_table([70, 70]), config)


def test_empty_vocabulary_knows_nothing(tables, config):
    item_table, _ = tables
    assert build_vocabulary(item_table([]), config).rows(np.array([1])).tolist() == [0]
