"""
How are many candidates of one user scored fast? What depends on an item or a trigger alone is computed once.

The first layers of both MLPs are linear in E_trigger, E_target and E_cross, and so is the inner map in
attention, profile and E_trigger: products with a target or a trigger are made per catalogue, those with
profile and sequence per user, and a candidate adds them up. The result equals the plain forward pass up to
rounding.

Shapes: c candidates, l triggers, d dim, w hidden width.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.increc.ragged import Ragged
from models.pi2i.batches import share_of_triggers
from models.pi2i.candidates import N_CROSS
from models.pi2i.network import Scorer
from models.pi2i.trigger_index import TriggerIndex
from models.selection import best_first

SEED_OF_SINGLE = 0


class CatalogueScorer:
    """Scores candidates of one i2i table with one network, on the CPU."""

    @torch.inference_mode()
    def __init__(self, network: Scorer, index: TriggerIndex, targets: Tensor, triggers: Tensor) -> None:
        """Precompute from the embedded ``targets`` [i, d] of the index and ``triggers`` [t, d]."""
        self.network, self.index, self.config = network, index, network.config
        d = self.config.dim
        query, logit, inner = network.query[0], network.logit[1], network.inner[1]
        self.targets, self.triggers = targets, triggers
        target = torch.cat([targets, network.statistics(torch.from_numpy(index.statistics))], dim=1)
        pair = [d, target.shape[1], N_CROSS]
        of_trigger, of_target, self.query_cross = query.weight.split(pair, dim=1)
        self.query_target = target @ of_target.T + query.bias
        self.query_trigger = triggers @ of_trigger.T
        parts = logit.weight.split([d, d, *pair], dim=1)
        self.of_attention, of_profile, of_trigger, of_target, self.logit_cross = parts
        self.logit_target = target @ of_target.T + logit.bias
        self.logit_trigger = triggers @ of_trigger.T
        self.inner_attention, inner_profile, of_trigger = inner.weight.split(d, dim=1)
        self.inner_trigger = triggers @ of_trigger.T
        self.of_profile = torch.cat([of_profile, inner_profile])
        self.profile_bias = functional.pad(inner.bias, (len(logit.bias), 0))

    @torch.inference_mode()
    def embed_profiles(self, profiles: Ragged) -> Tensor:
        """Give what each user's profile adds to the logits' hidden layer and to the inner map: [n, w + d]."""
        buckets, offsets = torch.from_numpy(profiles.values), torch.from_numpy(profiles.offsets)
        return self.network.embed_profiles(buckets, offsets) @ self.of_profile.T + self.profile_bias

    def best(
        self,
        profile: Tensor,
        triggers: np.ndarray,
        codes: np.ndarray,
        masks: np.ndarray,
        cross: np.ndarray,
        k: int,
    ) -> np.ndarray:
        """Give the codes of the ``k`` candidates with the highest logits, ties by the lower code."""
        logits = self.logits(profile, triggers, codes, masks, cross)
        return best_first(codes, logits.numpy(), k)[0]

    @torch.inference_mode()
    def logits(
        self, profile: Tensor, triggers: np.ndarray, codes: np.ndarray, masks: np.ndarray, cross: np.ndarray
    ) -> Tensor:
        """
        Score a user's candidates.

        Args:
            profile: [w + d] of ``embed_profiles``.
            triggers: int32 [l] places in the embedded triggers, newest first.
            codes: int32 [c] item codes.
            masks: uint64 [c, 2] of the triggers that reach each.
            cross: float32 [c, N_CROSS].

        Returns:
            float32 [c].
        """
        network, config = self.network, self.config
        own = torch.from_numpy(triggers.astype(np.int64))
        items = torch.from_numpy(codes.astype(np.int64))
        generator = np.random.default_rng(SEED_OF_SINGLE)
        reached_by = torch.from_numpy(share_of_triggers(masks, len(triggers), config, generator))
        scaled = network.cross(torch.from_numpy(cross))
        sequence = self.triggers[own] + network.place.weight[: len(own)]
        of_hidden, inner = profile.split([config.hidden_dim, config.dim])
        hidden = self.logit_target[items] + scaled @ self.logit_cross.T + of_hidden
        if config.triggers != "none":
            hidden += reached_by @ self.logit_trigger[own]
            inner = inner + reached_by @ self.inner_trigger[own]
        if network.own_query is None:
            query = self.query_target[items] + scaled @ self.query_cross.T
            if config.triggers != "none":
                query += reached_by @ self.query_trigger[own]
            query = network.query[2](functional.relu(query))
            attended = self._attend(query, sequence)
        else:
            attended = self._attend(network.own_query(sequence), sequence).mean(dim=0)
        hidden += attended @ self.of_attention.T
        inner = inner + attended @ self.inner_attention.T
        return network.logit[4](functional.relu(hidden)).squeeze(-1) + (inner * self.targets[items]).sum(
            dim=1
        )

    def _attend(self, query: Tensor, sequence: Tensor) -> Tensor:
        """Attend from [c, d] to the sequence [l, d]: [c, d]."""
        heads = [
            x.unflatten(-1, (self.config.n_heads, -1)).transpose(0, 1).unsqueeze(0)
            for x in (query, self.network.key(sequence), self.network.value(sequence))
        ]
        return functional.scaled_dot_product_attention(*heads)[0].transpose(0, 1).flatten(1)
