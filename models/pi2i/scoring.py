"""
How are many candidates of one user scored fast? What depends on an item or a trigger alone is computed once.

The first layers of both MLPs are linear in E_trigger, E_target and E_cross, and so is the inner map in
attention, profile and E_trigger: products with a target or a trigger are made per catalogue, those with
profile and sequence per user, and a candidate adds up a few rows of them. Candidates are scored in blocks
that fit the cache. The result equals the plain forward pass up to rounding.

Shapes: c candidates, l triggers, d dim, w hidden width. Rows of first layers are query [w], hidden units
of the logit [w] and inner map [d] beside each other.
"""

from math import factorial
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from models.increc.ragged import Ragged
from models.pi2i.batches import one_of_each
from models.pi2i.candidates import N_CROSS, place_of_lowest
from models.pi2i.config import PI2IConfig
from models.pi2i.network import Scorer
from models.pi2i.trigger_index import TriggerIndex
from models.selection import best_first
from models.threads import map_in_threads, thread_count

BLOCK = 1024
# Below it no power is a normal float32.
LEAST_EXPONENT = np.float32(-126)
# The Taylor series of 2^x.
C1, C2, C3, C4, C5, C6 = (np.float32(np.log(2) ** n / factorial(n)) for n in range(1, 7))
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
    sequence give, since the shares of a candidate's triggers sum to 1. ``keys`` [h, l, d / h] are scaled so
    that attention weights are powers of 2; ``values`` [h, d / h, l].
    """

    of_trigger: np.ndarray
    keys: Tensor
    values: Tensor


class _Memory:
    """
    Where a thread puts what it computes of n candidates; made once, since new memory costs page faults.

    ``hidden`` [n, w] are the query's hidden units, ``units`` [n, w + d] those of the logit and the inner map;
    ``query`` and ``attended`` [h, d / h, n]; ``weights`` [h, l, n] and ``inverse_sums`` [h, 1, n] of them.
    """

    def __init__(self, config: PI2IConfig, n_triggers: int, n: int) -> None:
        self.n, heads = n, (config.n_heads, config.dim // config.n_heads, n)
        self.hidden, self.units = (
            torch.empty(n, width) for width in (config.hidden_dim, config.hidden_dim + config.dim)
        )
        self.query, self.attended = torch.empty(heads), torch.empty(heads)
        self.weights, self.inverse_sums = (
            torch.empty(config.n_heads, length, n) for length in (n_triggers, 1)
        )


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
        self.last_layer = network.logit[2].weight[0].numpy(), network.logit[2].bias.numpy()

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
            n_threads: threads over blocks, beside those that torch has, 0 for one per CPU; does not change
                the result.

        Returns:
            float32 [c].
        """
        codes, masks, cross = candidates
        if self.config.triggers == "single":
            masks = one_of_each(masks, np.random.default_rng(SEED_OF_SINGLE))
        logits = np.empty(len(codes), np.float32)
        user = self._user(profile, triggers)
        n_threads = thread_count(n_threads)

        def score_blocks(firsts: range) -> None:
            memory = None
            for first in firsts:
                at = slice(first, first + BLOCK)
                own = Candidates(codes[at], masks[at], cross[at])
                if memory is None or memory.n != len(own.codes):
                    memory = _Memory(self.config, len(triggers), len(own.codes))
                logits[at] = self._score(user, own, memory)

        parts = [range(first * BLOCK, len(codes), n_threads * BLOCK) for first in range(n_threads)]
        map_in_threads(score_blocks, [part for part in parts if part], n_threads=n_threads)
        return logits

    @torch.inference_mode()
    def _user(self, profile: Tensor, triggers: np.ndarray) -> _User:
        own = torch.from_numpy(triggers.astype(np.int64))
        network, n_heads = self.network, self.config.n_heads
        sequence = self.triggers[own] + network.place.weight[: len(own)]
        scale = np.log2(np.e) / (self.config.dim / n_heads) ** 0.5
        keys = (network.key(sequence) * scale).unflatten(1, (n_heads, -1)).transpose(0, 1).contiguous()
        values = network.value(sequence).T.contiguous().unflatten(0, (n_heads, -1))
        of_trigger = self.of_trigger[triggers]
        user = _User(of_trigger, keys, values)
        if network.own_query is not None:
            memory = _Memory(self.config, len(own), len(own))
            memory.query.flatten(0, 1).copy_(network.own_query(sequence).T)
            attended = _attend(user, memory).mean(dim=1)
            profile = profile + self.of_attention @ attended
        of_trigger[:, self.config.hidden_dim :] += profile.numpy()
        return user

    @torch.inference_mode()
    def _score(self, user: _User, candidates: Candidates, memory: _Memory) -> np.ndarray:
        hidden, units = memory.hidden, memory.units
        _first_layers(
            self.of_target, self.of_cross, user.of_trigger, *candidates, hidden.numpy(), units.numpy()
        )
        if self.network.own_query is None:
            layer, query = self.network.query[2], memory.query.flatten(0, 1)
            torch.addmm(layer.bias.unsqueeze(1), layer.weight, hidden.T, out=query)
            units.addmm_(_attend(user, memory).T, self.of_attention.T)
        return _last_layers(units.numpy(), self.targets.numpy(), candidates.codes, *self.last_layer)


def _attend(user: _User, memory: _Memory) -> Tensor:
    """Attend from the memory's queries to the user's sequence: [d, n], a view of the memory."""
    torch.bmm(user.keys, memory.query, out=memory.weights)
    _powers(memory.weights.numpy(), memory.inverse_sums.numpy())
    torch.bmm(user.values, memory.weights, out=memory.attended)
    return memory.attended.mul_(memory.inverse_sums).flatten(0, 1)


@njit(cache=True, nogil=True, fastmath=True)
def _first_layers(of_target, of_cross, of_trigger, codes, masks, cross, hidden, units):
    """
    Add up what triggers, in equal shares, target and cross features give to the first layers.

    ``hidden`` [c, w], after the ReLU, and ``units`` [c, w + d] become the result. The loops over units are
    innermost or around a loop of fixed length, so that they become vector code.
    """
    n_query, n_first = hidden.shape[1], of_target.shape[1]
    total = np.empty(of_trigger.shape[1], np.float32)
    for row in range(len(codes)):
        target, features = of_target[codes[row]], cross[row]
        total[:] = 0
        n_reaching = 0
        for word in range(masks.shape[1]):
            bits = masks[row, word]
            while bits:
                trigger = of_trigger[64 * word + place_of_lowest(bits)]
                bits &= bits - np.uint64(1)
                n_reaching += 1
                for unit in range(len(total)):
                    total[unit] += trigger[unit]
        share = np.float32(1 / n_reaching)
        for unit in range(n_first):
            value = total[unit] * share + target[unit]
            for feature in range(N_CROSS):
                value += features[feature] * of_cross[feature, unit]
            total[unit] = value
        for unit in range(n_query):
            hidden[row, unit] = max(total[unit], np.float32(0))
        for unit in range(n_query, n_first):
            units[row, unit - n_query] = total[unit]
        for unit in range(n_first, len(total)):
            units[row, unit - n_query] = total[unit] * share


@njit(cache=True, nogil=True, fastmath=True)
def _powers(exponents, inverse_sums):
    """
    Give 2^(x - the column's largest) in place of x, finite float32 [h, l, n], and 1 / their sums.

    No x above 0 is left, so that cutting x - 0.5 rounds to the nearest integer, whose power is made of bits;
    that of the rest, within [-0.5, 0.5], is the Taylor series, to 3e-7 of it. Candidates lie side by side:
    plain loops over them become vector code.
    """
    n_heads, n_rows, n = exponents.shape
    bits = np.empty(n, np.int32)
    whole_powers = bits.view(np.float32)
    for head in range(n_heads):
        largest, total = exponents[head, 0].copy(), np.zeros(n, np.float32)
        for at in range(1, n_rows):
            row = exponents[head, at]
            for i in range(n):
                largest[i] = row[i] if row[i] > largest[i] else largest[i]
        for at in range(n_rows):
            row = exponents[head, at]
            for i in range(n):
                x = row[i] - largest[i]
                x = x if x > LEAST_EXPONENT else LEAST_EXPONENT
                whole = np.int32(x - np.float32(0.5))
                bits[i] = (whole + 127) << 23
                rest = x - np.float32(whole)
                power = (C6 * rest + C5) * rest + C4
                row[i] = (((power * rest + C3) * rest + C2) * rest + C1) * rest + np.float32(1)
            for i in range(n):
                row[i] *= whole_powers[i]
                total[i] += row[i]
        for i in range(n):
            inverse_sums[head, 0, i] = np.float32(1) / total[i]


@njit(cache=True, nogil=True, fastmath=True)
def _last_layers(units, targets, codes, weight, bias):
    """Give the hidden units' logit plus the inner product with the target: float32 [c]."""
    w = len(weight)
    logits = np.empty(len(codes), np.float32)
    for row in range(len(codes)):
        own, target = units[row], targets[codes[row]]
        total = bias[0]
        for unit in range(w):
            total += max(own[unit], np.float32(0)) * weight[unit]
        for unit in range(len(target)):
            total += own[w + unit] * target[unit]
        logits[row] = total
    return logits
