"""Which trigger fires: by hand, against a loop over everything, and what decay counts."""

import numpy as np
import pyarrow as pa
import pytest

from models.pi2i.firing import count_decay, find_firing
from models.pi2i.trigger_index import trigger_index

IDS = pa.list_(pa.int64())


def table_of(rows: list[tuple[int, int, float]]) -> pa.Table:
    rows = sorted(rows, key=lambda row: (row[0], -row[2], row[1]))
    triggers, targets, scores = (list(column) for column in zip(*rows, strict=True))
    ranks = [
        sum(other == trigger for other in triggers[:place]) + 1 for place, trigger in enumerate(triggers)
    ]
    return pa.table(
        {
            "trigger_item_id": pa.array(triggers, pa.int64()),
            "target_item_id": pa.array(targets, pa.int64()),
            "score": pa.array(scores, pa.float64()),
            "rank": pa.array(ranks, pa.int32()),
            "n_common_users": pa.array([2] * len(rows), pa.int32()),
        }
    )


def test_the_trigger_with_the_highest_score_fires_and_of_equal_ones_the_newest() -> None:
    table = table_of([(1, 50, 0.5), (2, 50, 0.5), (3, 50, 0.1), (1, 51, 0.2), (3, 51, 0.9)])
    histories = pa.array([[1, 2, 3], [1, 2, 1], [9], []], IDS)
    targets = pa.array([[50, 51, 99], [51], [50], [50]], IDS)
    found = find_firing(trigger_index(table), histories, targets, 3)
    assert found.fired.tolist() == [2, 1, 0, 1, 0, 0]
    assert found.n_triggers.tolist() == [3, 3, 3, 2, 1, 0]
    assert found.reached[:2].tolist() == [[True, True, True], [True, False, True]]
    decay = count_decay(found)
    assert decay.n_targets.tolist() == [3, 3, 2]
    assert decay.n_reached.tolist() == [3, 1, 2]
    assert decay.n_fired.tolist() == [2, 1, 0]
    assert decay.probability(1, 1) == pytest.approx(2 / 3)
    assert decay.probability(2, 3) == pytest.approx(1 / 5)
    assert np.isnan(decay.probability(4, 9))


def test_it_agrees_with_a_loop_over_all_triggers() -> None:
    generator = np.random.default_rng(5)
    pairs = {
        (int(a), int(b)): float(generator.integers(1, 5)) for a, b in generator.integers(0, 30, (200, 2))
    }
    table = table_of([(a, b, score) for (a, b), score in pairs.items()])
    histories = [generator.integers(0, 35, generator.integers(0, 9)).tolist() for _ in range(60)]
    targets = [generator.choice(35, generator.integers(0, 6), replace=False).tolist() for _ in range(60)]
    found = find_firing(trigger_index(table), pa.array(histories, IDS), pa.array(targets, IDS), 4)
    fired, reached = [], []
    for history, own in zip(histories, targets, strict=True):
        triggers = list(dict.fromkeys(reversed(history)))[:4]
        for target in own:
            scores = [pairs.get((trigger, target), 0.0) for trigger in triggers]
            fired.append(int(np.argmax(scores)) + 1 if any(scores) else 0)
            reached.append([score > 0 for score in scores] + [False] * (4 - len(scores)))
    assert found.fired.tolist() == fired
    assert found.reached.tolist() == reached
    assert len(set(fired)) == 5


def test_without_targets_nothing_is_counted() -> None:
    nothing = pa.array([[], []], IDS)
    found = find_firing(trigger_index(table_of([(1, 2, 0.5)])), nothing, nothing, 3)
    assert found.fired.shape == (0,)
    assert count_decay(found).n_targets.tolist() == [0, 0, 0]
