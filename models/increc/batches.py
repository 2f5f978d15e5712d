"""
How do samples become batches? By vectorised gathering: no loop over samples, items embedded once a batch.

RTG / ITG / ETG = retrieved / incremental / exposed target group; N = the batch's negatives. A batch lists
the distinct items it needs (``rows``); everything else points into that list.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from models.increc.config import IncRecConfig
from models.increc.features import field_sizes
from models.increc.ragged import Ragged
from models.increc.ranks import ALONE, Ranks
from models.increc.samples import Samples
from models.increc.vocabulary import Vocabulary


@dataclass(frozen=True)
class Group:
    """One target group of a batch, flat: sample ``owner[p]`` has item ``item[p]``, both int64 [p]."""

    owner: Tensor
    item: Tensor


@dataclass(frozen=True)
class Batch:
    """
    b samples over r distinct items, as tensors.

    ``n_total``: the samples of the whole batch, of which this process has b. ``rows`` int64 [r]: the items;
    the first ``n_scored`` are targets, negatives or exposed, the others only history. ``side_rows`` int64
    [s]: the distinct rows of their side features, into which ``side_index`` int64 [r, f] points;
    ``profile_rows`` and ``profile_index`` likewise. ``exposed``: the distinct exposed items of the whole
    batch. ``negatives`` int64 [k] and ``log_weight`` float32 [k]: N. ``click_hits`` and ``exposure_hits``
    int64 [2, h]: (sample, column of N) where a negative is one of the sample's RTG ∪ ITG or ETG. ``similar``
    int64 [p]: for each ITG target the item j of Eq. 7 where the day's pool chose it, -1 for none; empty for
    the batch's pool.
    """

    n_samples: int
    n_total: int
    n_scored: int
    rows: Tensor
    side_rows: Tensor
    side_index: Tensor
    history_index: Tensor
    history_offsets: Tensor
    profile_rows: Tensor
    profile_index: Tensor
    profile_offsets: Tensor
    rtg: Group
    itg: Group
    etg: Group
    exposed: Tensor
    negatives: Tensor
    log_weight: Tensor
    click_hits: Tensor
    exposure_hits: Tensor
    similar: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Move every tensor to the device."""
        if device.type == "cpu":
            return self
        moved = {field.name: _to(getattr(self, field.name), device) for field in fields(self)}
        return Batch(**moved)


class Batches:
    """Shuffled batches of one run; the order and the negatives follow from (seed, epoch) alone."""

    def __init__(
        self,
        samples: Samples,
        vocabulary: Vocabulary,
        pool: np.ndarray,
        config: IncRecConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        """Hold the samples; ``pool`` int64 [i] are the rows of the candidate items N is drawn from."""
        self.samples, self.vocabulary, self.pool, self.config = samples, vocabulary, pool, config
        self.ranks = ranks
        self.n_steps = -(-len(samples) // config.batch_size)
        sizes = field_sizes(config)
        self._side_starts = np.cumsum([0, *sizes[:-1]]) if sizes else np.zeros(0, np.int64)
        self._places = [
            np.zeros(size, np.int64) for size in (len(vocabulary), sum(sizes), config.n_profile_buckets + 1)
        ]
        positives = np.concatenate([samples.rtg.values, samples.itg.values, samples.etg.values])
        self._share = np.bincount(positives, minlength=len(vocabulary)) / len(positives)

    def epoch(self, epoch: int, similar: np.ndarray | None = None) -> Iterator[Batch]:
        """
        Yield every sample once, the next batch made ready meanwhile.

        ``similar`` int64: the row of j of Eq. 7 for each value of ``samples.itg``, 0 for none.
        """
        generator = np.random.default_rng([self.config.seed, epoch])
        made = (self._batch(chosen, generator, similar) for chosen in self._cut(generator))
        with ThreadPoolExecutor(1, thread_name_prefix="tributary") as thread:
            ahead = thread.submit(next, made, None)
            while (batch := ahead.result()) is not None:
                ahead = thread.submit(next, made, None)
                yield batch

    def chosen(self, epoch: int, step: int) -> np.ndarray:
        """Give the samples of an epoch's step, counted from 0, as places in ``samples``: int64 [b]."""
        return list(self._cut(np.random.default_rng([self.config.seed, epoch])))[step]

    def _cut(self, generator: np.random.Generator) -> Iterator[np.ndarray]:
        order = generator.permutation(len(self.samples))
        for start in range(0, len(order), self.config.batch_size):
            yield order[start : start + self.config.batch_size]

    def _batch(self, chosen: np.ndarray, generator: np.random.Generator, similar: np.ndarray | None) -> Batch:
        clicked, exposed = (
            np.concatenate([getattr(self.samples, group).take(chosen).values for group in groups])
            for groups in (("rtg", "itg"), ("etg",))
        )
        negatives, log_weight = self._negatives(np.concatenate([clicked, exposed]), generator)
        n_total, chosen = len(chosen), self.ranks.part(chosen)
        part = self.samples.take(chosen)
        itg_similar = np.zeros(0, np.int64)
        if similar is not None:
            itg_similar = Ragged(similar, self.samples.itg.offsets).take(chosen).values
        clicked = np.concatenate([part.rtg.values, part.itg.values])
        scored = np.concatenate([clicked, exposed, negatives, itg_similar[itg_similar > 0]])
        place, side_place, profile_place = self._places
        rows, n_scored = _distinct(scored, part.history.values, place)
        side = self.vocabulary.side[rows] + self._side_starts
        side_rows, _ = _distinct(side.ravel(), side.ravel()[:0], side_place)
        profile_rows, _ = _distinct(part.profile.values, part.profile.values[:0], profile_place)
        column = np.full(len(rows), -1)
        column[place[negatives]] = np.arange(len(negatives))
        clicked_owner = np.concatenate([part.rtg.owners(), part.itg.owners()])
        return Batch(
            n_samples=len(chosen),
            n_total=n_total,
            n_scored=n_scored,
            rows=_tensor(rows),
            side_rows=_tensor(side_rows),
            side_index=_tensor(side_place[side]),
            history_index=_tensor(place[part.history.values]),
            history_offsets=_tensor(part.history.offsets),
            profile_rows=_tensor(profile_rows),
            profile_index=_tensor(profile_place[part.profile.values]),
            profile_offsets=_tensor(part.profile.offsets),
            rtg=Group(_tensor(part.rtg.owners()), _tensor(place[part.rtg.values])),
            itg=Group(_tensor(part.itg.owners()), _tensor(place[part.itg.values])),
            etg=Group(_tensor(part.etg.owners()), _tensor(place[part.etg.values])),
            exposed=_tensor(np.unique(place[exposed])),
            negatives=_tensor(place[negatives]),
            log_weight=_tensor(log_weight.astype(np.float32)),
            click_hits=_hits(clicked_owner, column[place[clicked]]),
            exposure_hits=_hits(part.etg.owners(), column[place[part.etg.values]]),
            similar=_tensor(np.where(itg_similar > 0, place[itg_similar], -1)),
        )

    def _negatives(
        self, positives: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Draw the batch's distinct negatives and the logarithm of each one's weight.

        In-batch negatives are the positives of all trained towers. The log-Q correction weighs an item drawn
        n times with n / (I * Q(item)), Q its chance in one draw and I the size of the pool, so that any
        mixture estimates the sum that uniform negatives estimate.
        """
        n_in_batch = {"uniform": 0, "mixed": self.config.n_negatives // 2}.get(
            self.config.negatives, self.config.n_negatives
        )
        n_uniform = min(self.config.n_negatives - n_in_batch, len(self.pool))
        n_in_batch = min(n_in_batch, len(positives))
        uniform = self.pool[generator.choice(len(self.pool), n_uniform, replace=False, shuffle=False)]
        if n_in_batch == 0:
            return uniform, np.zeros(n_uniform)
        in_batch = positives[generator.choice(len(positives), n_in_batch, replace=False, shuffle=False)]
        items, counts = np.unique(np.concatenate([uniform, in_batch]), return_counts=True)
        expected = n_uniform / len(self.pool) + n_in_batch * self._share[items]
        return items, np.log(counts * (n_uniform + n_in_batch) / (len(self.pool) * expected))


def _distinct(first: np.ndarray, others: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, int]:
    """
    List each value once, those of ``first`` in front, and count these; note in ``place`` where each one is.

    ``place`` has an entry for every possible value, so that nothing is sorted and nothing needs clearing.
    """
    values = np.concatenate([first, others])
    positions = np.arange(len(values))
    place[values[::-1]] = positions[::-1]
    is_first = place[values] == positions
    distinct = values[is_first]
    place[distinct] = np.arange(len(distinct))
    return distinct, int(is_first[: len(first)].sum())


def _hits(owners: np.ndarray, columns: np.ndarray) -> Tensor:
    """Keep the positives that are among the negatives: int64 [2, h]."""
    is_hit = columns >= 0
    return _tensor(np.stack([owners[is_hit], columns[is_hit]]))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _to(value: object, device: torch.device) -> object:
    if isinstance(value, Group):
        return Group(value.owner.to(device), value.item.to(device))
    return value.to(device) if isinstance(value, Tensor) else value
