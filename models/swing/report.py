"""What went into one Swing index, and what came out?"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.swing.click_index import ClickIndex
from models.swing.config import SwingConfig


@dataclass(frozen=True)
class SwingReport:
    """What went into one Swing index and what came out."""

    n_clicks: int
    """Rows of the click table."""
    n_distinct_clicks: int
    """Distinct (user, item) pairs in it."""
    n_users: int
    n_items: int
    n_triggers: int
    """Items with at least one target."""
    n_rows: int
    n_items_capped: int
    """Triggers that lost users to ``max_users_per_item``."""
    n_users_capped: int
    """Users who lost items to ``max_items_per_user``."""
    share_clicks_dropped: float
    """Share of the distinct clicks that a cap kept from counting for their trigger."""
    mean_targets: float
    """Mean number of targets per trigger; 0 without triggers."""
    median_targets: float
    n_triggers_truncated: int
    """Triggers with exactly T targets, where truncation may have cut some."""
    path: str
    """Which way the scores were computed: see `models.swing.paths`."""
    n_blocks: int
    """Blocks of triggers that were scored one by one."""
    seconds: float


class TargetCounts:
    """How many targets do the triggers have? Taken from blocks of rows as they pass."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self._n_targets: list[np.ndarray] = []

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Count the rows of whole triggers, in any order of blocks; each trigger's rows lie together."""
        first = np.flatnonzero(rows["rank"].to_numpy() == 1)
        self._n_targets.append(np.diff(first, append=rows.num_rows).astype(np.int32))

    def n_targets(self) -> np.ndarray:
        """Give the targets of each trigger that has any, int32."""
        return np.concatenate(self._n_targets) if self._n_targets else np.empty(0, np.int32)


def swing_report(
    index: ClickIndex,
    counts: TargetCounts,
    config: SwingConfig,
    *,
    path: str,
    n_blocks: int,
    seconds: float,
) -> SwingReport:
    """Sum up a build."""
    n_targets = counts.n_targets()
    return SwingReport(
        n_clicks=index.n_clicks,
        n_distinct_clicks=index.n_distinct_clicks,
        n_users=index.n_users,
        n_items=index.n_clicked_items,
        n_triggers=len(n_targets),
        n_rows=int(n_targets.sum(dtype=np.int64)),
        n_items_capped=index.n_items_capped,
        n_users_capped=index.n_users_capped,
        share_clicks_dropped=index.share_clicks_dropped,
        mean_targets=float(np.mean(n_targets)) if len(n_targets) else 0.0,
        median_targets=float(np.median(n_targets)) if len(n_targets) else 0.0,
        n_triggers_truncated=int(np.sum(n_targets == config.truncation)),
        path=path,
        n_blocks=n_blocks,
        seconds=seconds,
    )
