"""
How are many candidates of one user scored fast? What depends on an item or a trigger alone is computed once.

The first layers of both MLPs are linear in E_trigger, E_target and E_cross, and so is the inner map in
attention, profile and E_trigger: products with a target or a trigger are made per catalogue, those with
profile and sequence per user, and a candidate adds up a few rows of them. Candidates are scored in blocks
that fit the cache. The result equals the plain forward pass up to rounding.

Shapes: c candidates, l triggers, d dim, w hidden width. Rows of first layers are query [w], hidden units
of the logit [w] and inner map [d] beside each other.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from models.increc.ragged import Ragged
from models.pi2i.batches import one_of_each
from models.pi2i.candidates import N_CROSS, place_of_lowest
from models.pi2i.network import Scorer
from models.pi2i.trigger_index import TriggerIndex
from models.selection import best_first
from models.threads import map_in_threads

BLOCK = 2048
SEED_OF_SINGLE = 0


class Candidates(NamedTuple):
    """
    A user's candidates, as ``candidates.gather`` gives them.

    ``codes`` int32 [c] of items, ``masks`` uint64 [c, 2] of the triggers that reach each, and ``cross``
    float32 [c, N_CROSS].
    """

    codes: np.ndarray
    masks: np.ndarray
    cross: np.ndarray


class _User(NamedTuple):
    """
    What is the same for all of a user's candidates.

    ``of_trigger`` float32 [l, 2 w + d]: rows of first layers, to each of which is added what profile and
    sequence give, since the shares of a candidate's triggers sum to 1. ``keys`` and ``values`` are
    [1, h, l, d / h].
    """

    of_trigger: np.ndarray
    keys: Tensor
    values: Tensor


class CatalogueScorer:
    """Scores candidates of one i2i table with one network, on the CPU."""

    @torch.inference_mode()
    def __init__(self, network: Scorer, index: TriggerIndex, targets: Tensor, triggers: Tensor) -> None:
        """Precompute from the embedded ``targets`` [i, d] of the index and ``triggers`` [t, d]."""
        self.network, self.index, self.config = network, index, network.config
        self.targets, self.triggers = targets, triggers
        d = self.config.dim
        query, logit, inner = network.query[0], network.logit[0], network.inner[0]
        target = torch.cat([targets, network.statistics(torch.from_numpy(index.statistics))], dim=1)
        pair = [d, target.shape[1], N_CROSS]
        query_trigger, query_target, query_cross = query.weight.split(pair, dim=1)
        parts = logit.weight.split([d, d, *pair], dim=1)
        logit_attention, logit_profile, logit_trigger, logit_target, logit_cross = parts
        inner_attention, inner_profile, inner_trigger = inner.weight.split(d, dim=1)
        of_target = torch.cat([query_target, logit_target])
        of_cross = torch.cat([query_cross, logit_cross]) * network.cross.scale
        bias = torch.cat([query.bias, logit.bias]) - of_cross @ network.cross.mean
        of_trigger = triggers @ torch.cat([query_trigger, logit_trigger, inner_trigger]).T
        if self.config.triggers == "none":
            of_trigger.zero_()
        self.of_trigger = of_trigger.numpy()
        self.of_target = (target @ of_target.T + bias).numpy()
        self.of_cross = of_cross.T.contiguous().numpy()
        self.of_profile = torch.cat([logit_profile, inner_profile])
        self.of_attention = torch.cat([logit_attention, inner_attention])
        self.inner_bias = functional.pad(inner.bias, (len(logit.bias), 0))

    @torch.inference_mode()
    def embed_profiles(self, profiles: Ragged) -> Tensor:
        """Give what each user's profile adds to hidden units and inner map: [n, w + d]."""
        buckets, offsets = torch.from_numpy(profiles.values), torch.from_numpy(profiles.offsets)
        return self.network.embed_profiles(buckets, offsets) @ self.of_profile.T + self.inner_bias

    def best(
        self, profile: Tensor, triggers: np.ndarray, candidates: Candidates, k: int, *, n_threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Give codes and logits of the ``k`` candidates with the highest ones, ties by the lower code."""
        logits = self.logits(profile, triggers, candidates, n_threads=n_threads)
        return best_first(candidates.codes, logits, k)

    def logits(
        self, profile: Tensor, triggers: np.ndarray, candidates: Candidates, *, n_threads: int = 1
    ) -> np.ndarray:
        """
        Score a user's candidates.

        Args:
            profile: [w + d] of ``embed_profiles``.
            triggers: int32 [l] places in the embedded triggers, newest first.
            candidates: what these triggers reach.
            n_threads: threads over blocks, beside those that torch has; does not change the result.

        Returns:
            float32 [c].
        """
        codes, masks, cross = candidates
        if self.config.triggers == "single":
            masks = one_of_each(masks, np.random.default_rng(SEED_OF_SINGLE))
        logits = np.empty(len(codes), np.float32)
        user = self._user(profile, triggers)

        def score(first: int) -> None:
            at = slice(first, first + BLOCK)
            logits[at] = self._score(user, Candidates(codes[at], masks[at], cross[at]))

        map_in_threads(score, range(0, len(codes), BLOCK), n_threads=n_threads)
        return logits

    @torch.inference_mode()
    def _user(self, profile: Tensor, triggers: np.ndarray) -> _User:
        own = torch.from_numpy(triggers.astype(np.int64))
        network = self.network
        sequence = self.triggers[own] + network.place.weight[: len(own)]
        keys, values = self._heads(network.key(sequence)), self._heads(network.value(sequence))
        if network.own_query is not None:
            attended = self._attend(network.own_query(sequence), keys, values).mean(dim=0)
            profile = profile + self.of_attention @ attended
        of_trigger = self.of_trigger[triggers]
        of_trigger[:, self.config.hidden_dim :] += profile.numpy()
        return _User(of_trigger, keys, values)

    @torch.inference_mode()
    def _score(self, user: _User, candidates: Candidates) -> np.ndarray:
        w, network = self.config.hidden_dim, self.network
        units = np.empty((len(candidates.codes), self.of_trigger.shape[1]), np.float32)
        _first_layers(self.of_target, self.of_cross, user.of_trigger, *candidates, units)
        query, units = torch.from_numpy(units).split([w, w + self.config.dim], dim=1)
        if network.own_query is None:
            query = network.query[2](query.relu_())
            units = torch.addmm(units, self._attend(query, user.keys, user.values), self.of_attention.T)
        hidden, inner = units.split([w, self.config.dim], dim=1)
        target = self.targets[torch.from_numpy(candidates.codes)]
        logits = network.logit[2](functional.relu(hidden)).squeeze(-1)
        return (logits + (inner * target).sum(dim=1)).numpy()

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from [c, d] to the sequence: [c, d]."""
        attended = functional.scaled_dot_product_attention(self._heads(query), keys, values)
        return attended[0].transpose(0, 1).flatten(1)

    def _heads(self, x: Tensor) -> Tensor:
        """[n, d] -> [1, h, n, d / h]."""
        return x.unflatten(-1, (self.config.n_heads, -1)).transpose(0, 1).unsqueeze(0)


@njit(cache=True, nogil=True, fastmath=True)
def _first_layers(of_target, of_cross, of_trigger, codes, masks, cross, units):
    """
    Add up what triggers, in equal shares, target and cross features give to the first layers.

    ``units`` [c, 2 w + d] becomes the result. The loops over units are innermost or around a loop of fixed
    length, so that they become vector code.
    """
    n_first = of_target.shape[1]
    for row in range(len(codes)):
        own, target, features = units[row], of_target[codes[row]], cross[row]
        own[:] = 0
        n_reaching = 0
        for word in range(masks.shape[1]):
            bits = masks[row, word]
            while bits:
                trigger = of_trigger[64 * word + place_of_lowest(bits)]
                bits &= bits - np.uint64(1)
                n_reaching += 1
                for unit in range(len(own)):
                    own[unit] += trigger[unit]
        share = np.float32(1 / n_reaching)
        for unit in range(n_first):
            total = own[unit] * share + target[unit]
            for feature in range(N_CROSS):
                total += features[feature] * of_cross[feature, unit]
            own[unit] = total
        for unit in range(n_first, len(own)):
            own[unit] *= share
