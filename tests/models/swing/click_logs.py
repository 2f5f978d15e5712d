"""Click tables that several Swing tests take, and the sum of Eq. 3 written out to check them against."""

from collections import defaultdict
from itertools import product
from math import isclose, sqrt

import numpy as np
import pyarrow as pa


def click_table(rows):
    """rows: (user, item, time) triples."""
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.table(
        {
            "user_id": pa.array(columns[0], pa.int64()),
            "item_id": pa.array(columns[1], pa.int64()),
            "event_time": pa.array(columns[2], pa.int64()).cast(pa.timestamp("us")),
        }
    )


def random_clicks(generator, n=6000, n_users=300, n_items=120):
    """Rows with a few popular items."""
    items = (n_items * generator.random(n) ** 2).astype(int)
    return list(
        zip(
            generator.integers(0, n_users, n).tolist(),
            items.tolist(),
            generator.integers(0, 99, n).tolist(),
            strict=True,
        )
    )


def nearly_full_clicks(generator, n_users=40, n_items=25, share_missing=0.06):
    """Rows of a matrix in which few users miss an item; item 0 and user 0 miss most."""
    is_clicked = generator.random((n_users, n_items)) >= share_missing
    is_clicked[5:, 0] = False
    is_clicked[0, 5:] = False
    return [(int(user), int(item), 0) for user, item in np.argwhere(is_clicked)]


def scores_of(table):
    return {
        (row["trigger_item_id"], row["target_item_id"]): (row["score"], row["n_common_users"])
        for row in table.to_pylist()
    }


def brute_force(rows, config, users_of_trigger=None):
    """Eq. 2-4 as written: {(trigger, target): (score, number of common users)}, before truncation."""
    latest = defaultdict(dict)
    for user, item, time in rows:
        latest[user][item] = max(time, latest[user].get(item, time))
    weight = {
        u: 1 / sqrt(len(items)) if config.user_weight == "inverse_sqrt" else 1.0
        for u, items in latest.items()
    }
    items_of = {
        u: set(sorted(items, key=lambda i: (-items[i], i))[: config.max_items_per_user])
        for u, items in latest.items()
    }
    all_items = sorted({item for _, item, _ in rows})
    users_of = {i: {u for u in items_of if i in items_of[u]} for i in all_items}
    table = {}
    for i, j in product(all_items, all_items):
        if i == j:
            continue
        trigger_users = users_of[i] if users_of_trigger is None else users_of_trigger[i]
        common = sorted(trigger_users & users_of[j])
        score = sum(
            weight[u] * weight[v] / (config.alpha + len(items_of[u] & items_of[v]))
            for u, v in product(common, common)
            if u != v or config.include_self_pairs
        )
        if score > 0:
            table[i, j] = (score, len(common))
    return table


def assert_table_is(table, expected, truncation):
    """Same pairs and scores, by trigger and rank, truncated at the best."""
    by_trigger = defaultdict(list)
    for row in table.to_pylist():
        by_trigger[row["trigger_item_id"]].append(row)
    assert list(by_trigger) == sorted({i for i, _ in expected})
    for trigger, rows in by_trigger.items():
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        order = [(-row["score"], row["target_item_id"]) for row in rows]
        assert order == sorted(order)
        expected_targets = {j: value for (i, j), value in expected.items() if i == trigger}
        assert len(rows) == min(truncation, len(expected_targets))
        for row in rows:
            score, n_common = expected_targets.pop(row["target_item_id"])
            assert isclose(row["score"], score, rel_tol=1e-11)
            assert row["n_common_users"] == n_common
        worst = rows[-1]
        for target, (score, _) in expected_targets.items():
            assert score < worst["score"] * (1 + 1e-11)
            assert not isclose(score, worst["score"], rel_tol=1e-14) or target > worst["target_item_id"]
