"""Trigger-target sampling against what Algorithm 1 says, candidate by candidate."""

import math

import numpy as np
import pyarrow as pa
import pytest

from models.pi2i import sampling
from models.pi2i.candidates import DECAY, N_CROSS, gather, scratch
from models.pi2i.config import PI2IConfig
from models.pi2i.sampling import SCHEMA, draw_samples, log_price_of
from models.pi2i.trigger_index import COUNTS, N_STATISTICS, TINY, trigger_index, user_triggers
from models.ragged import codes_of, flat_lists

N_USERS, N_ITEMS = 60, 40


def i2i_table(rows: list[tuple[int, int, float, int]]) -> pa.Table:
    """Rank rows (trigger, target, score, common users) as an i2i table does."""
    rows = sorted(rows, key=lambda row: (row[0], -row[2], row[1]))
    ranks, last = [], None
    for trigger, *_ in rows:
        ranks.append(ranks[-1] + 1 if trigger == last else 1)
        last = trigger
    trigger, target, score, common = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "trigger_item_id": pa.array(trigger, pa.int64()),
            "target_item_id": pa.array(target, pa.int64()),
            "score": pa.array(score, pa.float64()),
            "rank": pa.array(ranks, pa.int32()),
            "n_common_users": pa.array(common, pa.int32()),
        }
    )


def clicks(rows: list[tuple[int, int, list[int]]]) -> pa.Table:
    """Rows (user, item, history oldest first)."""
    user, item, history = (list(column) for column in zip(*rows, strict=True))
    return pa.table(
        {
            "user_id": pa.array(user, pa.int64()),
            "event_time": pa.array(range(len(user)), pa.timestamp("us")),
            "item_id": pa.array(item, pa.int64()),
            "history_item_ids": pa.array(history, pa.list_(pa.int64())),
        }
    )


def counts(item_ids) -> pa.Table:
    """Item statistics: 1, 2, 3 and 4 times the item's id."""
    ids = np.array(list(item_ids), np.int64)
    return pa.table({"item_id": ids, **{name: ids * n for n, name in enumerate(COUNTS, 1)}})


@pytest.fixture(scope="module")
def table() -> pa.Table:
    generator = np.random.default_rng(3)
    rows = []
    for trigger in range(N_ITEMS):
        others = [item for item in range(N_ITEMS) if item != trigger]
        for target in generator.choice(others, generator.integers(1, 15), replace=False):
            score, common = float(generator.uniform(0.01, 1)), int(generator.integers(2, 9))
            rows.append((100 + trigger, 100 + int(target), score, common))
    return i2i_table(rows)


@pytest.fixture(scope="module")
def many_clicks() -> pa.Table:
    generator = np.random.default_rng(4)
    rows = []
    for user in range(N_USERS):
        history = generator.integers(100, 100 + N_ITEMS + 3, generator.integers(0, 12)).tolist()
        rows.append((user, int(generator.integers(100, 100 + N_ITEMS + 3)), history))
    return clicks(rows)


def lists_of(table: pa.Table) -> dict[int, dict[int, tuple[float, int, int]]]:
    lists: dict[int, dict[int, tuple[float, int, int]]] = {}
    for row in table.to_pylist():
        lists.setdefault(row["trigger_item_id"], {})[row["target_item_id"]] = (
            row["score"],
            row["rank"],
            row["n_common_users"],
        )
    return lists


def newest_distinct(history: list[int], n: int) -> list[int]:
    return list(dict.fromkeys(reversed(history)))[:n]


def expected(history: list[int], lists: dict, n_triggers: int, prices: dict[int, float]) -> dict[int, dict]:
    """Brute force: every candidate with its triggers, cross features and chance."""
    triggers = newest_distinct(history, n_triggers)
    used = [trigger for trigger in triggers if trigger in lists]
    found: dict[int, dict] = {}
    for recency, trigger in enumerate(triggers):
        for target in lists.get(trigger, {}):
            if target not in history:
                found.setdefault(target, {"by": []})["by"].append(recency)
    for target, candidate in found.items():
        facts = [(r, *lists[triggers[r]][target]) for r in candidate["by"]]
        scores = [score for _, score, _, _ in facts]
        differences = [
            prices[target] - prices[triggers[r]]
            for r in candidate["by"]
            if target in prices and triggers[r] in prices
        ]
        candidate["cross"] = [
            math.log1p(len(facts)),
            math.log(sum(scores) + TINY),
            math.log(max(scores) + TINY),
            math.log(min(rank for _, _, rank, _ in facts)),
            math.log1p(max(common for *_, common in facts)),
            math.log1p(sum(common for *_, common in facts)),
            math.log1p(min(candidate["by"])),
            math.log(sum(score * math.exp(-DECAY * r) for r, score, _, _ in facts) + TINY),
            sum(differences) / len(facts),
        ]
        candidate["q"] = sum(1 / len(lists[triggers[r]]) for r in candidate["by"]) / len(used)
    return found


def bits(words: list[int]) -> list[int]:
    return [bit for bit in range(128) if words[bit >> 6] >> (bit & 63) & 1]


@pytest.mark.parametrize("n_triggers", [3, 100])
def test_candidates_are_those_of_a_brute_force_walk(table, many_clicks, n_triggers):
    index, lists = trigger_index(table), lists_of(table)
    prices = {item: math.log(1 + item % 7) for item in range(100, 130)}
    offsets, values = flat_lists(many_clicks["history_item_ids"])
    begins, triggers = user_triggers(offsets, values, n_triggers)
    memory = scratch(len(index.item_ids))
    for row, history in enumerate(many_clicks["history_item_ids"].to_pylist()):
        own = triggers[begins[row] : begins[row + 1]]
        assert own.tolist() == newest_distinct(history, n_triggers)
        codes, masks, cross = gather(
            row,
            codes_of(own, index.trigger_ids),
            codes_of(np.array(history, np.int64), index.item_ids),
            index.lists,
            log_price_of(index.item_ids, prices),
            log_price_of(own, prices),
            memory,
        )
        want = expected(history, lists, n_triggers, prices)
        assert set(index.item_ids[codes].tolist()) == set(want)
        for item, mask, features in zip(index.item_ids[codes].tolist(), masks.tolist(), cross, strict=True):
            assert bits(mask) == want[item]["by"]
            np.testing.assert_allclose(features, want[item]["cross"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sampling", ["default", "hard_only", "hard_dominant", "sparse"])
def test_negatives_come_from_the_targets_of_their_side(table, many_clicks, sampling):
    config = PI2IConfig(sampling=sampling)
    lists = lists_of(table)
    index = trigger_index(table, item_statistics=counts(range(100, 130)))
    samples, report = draw_samples(many_clicks, index, config, seed=5)
    assert samples.schema == SCHEMA
    by_user = {row["user_id"]: row for row in samples.to_pylist()}
    for click in many_clicks.to_pylist():
        history = click["history_item_ids"]
        want = expected(history, lists, config.n_triggers, {})
        sample = by_user.get(click["user_id"])
        assert (sample is not None) == (click["item_id"] in want)
        if sample is None:
            continue
        positive, *negatives = sample["item_ids"]
        assert positive == click["item_id"]
        assert len({positive, *negatives}) == 1 + len(negatives)
        assert sample["trigger_item_ids"] == newest_distinct(history, config.n_triggers)
        hard, easy = negatives[: sample["n_hard"]], negatives[sample["n_hard"] :]
        assert len(hard) <= config.negatives.n_hard
        assert len(easy) <= config.negatives.n_easy
        is_positive = set(want[positive]["by"])
        assert all(set(want[item]["by"]) & is_positive for item in hard)
        assert all(set(want[item]["by"]) - is_positive for item in easy)
        for place, item in enumerate(sample["item_ids"]):
            assert bits(sample["trigger_masks"][2 * place : 2 * place + 2]) == want[item]["by"]
            assert sample["log_q"][place] == pytest.approx(math.log(want[item]["q"]), abs=1e-5)
            cross = sample["cross"][N_CROSS * place : N_CROSS * (place + 1)]
            np.testing.assert_allclose(cross, want[item]["cross"], rtol=1e-5, atol=1e-6)
            given = sample["statistics"][N_STATISTICS * place : N_STATISTICS * (place + 1)]
            np.testing.assert_array_equal(given, index.statistics[index.item_ids.tolist().index(item)])
    assert report.n_samples == len(by_user)
    assert report.dropped_share == pytest.approx(1 - len(by_user) / N_USERS)


def test_the_same_seed_draws_the_same_and_another_one_others(table, many_clicks):
    index, config = trigger_index(table), PI2IConfig()
    first, _ = draw_samples(many_clicks, index, config, seed=5)
    assert draw_samples(many_clicks, index, config, seed=5)[0].equals(first)
    assert not draw_samples(many_clicks, index, config, seed=6)[0].equals(first)


def test_clicks_in_several_chunks_draw_the_same(table, many_clicks, monkeypatch):
    index, config = trigger_index(table), PI2IConfig()
    prices = {item: math.log(1 + item % 7) for item in range(100, 130)}
    whole, report = draw_samples(many_clicks, index, config, seed=5, log_prices=prices)
    monkeypatch.setattr(sampling, "CLICKS_AT_ONCE", 7)
    parts, of_parts = draw_samples(many_clicks, index, config, seed=5, log_prices=prices)
    assert parts["item_ids"].num_chunks == -(-len(many_clicks) // 7) > 2
    assert parts.equals(whole)
    assert of_parts == report


def test_draws_follow_the_chance_that_is_corrected_for():
    # trigger 1 leads to 10, 11; trigger 2 to 10, 12, 13, 14; the positive is 11, so 2 gives the easy ones
    rows = [(1, 10, 0.5, 2), (1, 11, 0.4, 2), *((2, item, 0.3, 2) for item in (10, 12, 13, 14))]
    index = trigger_index(i2i_table(rows))
    told = clicks([(user, 11, [1, 2]) for user in range(2000)])
    samples, _ = draw_samples(told, index, PI2IConfig(sampling="sparse"), seed=1)
    first = samples.slice(0, 1).to_pylist()[0]
    assert first["item_ids"][1] == 10  # the only other target of trigger 1
    q = dict(zip(first["item_ids"], np.exp(first["log_q"]), strict=True))
    assert q == pytest.approx({11: 1 / 4, 10: (1 / 2 + 1 / 4) / 2, **{item: 1 / 8 for item in (12, 13, 14)}})


def test_statistics_of_a_target_are_its_place_in_the_table_and_its_counts():
    index = trigger_index(
        i2i_table([(1, 10, 0.5, 2), (1, 11, 0.25, 2), (2, 11, 0.25, 2), (2, 12, 0.1, 2)]),
        allowed_item_ids=np.array([10, 11]),
        item_statistics=counts([11, 7]),  # in any order, and of items that are no targets
    )
    assert index.item_ids.tolist() == [10, 11]
    expected = [
        [math.log1p(1), math.log(0.5 + TINY), 0, 0, 0, 0],
        [math.log1p(2), math.log(0.5 + TINY), *(math.log1p(11 * n) for n in (1, 2, 3, 4))],
    ]
    np.testing.assert_allclose(index.statistics, expected, rtol=1e-6)


def test_no_click_is_reached_without_a_table():
    index = trigger_index(i2i_table([(1, 2, 0.5, 2)]).slice(0, 0))
    samples, report = draw_samples(clicks([(1, 2, [1])]), index, PI2IConfig(), seed=1)
    assert len(samples) == 0
    assert report.dropped_share == 1


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="dim 32 must be a multiple of n_heads 3"):
        PI2IConfig(n_heads=3)
