"""
What does a trained IncRec model do? It embeds items and users for retrieval, and becomes bytes and back.

Shapes: n users or items, m interests, d dim, r vocabulary rows. Inference runs on the CPU in blocks, so its
memory beyond the result does not grow with the catalogue or the number of users.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from models.increc import weights
from models.increc.config import IncRecConfig, Tower
from models.increc.features import no_profiles, profile_buckets, require_columns, side_buckets
from models.increc.item_tower import History
from models.increc.network import IncRec
from models.increc.ragged import Ragged, ids_from_arrow
from models.increc.reproducible import cpu_threads
from models.increc.vocabulary import Vocabulary
from models.increc.weights import CorruptModel

BLOCK = 8192


class UnknownTower(LookupError):
    """The model has no such user tower."""


@dataclass(frozen=True, eq=False, repr=False)
class TrainedModel:
    """
    A trained network with its vocabulary and config.

    ``accumulators``: AdaGrad's sum of squared gradients of each parameter by name, what carrying on needs
    beside the weights; None in a model for serving.
    """

    config: IncRecConfig
    vocabulary: Vocabulary
    network: IncRec
    accumulators: dict[str, Tensor] | None

    @property
    def known_item_ids(self) -> np.ndarray:
        """The items that the model learned an id embedding for, int64."""
        return self.vocabulary.known_item_ids

    def embed_items(self, items: pa.Table) -> np.ndarray:
        """
        Represent items: ``item_id`` and the side features of the config -> unit vectors float32 [n, d].

        A new item is represented by its side features; its id adds nothing.

        Raises:
            MissingColumn: a column is missing.
        """
        require_columns(items, ["item_id"], "the item table")
        rows = self.vocabulary.rows(items["item_id"].to_numpy())
        side = side_buckets(items, self.config)
        vectors = np.empty((len(rows), self.config.dim), np.float32)
        with torch.inference_mode(), cpu_threads(self.config.n_threads):
            for start in range(0, len(rows), BLOCK):
                block = slice(start, start + BLOCK)
                embedded = self._embed_inputs(rows[block], side[block])
                vectors[block] = self.network.represent_items(embedded).numpy()
        return vectors

    def embed_users(
        self,
        histories: pa.ListArray,
        profiles: pa.ListArray | None = None,
        *,
        items: pa.Table | None = None,
        tower: Tower | None = None,
    ) -> np.ndarray:
        """
        Represent users by their histories (item ids, oldest first) and profiles (tokens ``name=value``).

        Gives unit vectors float32 [n, d], or [n, m, d] of a multi-interest backbone. Only the newest
        ``history_length`` items count. Items that are new to the model count by their side features where
        ``items`` has them, else not at all. Users without history or profile have the learned defaults.

        Args:
            histories: one list a user.
            profiles: aligned with ``histories``; None or null where there is none.
            items: the item table of the day, for items that the model has not learned.
            tower: default is the serving tower: incremental of IncRec variants, basic of TB variants.

        Raises:
            UnknownTower: the variant does not train ``tower``.
            ValueError: histories and profiles differ in number.
        """
        tower = tower or self.config.serving_tower
        if tower not in self.config.towers:
            raise UnknownTower(
                f"{self.config.variant} has no {tower} tower; it has {', '.join(self.config.towers)}"
            )
        if profiles is not None and len(profiles) != len(histories):
            raise ValueError(f"{len(histories)} histories but {len(profiles)} profiles: one of each per user")
        buckets = no_profiles(len(histories))
        if profiles is not None and self.config.n_profile_buckets:
            buckets = profile_buckets(profiles, self.config.n_profile_buckets)
        history, side = self._histories(histories, items)
        blocks = []
        with torch.inference_mode(), cpu_threads(self.config.n_threads):
            for start in range(0, len(history), BLOCK):
                chosen = np.arange(start, min(start + BLOCK, len(history)))
                users = self._represent_users(tower, history.take(chosen), side, buckets.take(chosen))
                blocks.append(users.numpy())
        if not blocks:
            return np.zeros((0, self.config.dim), np.float32)
        vectors = np.concatenate(blocks)
        return vectors[:, 0] if vectors.shape[1] == 1 else vectors

    def for_serving(self) -> TrainedModel:
        """Leave the optimizer's state out: what a release holds."""
        return replace(self, accumulators=None)

    def to_bytes(self) -> bytes:
        """Write one safetensors blob, config included; equal models give equal bytes."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"adagrad.{name}": value for name, value in (self.accumulators or {}).items()}
        tensors["vocabulary.item_ids"] = torch.from_numpy(self.vocabulary.item_ids)
        tensors["vocabulary.side"] = torch.from_numpy(self.vocabulary.side.astype(np.int32))
        return weights.pack(tensors, self.config)

    @staticmethod
    def from_bytes(content: bytes) -> TrainedModel:
        """
        Read what ``to_bytes`` wrote.

        Raises:
            CorruptModel: the bytes are damaged, or not of an IncRec model of this version.
        """
        tensors, config = weights.unpack(content)
        try:
            item_ids = tensors.pop("vocabulary.item_ids").numpy()
            side = tensors.pop("vocabulary.side").numpy().astype(np.int64)
        except KeyError as error:
            raise CorruptModel(f"the model lacks the tensor {error}; train it again") from error
        network = IncRec(config, len(item_ids))
        weights.load_network(network, weights.with_prefix(tensors, "network."))
        network.eval()
        accumulators = weights.with_prefix(tensors, "adagrad.") or None
        return TrainedModel(config, Vocabulary(item_ids, side), network, accumulators)

    def to_files(self) -> dict[str, bytes]:
        """Give file contents by name: ``model.safetensors`` (``to_bytes``) and ``config.json`` to read."""
        return {"model.safetensors": self.to_bytes(), "config.json": weights.config_json(self.config)}

    @staticmethod
    def from_files(files: dict[str, bytes]) -> TrainedModel:
        """
        Read what ``to_files`` gave.

        Raises:
            CorruptModel: a file is missing or damaged, or ``config.json`` is of another model.
        """
        missing = {"model.safetensors", "config.json"} - files.keys()
        if missing:
            raise CorruptModel(
                f"the model lacks {', '.join(sorted(missing))}; it has {', '.join(sorted(files))}"
            )
        model = TrainedModel.from_bytes(files["model.safetensors"])
        if files["config.json"] != weights.config_json(model.config):
            raise CorruptModel(
                "config.json is not the config in model.safetensors; restore both from one model"
            )
        return model

    def _embed_inputs(self, rows: np.ndarray, side: np.ndarray) -> Tensor:
        """Embed items by id and side features, row 0 = no learned id: [n], [n, f] -> [n, d]."""
        known = torch.from_numpy(rows > 0).unsqueeze(1)
        embedding = self.network.item_embedding
        return embedding.id(torch.from_numpy(rows)) * known + embedding.embed_side(torch.from_numpy(side))

    def _histories(self, histories: pa.ListArray, items: pa.Table | None) -> tuple[Ragged, np.ndarray]:
        """Turn item ids into rows, new ones of ``items`` behind the vocabulary; give all rows' features."""
        ids = ids_from_arrow(histories)
        rows, side = self.vocabulary.rows(ids.values), self.vocabulary.side
        if items is not None:
            require_columns(items, ["item_id"], "the item table")
            new = items.filter(pa.array(self.vocabulary.rows(items["item_id"].to_numpy()) == 0))
            order = np.argsort(new["item_id"].to_numpy(), kind="stable")
            new_ids = new["item_id"].to_numpy()[order]
            side = np.concatenate([side, side_buckets(new, self.config)[order]])
            places = np.searchsorted(new_ids, ids.values)
            is_new = np.append(new_ids, 0)[places] == ids.values
            is_new &= places < len(new_ids)
            rows = np.where((rows == 0) & is_new, len(self.vocabulary) + places, rows)
        known = Ragged(rows, ids.offsets).where(rows > 0)
        return known.last(self.config.history_length).fill_empty(0), side

    def _represent_users(self, tower: str, history: Ragged, side: np.ndarray, profile: Ragged) -> Tensor:
        distinct, index = np.unique(history.values, return_inverse=True)
        id_rows = np.where(distinct < len(self.vocabulary), distinct, 0)
        embedded = self._embed_inputs(id_rows, side[distinct])
        if distinct[0] == 0:
            embedded[0] = self.network.item_embedding(
                *map(torch.from_numpy, (distinct[:1], side[distinct[:1]]))
            )[0]
        tensors = map(torch.from_numpy, (profile.values, profile.offsets))
        profiles = self.network.embed_profiles(*tensors)
        items = History(embedded, torch.from_numpy(index), torch.from_numpy(history.offsets))
        return self.network.represent_users(tower, items, profiles)
