"""
What does a trained PI2I scorer do? It ranks what a user's triggers reach, and becomes bytes and back.

Inference runs on the CPU, user by user: its memory does not grow with the number of users.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from models.increc import weights
from models.increc.features import no_profiles, profile_buckets, require_columns, side_buckets
from models.increc.ragged import Ragged
from models.increc.reproducible import cpu_threads
from models.increc.vocabulary import Vocabulary
from models.increc.weights import CorruptModel
from models.pi2i.candidates import gather, scratch
from models.pi2i.config import PI2IConfig
from models.pi2i.network import Scorer
from models.pi2i.sampling import log_price_of
from models.pi2i.scoring import Candidates, CatalogueScorer
from models.pi2i.trigger_index import TriggerIndex, user_triggers
from models.ragged import codes_of, flat_lists_of
from models.threads import map_in_threads, row_ranges

KIND = "pi2i"


@dataclass(frozen=True, eq=False, repr=False)
class TrainedScorer:
    """A trained network with its vocabulary and config."""

    config: PI2IConfig
    vocabulary: Vocabulary
    network: Scorer

    @property
    def known_item_ids(self) -> np.ndarray:
        """The items that the model learned an id embedding for, int64."""
        return self.vocabulary.known_item_ids

    def retrieve(
        self,
        index: TriggerIndex,
        items: pa.Table,
        histories: pa.ListArray | pa.ChunkedArray,
        profiles: pa.ListArray | None,
        k: int,
        *,
        log_prices: dict[int, float] | None = None,
        n_threads: int = 0,
    ) -> np.ndarray:
        """
        Retrieve the ``k`` candidates with the highest logits for each user (Eq. 6-7).

        Candidates are the targets of the last ``n_triggers`` distinct history items; the history is left out.

        Args:
            index: the i2i table with item statistics, its targets restricted to what may be retrieved.
            items: the item table of the day: item_id and the side features.
            histories: item ids of each user, oldest first.
            profiles: tokens ``name=value`` of each; None or null where there is none.
            k: items to retrieve.
            log_prices: as in ``draw_samples``.
            n_threads: threads, 0 for one per CPU; does not change the result.

        Returns:
            int64 [n, k] item ids, best first, ties by item id, padded with -1. Short lists are not filled.
        """
        offsets, values = flat_lists_of(len(histories), histories, "histories")
        begins, triggers = user_triggers(offsets, values, self.config.n_triggers)
        buckets = no_profiles(len(histories))
        if profiles is not None and self.config.n_profile_buckets:
            buckets = profile_buckets(profiles, self.config.n_profile_buckets)
        trigger_ids = np.unique(triggers)
        scorer = self.catalogue_scorer(index, items, trigger_ids)
        parts = (
            (offsets, codes_of(values, index.item_ids)),
            (
                begins,
                codes_of(triggers, index.trigger_ids),
                codes_of(triggers, trigger_ids),
                log_price_of(triggers, log_prices),
            ),
        )
        retrieve = partial(
            _retrieve_rows, scorer, parts, buckets, log_price_of(index.item_ids, log_prices), k
        )
        with cpu_threads(1):
            blocks = map_in_threads(
                retrieve, row_ranges(len(histories), n_threads=n_threads), n_threads=n_threads
            )
        codes = np.concatenate([np.empty((0, k), np.int32), *blocks])
        return np.append(index.item_ids, -1)[codes]

    def catalogue_scorer(
        self, index: TriggerIndex, items: pa.Table, trigger_ids: np.ndarray
    ) -> CatalogueScorer:
        """
        Precompute what depends on an item or a trigger alone; ``trigger_ids`` int64 [t] as they are coded.

        Raises:
            MissingColumn: ``items`` lacks a column.
        """
        return CatalogueScorer(
            self.network, index, self._embed(index.item_ids, items), self._embed(trigger_ids, items)
        )

    def to_bytes(self) -> bytes:
        """Write one safetensors blob, config included; equal models give equal bytes."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors["vocabulary.item_ids"] = torch.from_numpy(self.vocabulary.item_ids)
        tensors["vocabulary.side"] = torch.from_numpy(self.vocabulary.side.astype(np.int32))
        return weights.pack(tensors, self.config, KIND)

    @staticmethod
    def from_bytes(content: bytes) -> TrainedScorer:
        """
        Read what ``to_bytes`` wrote.

        Raises:
            CorruptModel: the bytes are damaged, or not of a PI2I scorer of this version.
        """
        tensors, config = weights.unpack(content, PI2IConfig, KIND)
        try:
            item_ids = tensors.pop("vocabulary.item_ids").numpy()
            side = tensors.pop("vocabulary.side").numpy().astype(np.int64)
        except KeyError as error:
            raise CorruptModel(f"the model lacks the tensor {error}; train it again") from error
        network = Scorer(config, len(item_ids))
        weights.load_network(network, weights.with_prefix(tensors, "network."))
        return TrainedScorer(config, Vocabulary(item_ids, side), network.eval())

    @torch.inference_mode()
    def _embed(self, item_ids: np.ndarray, items: pa.Table) -> torch.Tensor:
        """
        Embed items by id and today's side features; an item without a learned id by the latter alone.

        A trigger that is in ``items`` no more has the side features that it was learned with.
        """
        require_columns(items, ["item_id"], "the item table")
        listed = items["item_id"].to_numpy()
        order = np.argsort(listed, kind="stable")
        places = codes_of(item_ids, listed[order])
        rows = self.vocabulary.rows(item_ids)
        side = self.vocabulary.side[rows]
        side[places >= 0] = side_buckets(items, self.config)[order][places[places >= 0]]
        learned = torch.from_numpy(rows > 0).unsqueeze(1)
        embedding = self.network.item_embedding
        ids = embedding.id(torch.from_numpy(rows)) * learned
        return ids + embedding.embed_side(torch.from_numpy(side))


def _retrieve_rows(
    scorer: CatalogueScorer,
    parts: tuple,
    profiles: Ragged,
    prices: np.ndarray,
    k: int,
    rows: tuple[int, int],
) -> np.ndarray:
    (offsets, history), (begins, triggers, trigger_places, trigger_prices) = parts
    first, last = rows
    result = np.full((last - first, k), -1, np.int32)
    memory = scratch(len(scorer.index.item_ids))
    users = scorer.embed_profiles(profiles.take(np.arange(first, last)))
    for row in range(first, last):
        own = slice(begins[row], begins[row + 1])
        candidates = Candidates(
            *gather(
                row,
                triggers[own],
                history[offsets[row] : offsets[row + 1]],
                scorer.index.lists,
                prices,
                trigger_prices[own],
                memory,
            )
        )
        if len(candidates.codes):
            best, _ = scorer.best(users[row - first], trigger_places[own], candidates, k)
            result[row - first, : len(best)] = best
    return result
