"""Where a world plants it, fresh, well-ranked rankings are found; where rankings tell nothing, nothing is."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from tasks.mnr_study import ALL, STREAMING, mnr_study
from tasks.prepare import STEPS, run_step
from tasks.settings import load_settings

FIRST = date(2026, 1, 1)
# Rankings that tell nothing: neither of users, nor of items, nor of days.
OFF = dict.fromkeys(
    (
        "session_strength",
        "ranking_skill",
        "trigger_strength",
        "taste_strength",
        "popularity_skew",
        "popularity_drift",
        "new_item_boost",
        "new_items_per_day",
        "unavailable_share",
    ),
    0,
)


def lower_and_upper(var: Path, world: dict) -> dict[str, tuple[float, float]]:
    """Bounds of the differences in normalised hit rate on the last three days of a world."""
    settings = load_settings()
    source = settings.source.model_copy(
        update={"synthetic": settings.source.synthetic.model_copy(update=world)}
    )
    settings = settings.model_copy(
        update={"var": var, "lakehouse_root": str(var / "lakehouse"), "source": source}
    )
    for n in range(10):
        for step in (name for name in STEPS if name != "validate_data"):
            run_step(step, FIRST + timedelta(days=n), settings)
    study = mnr_study(FIRST + timedelta(days=7), FIRST + timedelta(days=9), settings)
    rows = {
        "streaming - daily": study.find("table2", ALL, STREAMING),
        "score - fifo": study.find("table3", ALL, "score"),
        "fifo - random": study.find("table3", ALL, "fifo"),
    }
    found = {name: row.differences["hit_rate"] for name, row in rows.items()}
    return {name: (difference.low, difference.high) for name, difference in found.items()}


@pytest.mark.slow
def test_streaming_beats_daily_and_score_beats_fifo_beats_random_in_the_demo_world(tmp_path):
    for name, (low, _) in lower_and_upper(tmp_path, {}).items():
        assert low > 0, name


@pytest.mark.slow
def test_nothing_differs_where_rankings_tell_nothing(tmp_path):
    for name, (low, high) in lower_and_upper(tmp_path, OFF).items():
        assert low <= 0 <= high, name
