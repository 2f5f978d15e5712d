"""
How do training samples look to the trainer? Arrow list columns -> flat arrays of vocabulary rows, once.

RTG / ITG / ETG = retrieved / incremental / exposed target group.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.increc import backbones
from models.increc.config import IncRecConfig
from models.increc.features import (
    context_buckets,
    no_context,
    no_profiles,
    profiles_of_users,
    require_columns,
)
from models.increc.ragged import Ragged, ids_from_arrow
from models.increc.vocabulary import Vocabulary

BLOCK = 65_536
GROUPS = ("rtg", "itg", "etg")


class NoSamples(ValueError):
    """There is nothing to learn from: no sample has a positive that the variant trains on."""


@dataclass(frozen=True)
class Samples:
    """
    n samples, one request each, in vocabulary rows.

    ``history`` (newest ``history_length`` items, oldest first; [0] where empty), ``rtg``, ``itg``, ``etg``,
    ``profile`` (buckets) are ragged over the samples; ``day`` int64 [n] numbers the sample's day; ``number``
    int64 [n] is its ``request_id``, or its row of the sample table where that has none. ``context`` has for
    each item of ``history`` the buckets of the time gap to the request and of the scenario, [v, 2]; its rows
    are empty where the backbone does not read them.
    """

    history: Ragged
    context: Ragged
    rtg: Ragged
    itg: Ragged
    etg: Ragged
    profile: Ragged
    day: np.ndarray
    number: np.ndarray

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.day)

    def take(self, rows: np.ndarray) -> "Samples":
        """Gather samples in the given order."""
        parts = {name: getattr(self, name).take(rows) for name in ("history", "context", *GROUPS, "profile")}
        return Samples(**parts, day=self.day[rows], number=self.number[rows])


def read_samples(
    samples: pa.Table, users: pa.Table, vocabulary: Vocabulary, config: IncRecConfig
) -> tuple[Samples, int]:
    """
    Read what the variant learns from; also count the target and exposed items without a row (left out).

    Samples without a positive of the variant are dropped. The day is column ``ds`` where there is one, else
    the date of ``event_time``; only ``etg_pool = "day"`` looks at it.

    Raises:
        NoSamples: no sample is left, or none has an ITG item where the serving tower learns from these.
    """
    needed = ["user_id", "event_time", "history_item_ids", *(f"{group}_item_ids" for group in GROUPS)]
    require_columns(samples, needed, "the sample table")
    history, context = _histories(samples, vocabulary, config)
    groups = {group: _rows(samples[f"{group}_item_ids"], vocabulary) for group in GROUPS}
    n_unknown = sum(
        pc.sum(pc.list_value_length(samples[f"{group}_item_ids"])).as_py() or 0 for group in GROUPS
    ) - sum(len(rows.values) for rows in groups.values())
    unused = {"etg"} if "alignment" not in config.towers else set()
    unused |= {"rtg"} if config.variant == "TB-ITG" else set()
    profile, number = _profiles(samples, users, config), np.arange(len(samples))
    if "request_id" in samples.column_names:
        number = samples["request_id"].to_numpy()
    read = Samples(history, context, **groups, profile=profile, day=_days(samples), number=number)
    n_positives = sum(groups[group].lengths for group in GROUPS if group not in unused)
    read = read.take(np.flatnonzero(n_positives > 0))
    if "etg" in unused:
        read = replace(read, etg=Ragged(np.zeros(0, np.int64), np.zeros(len(read) + 1, np.int64)))
    if not len(read):
        raise NoSamples(
            f"{config.variant} has nothing to learn from: none of {len(samples)} samples has a positive; "
            "train on a window with clicks"
        )
    if config.needs_itg and not len(read.itg.values):
        raise NoSamples(
            f"{config.variant} has nothing to learn from: none of {len(samples)} samples has an incremental "
            "target (ITG); the existing channels retrieved every one, so a smaller R_u is needed"
        )
    return read, n_unknown


def _histories(samples: pa.Table, vocabulary: Vocabulary, config: IncRecConfig) -> tuple[Ragged, Ragged]:
    """Give the rows of each sample's newest known history items, and their context."""
    history = _in_blocks(
        samples,
        lambda block: _rows(block["history_item_ids"], vocabulary).last(config.history_length).fill_empty(0),
    )
    if not backbones.load(config.backbone).READS_SEQUENCE:
        return history, no_context(len(samples))
    columns = ["history_event_times", "history_scenarios"]
    require_columns(samples, columns, "the sample table")

    def context_of(block: pa.Table) -> Ragged:
        ids = ids_from_arrow(block["history_item_ids"])
        now = block["event_time"].to_numpy()
        context = context_buckets(ids, *(block[name] for name in columns), now, config)
        return context.where(vocabulary.rows(ids.values) > 0).last(config.history_length).fill_empty(0)

    return history, _in_blocks(samples, context_of)


def _in_blocks(samples: pa.Table, read: Callable[[pa.Table], Ragged]) -> Ragged:
    """Read the samples in blocks: histories are long, and what is left out of them needs no memory."""
    parts = [read(samples.slice(start, BLOCK)) for start in range(0, max(1, len(samples)), BLOCK)]
    return Ragged.from_lengths(
        np.concatenate([part.values for part in parts]), np.concatenate([part.lengths for part in parts])
    )


def _rows(item_ids: pa.ChunkedArray, vocabulary: Vocabulary) -> Ragged:
    """Turn lists of item ids into lists of their rows, unknown items left out."""
    ids = ids_from_arrow(item_ids)
    rows = Ragged(vocabulary.rows(ids.values), ids.offsets)
    return rows.where(rows.values > 0)


def _profiles(samples: pa.Table, users: pa.Table, config: IncRecConfig) -> Ragged:
    """Give the buckets of each sample's user."""
    if config.n_profile_buckets == 0 or not len(users):
        return no_profiles(len(samples))
    return profiles_of_users(samples["user_id"].to_numpy(), users, config.n_profile_buckets)


def _days(samples: pa.Table) -> np.ndarray:
    column = samples["ds"] if "ds" in samples.column_names else samples["event_time"]
    dates = column.cast(pa.date32()).cast(pa.int32()).to_numpy()
    return np.unique(dates, return_inverse=True)[1].astype(np.int64)
