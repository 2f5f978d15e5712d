"""One release's answers: those of the batch for the same history, and defined ones where nothing is known."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lakehouse.releases import ReleaseCorrupt
from nearline.candidates import ClickedItems
from nearline.click_scorer import ClickScorer, open_click_scorer
from tests.nearline.small_served import (
    DAY,
    N_ITEMS,
    N_USERS,
    START,
    UNAVAILABLE,
    Click,
    by_user,
    contents,
    expected_list,
    histories,
    publish,
    some_clicks,
    write_release,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("releases")
    publish(root)
    return root / "local" / "seed0"


@pytest.fixture(scope="module")
def scorer(folder: Path) -> ClickScorer:
    return open_click_scorer(folder)


def clicked(clicks: list[Click]) -> ClickedItems:
    """Each item once, by its newest click, oldest first: what a store gives."""
    newest = {click.item_id: click.event_time for click in sorted(clicks, key=lambda click: click.event_time)}
    rows = sorted((time, item) for item, time in newest.items())
    return ClickedItems(
        np.array([item for _, item in rows], np.int64), np.array([time for time, _ in rows], np.int64), 1, 1
    )


def test_answers_are_the_batch_s_for_every_user(scorer: ClickScorer) -> None:
    for user, own in by_user(some_clicks(200)).items():
        answer = scorer.answer(user, clicked(own), 12)
        assert answer.item_ids.tolist() == expected_list(user, own, 12), user
        assert not answer.is_fallback
        assert (np.diff(answer.scores) <= 0).all()
        assert UNAVAILABLE not in answer.item_ids
        assert not set(answer.item_ids) & {click.item_id for click in own}


def test_click_before_the_release_s_items_takes_its_place_by_time(scorer: ClickScorer) -> None:
    user = N_USERS - 1
    late, early = ([Click(user, 7, START)], [Click(user, 7, 1_000_000)])
    assert scorer._history(user, clicked(late)).tolist() == [*histories()[user], 7]
    assert scorer._history(user, clicked(early)).tolist() == [7, *histories()[user]]


def test_unknown_user_is_answered_from_the_clicks(scorer: ClickScorer) -> None:
    own = [Click(N_USERS + 5, 3, START)]
    assert not scorer.knows_user(N_USERS + 5)
    assert scorer.knows_user(2)
    answer = scorer.answer(N_USERS + 5, clicked(own), 50)
    assert sorted(answer.item_ids.tolist()) == [4, 5, 6, 7, 8, 9, 10, 11]


def test_click_with_no_known_trigger_gives_popular_items_outside_the_history(scorer: ClickScorer) -> None:
    own = [Click(0, 10_000, START), Click(0, N_ITEMS - 1 + 500, START + 1)]
    assert scorer.knows_items(np.array([10_000, 5])).tolist() == [False, True]
    answer = scorer.answer(0, clicked(own), 3)
    assert answer.is_fallback
    assert answer.item_ids.tolist() == [58, 57, 56]
    np.testing.assert_allclose(answer.scores, [1, 1 / 2, 1 / 3])


def test_unknown_item_beside_known_triggers_changes_only_what_attention_sees(scorer: ClickScorer) -> None:
    own = [Click(9, 3, START), Click(9, 10_000, START + 1)]
    answer = scorer.answer(9, clicked(own), 30)
    assert not answer.is_fallback
    assert answer.item_ids.tolist() == expected_list(9, own, 30)


@pytest.mark.parametrize("name", ["pi2i/scorer.safetensors", "i2i_table.parquet"])
def test_i2i_table_and_scorer_of_different_releases_are_refused(
    folder: Path, tmp_path: Path, name: str
) -> None:
    publish(tmp_path, seed=1)
    mixed = tmp_path / "local" / "seed1"
    shutil.copy(folder / name, mixed / name)
    with pytest.raises(ReleaseCorrupt, match=rf"{name} is not its manifest's.*publish it again"):
        open_click_scorer(mixed)


def test_release_without_a_file_or_a_scorer_is_refused_in_one_line(tmp_path: Path) -> None:
    publish(tmp_path)
    (tmp_path / "local" / "seed0" / "items.parquet").unlink()
    with pytest.raises(ReleaseCorrupt, match="cannot be read"):
        open_click_scorer(tmp_path / "local" / "seed0")
    without = replace(contents(), scorer=None, item_statistics=None)
    write_release(tmp_path / "other", without, day=DAY, code_version="abc", config_digest="c0ffee")
    with pytest.raises(LookupError, match="has no PI2I scorer") as caught:
        open_click_scorer(tmp_path / "other")
    assert "\n" not in str(caught.value)
