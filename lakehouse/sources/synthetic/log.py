"""What did a (small) synthetic world log, as arrays to measure on?"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.sources.synthetic.config import SCENARIOS
from lakehouse.sources.synthetic.population import fit
from lakehouse.sources.synthetic.requests import HOME
from lakehouse.sources.synthetic.world import SyntheticWorld


@dataclass(frozen=True)
class Log:
    """All exposures of a world as arrays, and its rankings by day; users and items by index (id - 1)."""

    day: np.ndarray
    user: np.ndarray
    item: np.ndarray
    scenario: np.ndarray
    is_click: np.ndarray
    is_order: np.ndarray
    rankings: list[pa.Table]

    @property
    def n_users(self) -> int:
        """User indices lie below this."""
        return int(self.user.max()) + 1

    def clicks(self, *, scenario: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give (day, user, item) of the clicks, of one scenario or of all."""
        rows = self.is_click if scenario is None else self.is_click & (self.scenario == scenario)
        return self.day[rows], self.user[rows], self.item[rows]


def read_log(world: SyntheticWorld) -> Log:
    """Read every day of a world that is small enough for memory."""
    days = [world.first_day + timedelta(days=n) for n in range(world.config.n_days)]
    both = [list(world.read_blocks(day)) for day in days]
    shown = [pa.concat_tables(exposure for exposure, _ in blocks) for blocks in both]
    rows = pa.concat_tables(shown)
    names = np.array(world.config.scenarios)
    order = np.argsort(names)
    scenario = order[np.searchsorted(names[order], rows["scenario"].to_numpy().astype(names.dtype))]
    return Log(
        day=np.repeat(np.arange(len(days)), [table.num_rows for table in shown]),
        user=rows["user_id"].to_numpy() - 1,
        item=rows["item_id"].to_numpy() - 1,
        scenario=scenario,
        is_click=rows["is_click"].to_numpy(),
        is_order=rows["is_order"].to_numpy(),
        rankings=[pa.concat_tables(ranking for _, ranking in blocks) for blocks in both],
    )


@dataclass(frozen=True)
class Openings:
    """The interests that a day opened; one row each."""

    user: np.ndarray
    scenario: np.ndarray
    trigger: np.ndarray
    suits: np.ndarray  # fit of the trigger to the user
    variant: np.ndarray  # which companion the user moves on to


def read_openings(world: SyntheticWorld, number: int) -> Openings:
    """Give the openings of day ``number`` from the latent state."""
    columns = []
    for block in world.blocks(number):
        users, openings = world.users(block, number), world.openings(block, number)
        suits = fit(users.style[openings.user], world.items.style[openings.trigger])
        variant = users.variant[openings.user]
        columns.append((users.index[openings.user], openings.scenario, openings.trigger, suits, variant))
    return Openings(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))


@dataclass(frozen=True)
class Unexposed:
    """The unexposed items of a day's rankings outside home; one row per ranking and item."""

    user: np.ndarray
    item: np.ndarray
    place: np.ndarray  # float in [0, 1): place among the unexposed items of the ranking


def unexposed(ranking: pa.Table, page_size: int, home: str = SCENARIOS[HOME]) -> Unexposed:
    """Flatten what the rankings outside home hold behind their first page."""
    elsewhere = ranking.filter(pc.not_equal(ranking["scenario"], home)).combine_chunks()
    lists = elsewhere["item_ids"].combine_chunks()
    length = lists.value_lengths().to_numpy()
    start = np.cumsum(length) - length
    row = np.repeat(np.arange(len(length)), length)
    rank = np.arange(length.sum()) - start[row]
    behind = rank >= page_size
    n_behind = np.maximum(length - page_size, 1)[row]
    return Unexposed(
        user=elsewhere["user_id"].to_numpy()[row][behind] - 1,
        item=lists.flatten().to_numpy()[behind] - 1,
        place=((rank - page_size) / n_behind)[behind],
    )
