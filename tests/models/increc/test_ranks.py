import time

import numpy as np
import pytest

from models.increc.model import TrainedModel
from models.increc.training import train

# 400 samples are 6 batches of 64 and one of 16.
MANY = {"epochs": 3, "batch_size": 64, "n_category_buckets": 8}


def two(run_child, tmp_path, config, **options):
    ended = run_child(config, 2, **options)
    assert ended.returncode == 0, ended.stderr[-3000:]
    contents = [(tmp_path / f"model.{rank}").read_bytes() for rank in (0, 1)]
    reports = [(tmp_path / f"report.{rank}").read_bytes() for rank in (0, 1)]
    assert contents[0] == contents[1]
    assert reports[0] == reports[1]
    return TrainedModel.from_bytes(contents[0])


def difference(model: TrainedModel, other: TrainedModel, items) -> float:
    return float(np.abs(model.embed_items(items) - other.embed_items(items)).max())


@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "IncRec", "negatives": "in_batch", "validation_share": 0.2},
        {"variant": "IncRec", "negatives": "mixed", "etg_pool": "day", "optimizer_state": "row_wise"},
        # The last batch is one sample: one of the processes has none of it.
        {"variant": "IncRec", "batch_size": 57, "backbone": "sasrec"},
    ],
    ids=["batch pool", "day pool", "one sample"],
)
def test_two_processes_train_what_one_trains(few, config, run_child, tmp_path, changes):
    config = config.model_copy(update=MANY | changes)
    both = two(run_child, tmp_path, config)
    one, _ = train(*few, config)
    reseeded, _ = train(*few, config.model_copy(update={"seed": 1}))
    assert difference(both, one, few[1]) < 1e-3
    assert difference(reseeded, one, few[1]) > 0.1
    for name, total in one.accumulators.items():
        np.testing.assert_allclose(both.accumulators[name], total, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_two_killed_processes_go_on_and_end_in_the_bytes_of_two(few, config, run_child, tmp_path):
    config = config.model_copy(update=MANY | {"variant": "IncRec"})
    whole = two(run_child, tmp_path, config)
    started = time.monotonic()
    assert run_child(config, 2, keep=True, kill_at=[1, 2]).returncode != 0
    assert time.monotonic() - started < 60
    again = two(run_child, tmp_path, config, keep=True)
    assert again.to_bytes() == whole.to_bytes()


def test_a_process_that_hangs_ends_all_of_them_at_the_time_limit(config, run_child):
    config = config.model_copy(update=MANY)
    started = time.monotonic()
    ended = run_child(config, 2, hang_at=[1, 1], timeout=5)
    assert ended.returncode != 0
    assert time.monotonic() - started < 90


def test_processes_with_other_inputs_are_refused(config, run_child):
    ended = run_child(config.model_copy(update=MANY), 2, other_samples_at=[1])
    assert ended.returncode != 0
    assert "have other samples; start all of them on the same state folder" in ended.stderr
