"""
What did the store hold for a user at a given moment? MNR over a log of rankings: Arrow in, Arrow out.

The daily batch asks for the end of a day, the replay for the moments of requests. A visit counts from its
event time plus a delay on, strictly before the moment: it gives what the streaming job had written by then.
Shapes: V visits, sorted by (user, scenario, event_time, request_id); G queues (user, scenario); P lists.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from models.mnr.config import MNRConfig, UnknownScenario
from models.mnr.scoring import constants, merge, n_before_pause
from models.mnr.visit import NO_CATEGORY, clean_into

CANDIDATES_SCHEMA = pa.schema(
    [
        pa.field("moment", pa.int64(), False),
        pa.field("user_id", pa.int64(), False),
        pa.field("scenario", pa.string(), False),
        pa.field("event_time", pa.timestamp("us"), False),
        pa.field("item_ids", pa.list_(pa.int64()), False),
        pa.field("scores", pa.list_(pa.float32()), False),
    ]
)
BLOCK = 8192


@dataclass(frozen=True)
class LogReport:
    """What a log's rankings lost on their way into visits."""

    n_rankings: int
    n_visits: int
    n_empty: int
    """Rankings without an item that counts."""
    n_duplicate: int
    """Rankings of a request that their queue had already."""
    n_refused: int
    """Rankings of scenarios without a truncation."""
    n_unknown: int
    """Items with a null or negative id; this and the next two of rankings that were not refused."""
    n_bad_scores: int
    """Items whose score is null, NaN or infinite."""
    n_repeated: int
    """Second and later places of an item."""


@dataclass(frozen=True)
class VisitLog:
    """A log's visits, cleaned and sorted; build it once for many ``candidates_at``."""

    users: np.ndarray  # int64 [G], ascending
    scenarios: np.ndarray  # str [G]
    starts: np.ndarray  # int64 [G + 1], of each queue's visits
    times: np.ndarray  # int64 [V], microseconds since 1970
    requests: np.ndarray  # int64 [V]
    item_starts: np.ndarray  # int64 [V + 1]
    items: np.ndarray  # int64
    categories: np.ndarray  # int64, -1 for none
    report: LogReport


def read_log(ranking_log: pa.Table, config: MNRConfig) -> VisitLog:
    """
    Clean, truncate and sort the rankings of a log.

    Args:
        ranking_log: request_id, user_id, scenario, event_time, item_ids, category_ids, scores; in any order.
        config: MNR's hyperparameters.

    Raises:
        ValueError: a ranking whose lists differ in length.
    """
    names, codes = _scenario_codes(ranking_log["scenario"])
    truncations = np.array([_truncation_or_zero(config, name) for name in names], np.int64)
    users, requests = ranking_log["user_id"].to_numpy(), ranking_log["request_id"].to_numpy()
    times = ranking_log["event_time"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    order = np.lexsort((requests, times, codes, users))
    order = order[truncations[codes[order]] > 0]
    n_accepted = len(order)
    offsets, items, categories, scores = _lists(ranking_log)
    lengths, items, categories, lost = _clean_rows(
        order, offsets, items, categories, scores, truncations[codes[order]]
    )
    # As in a queue, a ranking of which nothing counts does not make the next of its request a duplicate.
    order, lengths = order[lengths > 0], lengths[lengths > 0]
    is_first = _is_first_of_request(users[order], codes[order], requests[order])
    if not is_first.all():
        of_first = np.flatnonzero(np.repeat(is_first, lengths))
        items, categories = items[of_first], categories[of_first]
        order, lengths = order[is_first], lengths[is_first]
    item_starts = np.concatenate([[0], np.cumsum(lengths)])
    is_new = _differs_from_last(users[order], codes[order])
    starts = np.append(np.flatnonzero(is_new), len(order))
    first = order[starts[:-1]]
    report = LogReport(
        n_rankings=len(users),
        n_visits=len(order),
        n_empty=n_accepted - len(is_first),
        n_duplicate=int((~is_first).sum()),
        n_refused=len(users) - n_accepted,
        n_unknown=int(lost[0]),
        n_bad_scores=int(lost[1]),
        n_repeated=int(lost[2]),
    )
    return VisitLog(
        users[first],
        names[codes[first]],
        starts,
        times[order],
        requests[order],
        item_starts,
        items[: item_starts[-1]],
        categories[: item_starts[-1]],
        report,
    )


def candidates_at(
    log: VisitLog, moments: pa.Table, config: MNRConfig, delay_seconds: float = 0.0
) -> pa.Table:
    """
    Give what the store held of each moment's user, one row per scenario with candidates.

    Args:
        log: of ``read_log``, with the same ``config`` but for what only scores: alpha, beta, k, order, ...
        moments: user_id and event_time, in any order. A million of them with k = 200 take gigabytes: slice.
        config: MNR's hyperparameters.
        delay_seconds: from a visit's event time until the store has it.

    Returns:
        ``CANDIDATES_SCHEMA``: ``moment`` is the row in ``moments``, ``event_time`` the newest visit's;
        sorted by (moment, scenario).
    """
    users = moments["user_id"].to_numpy()
    times = moments["event_time"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    times = times - round(delay_seconds * 1e6)
    first = np.searchsorted(log.users, users)
    n_queues = np.searchsorted(log.users, users, side="right") - first
    moment = np.repeat(np.arange(len(users)), n_queues)
    queue = np.arange(len(moment)) - np.repeat(np.cumsum(n_queues) - n_queues, n_queues) + first[moment]
    end = _ends(log.starts, log.times, queue, times[moment], config.idle_seconds * 1_000_000)
    found = end > 0
    moment, queue, end = moment[found], queue[found], end[found]
    blocks = [
        _block(log, moment[at], queue[at], end[at], users, config)
        for at in (slice(start, start + BLOCK) for start in range(0, len(moment), BLOCK))
    ]
    return pa.concat_tables(blocks) if blocks else CANDIDATES_SCHEMA.empty_table()


def _block(
    log: VisitLog,
    moment: np.ndarray,
    queue: np.ndarray,
    end: np.ndarray,
    users: np.ndarray,
    config: MNRConfig,
) -> pa.Table:
    lengths, ids, scores = _score_lists(
        log.starts, log.times, log.requests, log.item_starts, log.items, log.categories, queue, end,
        *constants(config),
    )  # fmt: skip
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.table(
        [
            moment,
            users[moment],
            pa.array(log.scenarios[queue], pa.string()),
            pa.array(log.times[end - 1], pa.int64()).cast(pa.timestamp("us")),
            pa.ListArray.from_arrays(offsets, ids),
            pa.ListArray.from_arrays(offsets, scores),
        ],
        schema=CANDIDATES_SCHEMA,
    )


def _scenario_codes(scenarios: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Give the names, sorted, and each row's place among them."""
    names = np.array(sorted(pc.unique(scenarios).to_pylist()), object)
    return names, pc.index_in(scenarios, pa.array(names, pa.string())).to_numpy().astype(np.int64)


def _truncation_or_zero(config: MNRConfig, scenario: str) -> int:
    try:
        return config.truncation_of(scenario)
    except UnknownScenario:
        return 0


def _differs_from_last(*columns: np.ndarray) -> np.ndarray:
    """Tell of each row whether any of the columns differs from the row before; true of the first."""
    differs = np.zeros(len(columns[0]), bool)
    differs[:1] = True
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    return differs


def _is_first_of_request(users: np.ndarray, codes: np.ndarray, requests: np.ndarray) -> np.ndarray:
    """Tell of each row whether no earlier one has its user, scenario and request."""
    by_request = np.lexsort((np.arange(len(users)), requests, codes, users))
    is_first = np.empty(len(users), bool)
    is_first[by_request] = _differs_from_last(users[by_request], codes[by_request], requests[by_request])
    return is_first


def _lists(ranking_log: pa.Table) -> tuple[np.ndarray, ...]:
    """Give offsets int64 [rows + 1] and flat items, categories, scores; nulls are -1, -1 and NaN."""
    flat, lengths = {}, {}
    for name, missing in (("item_ids", -1), ("category_ids", NO_CATEGORY), ("scores", float("nan"))):
        column = ranking_log[name].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        lengths[name] = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        values = column.flatten()
        flat[name] = pc.fill_null(values, pa.scalar(missing, values.type)).to_numpy(zero_copy_only=False)
    for name in ("category_ids", "scores"):
        differs = np.flatnonzero(lengths[name] != lengths["item_ids"])
        if len(differs):
            request = ranking_log["request_id"][int(differs[0])]
            raise ValueError(f"request {request}: {name} and item_ids of its ranking differ in length")
    offsets = np.concatenate([[0], np.cumsum(lengths["item_ids"], dtype=np.int64)])
    return offsets, flat["item_ids"], flat["category_ids"], flat["scores"].astype(np.float64)


@njit(cache=True, nogil=True)
def _clean_rows(order, offsets, ranked, their_categories, scores, truncations):
    """Clean rows in the given order; give their lengths, flat items and categories, and the items lost."""
    most = 0
    for place in range(len(order)):
        row = order[place]
        most += min(offsets[row + 1] - offsets[row], truncations[place])
    items, categories = np.empty(most, np.int64), np.empty(most, np.int64)
    lengths = np.empty(len(order), np.int64)
    lost = np.zeros(3, np.int64)
    end = 0
    for place in range(len(order)):
        row = order[place]
        of_row = slice(offsets[row], offsets[row + 1])
        n, n_unknown, n_bad_scores, n_repeated = clean_into(
            items[end:], categories[end:], ranked[of_row], their_categories[of_row], scores[of_row],
            truncations[place],
        )  # fmt: skip
        lost[0] += n_unknown
        lost[1] += n_bad_scores
        lost[2] += n_repeated
        lengths[place] = n
        end += n
    return lengths, items, categories, lost


@njit(cache=True, nogil=True)
def _ends(starts, times, queues, moments, idle):
    """Give, of each pair, one past the queue's newest visit before the moment; 0 where none counts."""
    ends = np.zeros(len(queues), np.int64)
    for pair in range(len(queues)):
        start = starts[queues[pair]]
        low, high = start, starts[queues[pair] + 1]
        while low < high:
            middle = (low + high) // 2
            if times[middle] < moments[pair]:
                low = middle + 1
            else:
                high = middle
        if low > start and moments[pair] - times[low - 1] < idle:
            ends[pair] = low
    return ends


@njit(cache=True, nogil=True)
def _score_lists(
    starts, times, requests, item_starts, items, categories, queues, ends,
    n_most, idle, alpha, beta, limit, k, order, seed,
):  # fmt: skip
    """Give the lengths of the pairs' lists, and their ids and scores one after the other."""
    n_pairs = len(queues)
    lengths = np.zeros(n_pairs, np.int64)
    ids, scores = np.empty(n_pairs * k, np.int64), np.empty(n_pairs * k, np.float32)
    at = 0
    for pair in range(n_pairs):
        n_visits = min(n_most, ends[pair] - starts[queues[pair]])
        newest_first = np.arange(ends[pair] - 1, ends[pair] - 1 - n_visits, -1)
        newest_first = newest_first[: n_before_pause(times[newest_first], idle)]
        of_visit = item_starts[newest_first]
        found, values = merge(
            items, categories, of_visit, of_visit, item_starts[newest_first + 1] - of_visit,
            requests[newest_first[0]], alpha, beta, limit, k, order, seed,
        )  # fmt: skip
        n = len(found)
        ids[at : at + n] = found
        scores[at : at + n] = values
        lengths[pair] = n
        at += n
    return lengths, ids[:at].copy(), scores[:at].copy()
