"""
How do samples become batches? By vectorised gathering: no loop over samples, items embedded once a batch.

RTG / ITG / ETG = retrieved / incremental / exposed target group; N = the batch's negatives. A batch lists
the distinct items it needs (``rows``); everything else points into that list.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from models.increc.config import IncRecConfig
from models.increc.ragged import Ragged
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

    ``rows`` int64 [r] and ``side`` int64 [r, f]: the items; the first ``n_scored`` are targets or negatives,
    the others only history. ``history_context`` int64 [v, 2]: as ``Samples.context``. ``negatives`` int64 [k]
    and ``log_weight`` float32 [k]: N. ``click_hits`` and ``exposure_hits`` int64 [2, h]: (sample, column of
    N) where a negative is one of the sample's RTG ∪ ITG or ETG. ``similar`` int64 [p]: for each ITG target
    the item j of Eq. 7 where the day's pool chose it, -1 for none; empty for the batch's pool.
    """

    n_samples: int
    n_scored: int
    rows: Tensor
    side: Tensor
    history_index: Tensor
    history_offsets: Tensor
    history_context: Tensor
    profile_buckets: Tensor
    profile_offsets: Tensor
    rtg: Group
    itg: Group
    etg: Group
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
        self, samples: Samples, vocabulary: Vocabulary, pool: np.ndarray, config: IncRecConfig
    ) -> None:
        """Hold the samples; ``pool`` int64 [i] are the rows of the candidate items N is drawn from."""
        self.samples, self.vocabulary, self.pool, self.config = samples, vocabulary, pool, config
        self.n_steps = -(-len(samples) // config.batch_size)
        self._place = np.zeros(len(vocabulary), np.int64)
        positives = np.concatenate([samples.rtg.values, samples.itg.values, samples.etg.values])
        self._share = np.bincount(positives, minlength=len(vocabulary)) / len(positives)

    def epoch(self, epoch: int, similar: np.ndarray | None = None) -> Iterator[Batch]:
        """
        Yield every sample once.

        ``similar`` int64: the row of j of Eq. 7 for each value of ``samples.itg``, 0 for none.
        """
        generator = np.random.default_rng([self.config.seed, epoch])
        order = generator.permutation(len(self.samples))
        for start in range(0, len(order), self.config.batch_size):
            yield self._batch(order[start : start + self.config.batch_size], generator, similar)

    def _batch(self, chosen: np.ndarray, generator: np.random.Generator, similar: np.ndarray | None) -> Batch:
        part = self.samples.take(chosen)
        itg_similar = np.zeros(0, np.int64)
        if similar is not None:
            itg_similar = Ragged(similar, self.samples.itg.offsets).take(chosen).values
        clicked = np.concatenate([part.rtg.values, part.itg.values])
        negatives, log_weight = self._negatives(np.concatenate([clicked, part.etg.values]), generator)
        scored = np.unique(
            np.concatenate([clicked, part.etg.values, negatives, itg_similar[itg_similar > 0]])
        )
        only_history = np.setdiff1d(part.history.values, scored)
        rows = np.concatenate([scored, only_history])
        place = self._place
        place[rows] = np.arange(len(rows))
        column = np.full(len(rows), -1)
        column[place[negatives]] = np.arange(len(negatives))
        clicked_owner = np.concatenate([part.rtg.owners(), part.itg.owners()])
        return Batch(
            n_samples=len(chosen),
            n_scored=len(scored),
            rows=_tensor(rows),
            side=_tensor(self.vocabulary.side[rows]),
            history_index=_tensor(place[part.history.values]),
            history_offsets=_tensor(part.history.offsets),
            history_context=_tensor(part.context.values),
            profile_buckets=_tensor(part.profile.values),
            profile_offsets=_tensor(part.profile.offsets),
            rtg=Group(_tensor(part.rtg.owners()), _tensor(place[part.rtg.values])),
            itg=Group(_tensor(part.itg.owners()), _tensor(place[part.itg.values])),
            etg=Group(_tensor(part.etg.owners()), _tensor(place[part.etg.values])),
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
