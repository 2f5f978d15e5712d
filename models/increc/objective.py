"""
Which losses does a variant sum on a batch? The network's scores put into Eq. 2, 4, 6 and 7.

RTG / ITG / ETG = retrieved / incremental / exposed target group; N = the batch's negatives.
Shapes: b samples, p positives, n scored items, m interests, d dim.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.increc import losses
from models.increc.batches import Batch, Group
from models.increc.config import IncRecConfig
from models.increc.network import IncRec
from models.increc.ranks import ALONE, Ranks
from models.increc.samples import Samples

PAIRS_AT_ONCE = 1 << 25


@dataclass(frozen=True)
class Scorer:
    """Scores of one batch: ``items`` [n, d], ``negatives`` [k, d] and the temperature, for any user tower."""

    items: Tensor
    negatives: Tensor
    temperature: float

    def score(self, users: Tensor, group: Group) -> Tensor:
        """Score each item of a target group for its sample's user: [b, m, d] -> [p]."""
        items = functional.embedding(group.item, self.items)
        return losses.pair_scores(users, group.owner, items, self.temperature)

    def log_negatives(self, users: Tensor, bias: Tensor) -> Tensor:
        """Log of the sum over N of each sample: [b, m, d], [b, k] -> [b]."""
        return losses.log_negatives(losses.all_scores(users, self.negatives, self.temperature), bias)


def loss_terms(
    network: IncRec, batch: Batch, config: IncRecConfig, ranks: Ranks = ALONE
) -> dict[str, Tensor]:
    """
    Give the loss of each tower that the variant trains, per sample of the batch.

    The equations' sums are divided by the number of samples, so that the batch size does not scale them.
    A batch without a group's items has the term 0. Where several processes share the batch, their terms add
    up to the batch's.
    """
    embedded = network.item_embedding.of_batch(batch.rows, batch.side_rows, batch.side_index)
    items = network.represent_items(embedded[: batch.n_scored])
    history = network.history(embedded, batch.history_index, batch.history_offsets, batch.history_context)
    profile = network.embed_batch_profiles(batch.profile_rows, batch.profile_index, batch.profile_offsets)
    if batch.n_samples == 0:
        return _no_terms(embedded, profile, config, ranks)
    users = {tower: network.represent_users(tower, history, profile) for tower in config.towers}
    scorer = Scorer(items, functional.embedding(batch.negatives, items), config.temperature)
    click_bias = losses.negative_bias(batch.n_samples, batch.log_weight, batch.click_hits)
    terms = {"basic": _basic(users["basic"], scorer, batch, click_bias, config)}
    if "incremental" in users:
        alpha = _alpha(users.get("alignment"), scorer, batch, config, ranks)
        terms["incremental"] = _incremental(users["incremental"], scorer, batch, click_bias, alpha)
    if "alignment" in users:
        terms["alignment"] = _alignment(users["alignment"], scorer, batch)
    return {tower: term / batch.n_total for tower, term in terms.items()}


def _no_terms(embedded: Tensor, profile: Tensor, config: IncRecConfig, ranks: Ranks) -> dict[str, Tensor]:
    """Give the terms of a process without a sample of the batch: 0, with the gradients that others sum to."""
    if config.alpha_mode != "none":
        ranks.sum(embedded.new_zeros(2))
    return dict.fromkeys(config.towers, 0 * (embedded.sum() + profile.sum()))


def _basic(users: Tensor, scorer: Scorer, batch: Batch, bias: Tensor, config: IncRecConfig) -> Tensor:
    """Eq. 2; TB-ITG leaves RTG out, TB-boost weighs ITG up."""
    log_sum = scorer.log_negatives(users, bias)
    itg_weight = config.boost if config.variant == "TB-boost" else 1.0
    weights = [(batch.itg, itg_weight), (batch.rtg, 0.0 if config.variant == "TB-ITG" else 1.0)]
    terms = []
    for group, weight in weights:
        scores = scorer.score(users, group)
        own_sum = log_sum.index_select(0, group.owner)
        terms.append(losses.basic_loss(scores, own_sum, torch.full_like(scores, weight)))
    return sum(terms)


def _incremental(users: Tensor, scorer: Scorer, batch: Batch, bias: Tensor, alpha: Tensor) -> Tensor:
    """Eq. 4. An RTG item that was also drawn into N counts once: RTG ∪ N is a union."""
    log_sum = scorer.log_negatives(users, bias)
    log_sum = losses.add_retrieved(log_sum, scorer.score(users, batch.rtg), batch.rtg.owner)
    own_sum = log_sum.index_select(0, batch.itg.owner)
    return losses.incremental_loss(scorer.score(users, batch.itg), own_sum, alpha)


def _alignment(users: Tensor, scorer: Scorer, batch: Batch) -> Tensor:
    """Eq. 6."""
    bias = losses.negative_bias(batch.n_samples, batch.log_weight, batch.exposure_hits)
    own_sum = scorer.log_negatives(users, bias).index_select(0, batch.etg.owner)
    return losses.alignment_loss(scorer.score(users, batch.etg), own_sum)


@torch.no_grad()
def _alpha(
    alignment: Tensor | None, scorer: Scorer, batch: Batch, config: IncRecConfig, ranks: Ranks
) -> Tensor:
    """Consistency weight of each ITG item: 1, from i itself (IncRec-ori), or from its j (Eq. 7). [p]."""
    if alignment is None:
        return torch.ones(len(batch.itg.item), device=scorer.items.device)
    if config.alpha_mode == "direct":
        similar, is_defined = batch.itg.item, torch.ones_like(batch.itg.item, dtype=torch.bool)
    elif config.etg_pool == "day":
        similar, is_defined = batch.similar.clamp(min=0), batch.similar >= 0
    else:
        similar, is_defined = _most_similar_of_batch(scorer.items, batch)
    score = scorer.score(alignment, Group(batch.itg.owner, similar))
    return losses.consistency_weight(score, is_defined, ranks.sum)


def _most_similar_of_batch(items: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Find j of Eq. 7 among the exposed items of the batch, as batch items; any where there is none."""
    exposed = batch.exposed
    distinct, place = batch.itg.item.unique(return_inverse=True)
    j, is_defined = losses.most_similar_exposed(items[distinct], items[exposed], _places(distinct, exposed))
    return (exposed[j] if len(exposed) else j)[place], is_defined[place]


@torch.no_grad()
def most_similar_of_day(represent: Callable[[np.ndarray], Tensor], samples: Samples) -> np.ndarray:
    """
    Find j of Eq. 7 among the exposed items of each sample's day.

    ``represent`` gives the representations [n, d] of vocabulary rows int64 [n], and is asked for those of the
    samples only -> row of j for each value of ``samples.itg``, int64, 0 where the day exposed nothing but the
    item itself.
    """
    similar = np.zeros(len(samples.itg.values), np.int64)
    itg_day, etg_day = samples.day[samples.itg.owners()], samples.day[samples.etg.owners()]
    for day in np.unique(itg_day):
        exposed = np.unique(samples.etg.values[etg_day == day])
        if not len(exposed):
            continue
        of_day = itg_day == day
        rows, place = np.unique(samples.itg.values[of_day], return_inverse=True)
        of_exposed = represent(exposed)
        best = np.zeros(len(rows), np.int64)
        n_at_once = max(1, PAIRS_AT_ONCE // len(exposed))
        for start in range(0, len(rows), n_at_once):
            block = rows[start : start + n_at_once]
            own = _places(torch.from_numpy(block), torch.from_numpy(exposed)).to(of_exposed.device)
            j, is_defined = losses.most_similar_exposed(represent(block), of_exposed, own)
            best[start : start + n_at_once] = np.where(is_defined.cpu(), exposed[j.cpu()], 0)
        similar[of_day] = best[place]
    return similar


def _places(values: Tensor, ordered: Tensor) -> Tensor:
    """Find each value among distinct ascending ones, -1 where there is none: int64 [p], [e] -> int64 [p]."""
    if len(ordered) == 0:
        return torch.full_like(values, -1)
    places = torch.searchsorted(ordered, values).clamp(max=len(ordered) - 1)
    return torch.where(ordered[places] == values, places, -1)
