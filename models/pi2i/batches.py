"""How do trigger-target samples become batches? Flat arrays of vocabulary rows once, then padded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from models.increc.features import field_sizes, no_profiles, profiles_of_users, require_columns
from models.increc.ragged import Ragged, list_lengths, one_array
from models.increc.vocabulary import Vocabulary
from models.pi2i.candidates import N_CROSS
from models.pi2i.config import PI2IConfig
from models.pi2i.sampling import SCHEMA
from models.pi2i.trigger_index import N_STATISTICS

# Samples that are scored together; another number draws other dropout masks.
PART = 64


class NoSamples(ValueError):
    """There is nothing to learn from."""


@dataclass(frozen=True)
class Samples:
    """
    n samples in vocabulary rows, ragged over the samples.

    ``triggers`` newest first; ``items`` the positive first, with ``masks`` uint64 [v, 2], ``cross`` float32
    [v, N_CROSS], ``statistics`` float32 [v, N_STATISTICS] and ``log_q`` float32 [v] beside them; ``profile``
    buckets of the user.
    """

    triggers: Ragged
    items: Ragged
    masks: np.ndarray
    cross: np.ndarray
    statistics: np.ndarray
    log_q: np.ndarray
    profile: Ragged

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.items)


@dataclass(frozen=True)
class Batch:
    """
    b samples of a step, of at most c candidates and l triggers, over r distinct items.

    ``rows`` int64 [r]; ``side_rows`` int64 [s]: the distinct rows of their side features, into which
    ``side_index`` int64 [r, f] points; ``triggers`` int64 [b, l] and ``items`` int64 [b, c] point into
    them, ``is_trigger`` and ``is_item`` bool tell which are there; ``reached_by`` float32 [b, c, l] has
    rows that sum to 1; ``cross`` [b, c, N_CROSS]; ``statistics`` [b, c, N_STATISTICS]; ``log_q`` [b, c];
    profiles as buckets cut at offsets.
    """

    rows: Tensor
    side_rows: Tensor
    side_index: Tensor
    triggers: Tensor
    is_trigger: Tensor
    items: Tensor
    is_item: Tensor
    reached_by: Tensor
    cross: Tensor
    statistics: Tensor
    log_q: Tensor
    profile_buckets: Tensor
    profile_offsets: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Move every tensor to the device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


def read_samples(samples: pa.Table, users: pa.Table, vocabulary: Vocabulary, config: PI2IConfig) -> Samples:
    """
    Read rows of ``sampling.SCHEMA``.

    An item without a row (new since the vocabulary) counts as row 0, unknown.

    Raises:
        NoSamples: there are none.
        MissingColumn: a column is missing.
    """
    require_columns(samples, SCHEMA.names, "the sample table")
    if not len(samples):
        raise NoSamples("PI2I has nothing to learn from: no click of the window is reached by a trigger")

    def flat(name: str) -> tuple[np.ndarray, np.ndarray]:
        lists = one_array(samples[name])
        return lists.flatten().to_numpy(zero_copy_only=False), list_lengths(lists)

    items, n_items = flat("item_ids")
    triggers, n_triggers = flat("trigger_item_ids")
    profile = no_profiles(len(samples))
    if config.n_profile_buckets and len(users):
        profile = profiles_of_users(samples["user_id"].to_numpy(), users, config.n_profile_buckets)
    return Samples(
        Ragged.from_lengths(vocabulary.rows(triggers), n_triggers),
        Ragged.from_lengths(vocabulary.rows(items), n_items),
        flat("trigger_masks")[0].reshape(-1, 2),
        flat("cross")[0].reshape(-1, N_CROSS),
        flat("statistics")[0].reshape(-1, N_STATISTICS),
        flat("log_q")[0],
        profile,
    )


class Part(NamedTuple):
    """Some samples of a step, int64 [n], and the seed of what is drawn for them."""

    samples: np.ndarray
    seed: int


class Batches:
    """Shuffled batches of one run; what they hold follows from (seed, epoch) alone."""

    def __init__(self, samples: Samples, vocabulary: Vocabulary, config: PI2IConfig) -> None:
        """Hold the samples."""
        self.samples, self.vocabulary, self.config = samples, vocabulary, config
        self._places = Ragged(np.arange(len(samples.items.values)), samples.items.offsets)
        self.n_steps = -(-len(samples) // config.batch_size)
        self._side_starts = np.cumsum([0, *field_sizes(config)])[:-1]

    def epoch(self, epoch: int) -> Iterator[list[Part]]:
        """
        Yield every sample once, a list for each step.

        A step's samples are cut into parts, which fit the cache and may be scored side by side; those with
        as many triggers come together, so that little is padded.
        """
        generator = np.random.default_rng([self.config.seed, epoch])
        order = generator.permutation(len(self.samples))
        for start in range(0, len(order), self.config.batch_size):
            chosen = order[start : start + self.config.batch_size]
            chosen = chosen[np.argsort(-self.samples.triggers.lengths[chosen], kind="stable")]
            parts = [chosen[at : at + PART] for at in range(0, len(chosen), PART)]
            yield [Part(part, int(generator.integers(2**63))) for part in parts]

    def batch(self, part: Part) -> Batch:
        """Gather a part's samples."""
        samples, chosen = self.samples, part.samples
        triggers, is_trigger = padded(samples.triggers.take(chosen))
        items, is_item = padded(samples.items.take(chosen))
        places = self._places.take(chosen).values
        reached_by = np.zeros((*items.shape, triggers.shape[1]), np.float32)
        reached_by[is_item] = share_of_triggers(
            samples.masks[places], triggers.shape[1], self.config, np.random.default_rng(part.seed)
        )

        def spread(values: np.ndarray) -> np.ndarray:
            matrix = np.zeros((*items.shape, *values.shape[1:]), np.float32)
            matrix[is_item] = values[places]
            return matrix

        rows, index = np.unique(np.concatenate([triggers.ravel(), items.ravel()]), return_inverse=True)
        side = self.vocabulary.side[rows] + self._side_starts
        side_rows, side_index = np.unique(side, return_inverse=True)
        profile = samples.profile.take(chosen)
        arrays = {
            "rows": rows,
            "side_rows": side_rows,
            "side_index": side_index.reshape(len(rows), -1),
            "triggers": index[: triggers.size].reshape(triggers.shape),
            "is_trigger": is_trigger,
            "items": index[triggers.size :].reshape(items.shape),
            "is_item": is_item,
            "reached_by": reached_by,
            "cross": spread(samples.cross),
            "statistics": spread(samples.statistics),
            "log_q": spread(samples.log_q),
            "profile_buckets": profile.values,
            "profile_offsets": profile.offsets,
        }
        return Batch(
            **{name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        )


def padded(rows: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Give rows as a matrix, padded behind with 0, and which entries are there: [n, l] and bool [n, l]."""
    is_there = np.arange(rows.lengths.max(initial=1)) < rows.lengths[:, None]
    matrix = np.zeros(is_there.shape, rows.values.dtype)
    matrix[is_there] = rows.values
    return matrix, is_there


def share_of_triggers(
    masks: np.ndarray, n_triggers: int, config: PI2IConfig, generator: np.random.Generator
) -> np.ndarray:
    """
    Unpack masks uint64 [n, 2] into float32 [n, n_triggers] whose rows sum to 1.

    Every trigger in the mask has the same share; of the ablation ``single`` one at random has it all.
    """
    if config.triggers == "single":
        masks = one_of_each(masks, generator)
    shares = _bits(masks)[:, :n_triggers].astype(np.float32)
    return shares / shares.sum(axis=1, keepdims=True)


def one_of_each(masks: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Keep one bit at random of each of the masks uint64 [n, 2], none of which is empty."""
    bits = _bits(masks)
    draws = np.where(bits, generator.random(bits.shape, np.float32), -1.0)
    kept = np.arange(bits.shape[1]) == draws.argmax(axis=1)[:, None]
    return np.packbits(kept, axis=1, bitorder="little").view("<u8").astype(np.uint64)


def _bits(masks: np.ndarray) -> np.ndarray:
    return np.unpackbits(masks.astype("<u8").view(np.uint8), axis=1, bitorder="little")
