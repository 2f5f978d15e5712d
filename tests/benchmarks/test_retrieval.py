"""What RecBole's models learn and are asked, which lists scores make, and what the benchmark refuses."""

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import retrieval
from benchmarks.retrieval_lists import best_items, mean_share
from benchmarks.retrieval_split import Vocabulary, asked_arrays, learned_arrays
from benchmarks.retrieval_tables import lead_of_ours

IDS = pa.list_(pa.int64())
VOCABULARY = Vocabulary(np.array([50, 60, 70, 80]), np.array([1, 2]))
HISTORIES = pa.table({"user_id": [1, 2], "item_ids": pa.array([[80, 50], [60]], IDS)})


def lists(arrays, name):
    return [part.tolist() for part in np.split(arrays[name], arrays[f"{name}_offsets"][1:-1])]


def test_the_best_available_items_outside_the_past_are_listed():
    scores = np.array([[0.1, 0.9, 0.5, 0.5, 0.7], [0.5, 0.4, 0.3, 0.2, 0.1]])
    available = np.array([True, True, True, True, False])  # item 5 is not to be had
    past, offsets = np.array([2, 1, 2, 3]), np.array([0, 1, 4])
    found = best_items(scores, available, past, offsets, 3)
    assert found.tolist() == [[3, 4, 1], [4, -1, -1]]


def test_ties_across_the_end_of_a_list_go_to_the_lower_numbers():
    found = best_items(
        np.array([[1.0, 2.0, 1.0, 1.0]]), np.ones(4, bool), np.array([], int), np.zeros(2, int), 2
    )
    assert found.tolist() == [[2, 1]]


def test_lists_longer_than_the_catalogue_are_padded():
    found = best_items(np.array([[1.0, 2.0]]), np.ones(2, bool), np.array([], int), np.zeros(2, int), 3)
    assert found.tolist() == [[2, 1, -1]]


def test_mean_share_is_over_users_who_want_something_and_unknown_items_are_misses():
    wanted, offsets = np.array([4, 2, 0, 1]), np.array([0, 2, 2, 4])
    share = mean_share(np.array([[2, 3], [1, 2], [1, -1]]), wanted, offsets)
    assert share == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_samples_are_the_clicks_with_a_history_and_interactions_all_of_the_last_histories():
    days = [
        pa.table({"item_id": [50, 70], "history_item_ids": pa.array([[60, 70, 80], []], IDS)}),
        pa.table({"item_id": [60], "history_item_ids": pa.array([[80]], IDS)}),
    ]
    learned = learned_arrays(days, HISTORIES, VOCABULARY, length=2)
    assert (learned["n_users"], learned["n_items"]) == (2, 4)
    assert learned["target"].tolist() == [1, 2]
    assert lists(learned, "history") == [[3, 4], [4]]
    assert learned["edge_user"].tolist() == [1, 1, 2]
    assert learned["edge_item"].tolist() == [4, 1, 2]


def test_a_day_without_clicks_gives_no_samples():
    nothing = pa.table({"item_id": pa.array([], pa.int64()), "history_item_ids": pa.array([], IDS)})
    learned = learned_arrays([nothing], HISTORIES, VOCABULARY, length=2)
    assert (learned["target"].size, learned["history"].size) == (0, 0)


def test_what_came_up_after_learning_is_unknown_when_lists_are_asked_for():
    asked = asked_arrays(
        np.array([2, 3]),
        pa.array([[60, 90, 80], []], IDS),
        pa.array([[50, 90], [70]], IDS),
        np.array([50, 70, 90]),
        pa.table({"user_id": [2, 3], "item_ids": pa.array([[60, 90], [80]], IDS)}),
        VOCABULARY,
    )
    assert asked["user"].tolist() == [2, 0]
    assert lists(asked, "past") == [[2, 4], []]
    assert lists(asked, "wanted") == [[1, 0], [3]]
    assert asked["available"].tolist() == [True, False, True, False]
    assert (asked["edge_user"].tolist(), asked["edge_item"].tolist()) == ([2], [2])
    assert VOCABULARY.item_ids_of(np.array([[3, -1]])).tolist() == [[70, -1]]


def row(method, seed, value):
    return {"method": method, "seed": seed, "hit_rate": {100: {"value": value}}}


def test_the_ratio_is_over_the_best_peer_by_the_mean_of_the_seeds():
    ours = [row("PI2I", 0, 0.3), row("PI2I", 1, 0.5)]
    peers = [row("CORE", 0, 0.45), row("CORE", 1, 0.05), row("SASRec", 0, 0.3), row("SASRec", 1, 0.34)]
    assert lead_of_ours(ours + peers) == pytest.approx(0.4 / 0.32)
    assert lead_of_ours(ours) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--day", "2022-05-03"], "--var"),
        (["--var", ".", "--day", "soon"], "soon is no day, such as 2026-01-31"),
        (
            ["--var", ".", "--day", "2022-05-03", "--models", "bert"],
            "unknown models: bert; there are lightgcn",
        ),
        (
            ["--var", ".", "--day", "2022-05-03", "--to", "2022-05-01"],
            "2022-05-01 is before --day 2022-05-03",
        ),
        (["--var", ".", "--day", "2022-05-03", "--seeds", "1,x"], "1,x is no list of whole numbers"),
        (["--var", "nowhere", "--day", "2022-05-03"], "there is no nowhere"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        retrieval.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_state_folder_without_the_day_is_refused_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TRIBUTARY_VAR", str(tmp_path))  # so that it is put back: main sets it
    with pytest.raises(SystemExit) as ended:
        retrieval.main(["--var", str(tmp_path), "--day", "2022-05-03", "--models", ""])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "2022-05-02" in told
