import numpy as np

from benchmarks.training_samples import HISTORY_LENGTH, Log, make_samples


def lists(samples, name):
    return [part.tolist() for part in np.split(samples[name], samples[f"{name}_offsets"][1:-1])]


def test_samples_hold_the_past_only_and_the_last_day_is_held_out():
    clicks = [
        (1, 70, 0),  # user 1 has a past: a sample
        (2, 50, 0),  # user 2 has none: only history
        (1, 50, 1),
        (2, 70, 1),
        (1, 60, 2),  # the held-out day: 60 was had by nobody, 70 by user 1 before
        (1, 70, 2),
        (2, 90, 2),
        (3, 50, 2),  # user 3 has no history
    ]
    user, item, day = np.array(clicks).T
    samples = make_samples(Log(user, item, day, {1: [90, 80]}))
    number = {50: 1, 70: 2, 80: 3, 90: 4}
    assert samples["n_items"] == 4
    assert samples["candidates"].tolist() == [number[50], number[70]]  # 80 and 90 are of the past alone
    assert samples["target"].tolist() == [number[70], number[50], number[70]]
    assert lists(samples, "history") == [
        [number[90], number[80]],
        [number[90], number[80], number[70]],
        [number[50]],
    ]
    assert lists(samples, "test_targets") == [[-1], [number[90]]]
    assert lists(samples, "test_history") == [
        [number[90], number[80], number[70], number[50]],
        [number[50], number[70]],
    ]


def test_only_the_newest_of_a_history_count():
    n = HISTORY_LENGTH + 10
    log = Log(np.ones(n, int), np.arange(100, 100 + n), np.arange(n), {})
    assert lists(make_samples(log), "test_history") == [list(range(n - HISTORY_LENGTH, n))]
