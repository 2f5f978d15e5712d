"""A memory budget is kept, as the process's peak shows, or refused in one line before the work starts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.swing import (
    BudgetTooSmall,
    SwingConfig,
    build_i2i_table,
    index_clicks,
    iter_i2i_blocks,
    plan_blocks,
)
from tests.models.swing.click_logs import click_table, random_clicks

REPOSITORY = Path(__file__).resolve().parents[3]

# Clicks come in chunks and rows are dropped, so that the peak is the build's own. The kernels are loaded by a
# first small build: their compiled code is no memory of the build.
BUILD = """
import json, resource, sys
import numpy as np, pyarrow as pa
from models.swing import SwingConfig, iter_i2i_blocks

def everyone(_, n_users=12_000):
    users = np.arange(n_users)
    for items in (users * 0, users * 0 + 1, users + 2):
        yield pa.record_batch({"user_id": users, "item_id": items, "event_time": users})

def chunks(n_chunks, n=1 << 18):
    generator = np.random.default_rng(0)
    for _ in range(n_chunks):
        yield pa.record_batch(
            {
                "user_id": generator.integers(0, 60_000, n),
                "item_id": (400_000 * generator.random(n) ** 2).astype(np.int64),
                "event_time": generator.integers(0, 10**9, n),
            }
        )

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

options = json.loads(sys.argv[1])
for _ in iter_i2i_blocks(chunks(1, 1000), SwingConfig(**options)):
    pass
before = peak()
blocks = iter_i2i_blocks({"chunks": chunks, "everyone": everyone}[sys.argv[2]](12), SwingConfig(**options))
n_rows = sum(batch.num_rows for batch in blocks)
print(json.dumps({"bytes": peak() - before, "n_rows": n_rows, "n_blocks": blocks.report.n_blocks}))
"""


def build_in_a_process(clicks="chunks", **options):
    done = subprocess.run(
        [sys.executable, "-c", BUILD, json.dumps(options), clicks],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("caps", [{}, {"max_items_per_user": 40}])
def test_the_measured_peak_stays_within_the_smallest_budget_that_is_accepted(caps):
    accepted = smallest_budget(3_145_728, 60_000, 400_000, caps)
    result = build_in_a_process(memory_budget_gib=accepted, n_threads=2, truncation=200, **caps)
    assert result["n_rows"] > 100_000
    assert result["bytes"] <= accepted * 2**30


def test_an_item_that_everyone_clicked_stays_within_the_budget():
    result = build_in_a_process("everyone", memory_budget_gib=0.5, n_threads=2)
    assert result["n_rows"] == 2
    assert result["bytes"] <= 0.5 * 2**30


def smallest_budget(n_clicks, n_users, n_items, caps):
    """Give a budget (GiB) that just holds the clicks, found by asking."""
    from models.swing.memory import check_clicks

    gib = 0.05
    while True:
        try:
            check_clicks(n_clicks, n_users + n_items, SwingConfig(memory_budget_gib=gib, **caps))
            return gib
        except BudgetTooSmall:
            gib *= 1.05


def test_a_budget_changes_the_blocks_but_not_the_rows():
    clicks = click_table(random_clicks(np.random.default_rng(0), n=200_000, n_users=3000, n_items=2000))
    free = SwingConfig(max_users_per_item=200, n_threads=2)
    tight = free.model_copy(update={"memory_budget_gib": 0.11})
    index = index_clicks(clicks, free)
    assert len(plan_blocks(index, tight)) > len(plan_blocks(index, free))
    expected, actual = (build_i2i_table(clicks, config)[0] for config in (free, tight))
    assert actual.combine_chunks().equals(expected.combine_chunks())


def test_a_budget_too_small_is_refused_before_the_first_row_is_read():
    def no_chunks_are_read():
        raise AssertionError("read a chunk")
        yield

    table = click_table(random_clicks(np.random.default_rng(1)))
    with pytest.raises(BudgetTooSmall, match=r"memory_budget_gib = 0\.01 is too small to index 6000 clicks"):
        iter_i2i_blocks(table, SwingConfig(memory_budget_gib=0.01))
    with pytest.raises(BudgetTooSmall, match=r"memory_budget_gib = 0\.01 is too small to index 0 clicks"):
        iter_i2i_blocks(no_chunks_are_read(), SwingConfig(memory_budget_gib=0.01))


def test_a_stream_that_outgrows_the_budget_is_refused_as_soon_as_it_does():
    seen = []

    def chunks():
        for first in range(100):
            seen.append(first)
            yield click_table([(user, item, 0) for user in range(100) for item in range(500)])

    with pytest.raises(BudgetTooSmall, match="raise it, shorten the window, or cap users and items"):
        iter_i2i_blocks(chunks(), SwingConfig(memory_budget_gib=0.1))
    assert len(seen) < 20


def test_a_budget_without_room_for_the_threads_is_refused_before_a_block_is_scored():
    clicks = click_table(random_clicks(np.random.default_rng(2), n=50_000))
    with pytest.raises(BudgetTooSmall, match="to score 120 triggers in 64 threads"):
        iter_i2i_blocks(clicks, SwingConfig(memory_budget_gib=0.15, n_threads=64))


def test_dense_clicks_that_do_not_fit_are_refused_before_they_are_scored():
    generator = np.random.default_rng(3)
    rows = [(user, item, 0) for user in range(3000) for item in range(12) if generator.random() < 0.9]
    with pytest.raises(BudgetTooSmall, match="to score 12 triggers that nearly all share"):
        iter_i2i_blocks(click_table(rows), SwingConfig(memory_budget_gib=0.12, n_threads=1))
