"""Rankings for tests: into queues one by one, and as a log's table."""

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from lakehouse.tables import RANKING_LOG
from models.mnr import MNRConfig, Outcome, clean_ranking, insert
from tests.models.mnr.oracle import Ranking

NIGHT = datetime(2026, 1, 1)
NIGHT_MICROSECONDS = round((NIGHT - datetime(1970, 1, 1)).total_seconds() * 1e6)


def ranking(request_id: int, time: float, items: list, categories=None, scores=None) -> Ranking:
    n = len(items)
    categories = [-1] * n if categories is None else categories
    scores = [1.0 - 0.01 * place for place in range(n)] if scores is None else scores
    return Ranking(request_id, time, tuple(items), tuple(categories), tuple(scores))


def put(state: bytes | None, of: Ranking, config: MNRConfig, scenario="search") -> tuple[bytes, Outcome]:
    visit, _ = clean_ranking(
        of.request_id,
        NIGHT_MICROSECONDS + round(of.time * 1e6),
        scenario,
        np.array(of.items, np.int64),
        np.array(of.categories, np.int64),
        np.array(of.scores, np.float64),
        config,
    )
    return insert(state, visit, config)


def queue(rankings: list[Ranking], config: MNRConfig, scenario="search") -> bytes | None:
    state = None
    for one in rankings:
        state, _ = put(state, one, config, scenario)
    return state


def log_table(rows: list[tuple[int, str, Ranking]]) -> pa.Table:
    """Give a ranking_log of (user, scenario, ranking) rows."""
    return pa.table(
        [
            [one.request_id for _, _, one in rows],
            [user for user, _, _ in rows],
            [scenario for _, scenario, _ in rows],
            [NIGHT + timedelta(seconds=float(one.time)) for _, _, one in rows],
            [list(one.items) for _, _, one in rows],
            [list(one.categories) for _, _, one in rows],
            pa.array([list(one.scores) for _, _, one in rows], pa.list_(pa.float32())),
        ],
        schema=RANKING_LOG.schema,
    )


@st.composite
def rankings(draw: st.DrawFn, max_size: int = 12) -> list[Ranking]:
    """Draw a log: each request once, with the odd repeated or negative item, NaN score and equal time."""
    requests = draw(st.lists(st.integers(-3, 40), unique=True, max_size=max_size))
    rows = st.tuples(st.integers(-1, 12), st.integers(-1, 3), st.sampled_from([0.5, 0.1, float("nan")]))
    drawn = []
    for request in requests:
        ranked = draw(st.lists(rows, max_size=8))
        items, categories, scores = zip(*ranked, strict=True) if ranked else ((), (), ())
        drawn.append(Ranking(request, draw(st.integers(0, 30)), items, categories, scores))
    return drawn


configs = st.builds(
    MNRConfig,
    truncation=st.just({"shop": 2}),
    default_truncation=st.integers(1, 6),
    n_visits=st.integers(1, 5),
    alpha=st.sampled_from([0.5, 10.0, 50.0, 500.0]),
    beta=st.sampled_from([0.3, 10.0]),
    max_per_category=st.sampled_from([None, 1, 2]),
    k=st.integers(1, 12),
    idle_seconds=st.sampled_from([5, 1000]),
)
