"""
What does IncRec minimise? Eq. 2, 4, 6, 7 and 8 as pure functions of scores.

RTG / ITG / ETG = retrieved / incremental / exposed target group; N = the batch's shared negatives. A score
is ``u . v / temperature``, so that ``sim(u, i) = exp(score)``. Shapes: b samples, p positives (flat over
samples), k negatives, d dim. Sums over sums of exponentials are kept as logarithms.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

EXCLUDED = -1e9


def all_scores(users: Tensor, items: Tensor, temperature: float) -> Tensor:
    """Score every item for every user, the best of m interests: [b, m, d], [k, d] -> [b, k]."""
    b, m, d = users.shape
    return best_interest(((users / temperature).reshape(b * m, d) @ items.T).view(b, m, -1))


def pair_scores(users: Tensor, owners: Tensor, items: Tensor, temperature: float) -> Tensor:
    """Score item p for the user ``owners[p]``: [b, m, d], int64 [p], [p, d] -> [p]."""
    own = functional.embedding(owners, users.flatten(1)).view(-1, *users.shape[1:])
    return best_interest((own * items.unsqueeze(1)).sum(-1)) / temperature


def best_interest(scores: Tensor) -> Tensor:
    """Give the largest score over m interests, at no cost where m is 1: [b, m, ..] -> [b, ..]."""
    return scores.squeeze(1) if scores.shape[1] == 1 else scores.amax(dim=1)


def negative_bias(n_samples: int, log_weight: Tensor, hits: Tensor) -> Tensor:
    """
    Give what is added to the scores of N: the logarithm of each negative's weight, [k] -> [b, k].

    ``hits`` int64 [2, h], (sample, column of N): accidental hits, negatives that are a positive of the
    sample; they are left out of its sum.
    """
    bias = log_weight.repeat(n_samples, 1)
    bias[hits[0], hits[1]] = EXCLUDED
    return bias


def log_negatives(scores: Tensor, bias: Tensor) -> Tensor:
    """Log of the sum of sim over N for each sample: [b, k], [b, k] -> [b]."""
    return (scores + bias).logsumexp(dim=1)


def add_retrieved(log_sum: Tensor, rtg_scores: Tensor, rtg_owners: Tensor) -> Tensor:
    """Add each sample's own RTG items to its sum over N, the RTG ∪ N of Eq. 4: [b], [r], int64 [r] -> [b]."""
    largest = log_sum.detach().scatter_reduce(0, rtg_owners, rtg_scores.detach(), "amax")
    rtg_sum = torch.zeros_like(log_sum).index_add(0, rtg_owners, (rtg_scores - largest[rtg_owners]).exp())
    return largest + ((log_sum - largest).exp() + rtg_sum).log()


def contrast(positive: Tensor, log_sum: Tensor) -> Tensor:
    """Give -log(sim / (sim + sum)) for each positive, where ``log_sum`` is the log of its sum: [p] -> [p]."""
    return functional.softplus(log_sum - positive)


def basic_loss(positive: Tensor, log_sum: Tensor, weight: Tensor) -> Tensor:
    """
    Sum over RTG ∪ ITG against N (Eq. 2).

    ``weight`` [p] is 1 in the paper; TB-boost raises it for ITG.
    """
    return (weight * contrast(positive, log_sum)).sum()


def incremental_loss(positive: Tensor, log_sum: Tensor, alpha: Tensor) -> Tensor:
    """Sum over ITG against RTG ∪ N, each term weighted by its consistency weight alpha (Eq. 4)."""
    return (alpha * contrast(positive, log_sum)).sum()


def alignment_loss(positive: Tensor, log_sum: Tensor) -> Tensor:
    """Sum over ETG against N (Eq. 6)."""
    return contrast(positive, log_sum).sum()


def most_similar_exposed(items: Tensor, exposed: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """
    Find the exposed item j most similar to each incremental item i, i itself left out (Eq. 7).

    ``own`` int64 [p] is the place of i among the exposed, -1 where it was not: [p, d], [e, d] -> j int64 [p]
    and whether there is one, bool [p]; j means nothing where there is none.
    """
    is_exposed = own >= 0
    is_defined = len(exposed) - is_exposed.long() > 0
    if len(exposed) == 0:
        return torch.zeros_like(own), is_defined
    similarity = items @ exposed.T
    rows = is_exposed.nonzero().squeeze(1)
    similarity[rows, own[rows]] = EXCLUDED
    return similarity.max(dim=1).indices, is_defined


def consistency_weight(
    score: Tensor, is_defined: Tensor, sum_over_batch: Callable[[Tensor], Tensor] = lambda sums: sums
) -> Tensor:
    """
    Map alignment scores to the weights alpha of Eq. 4: positive, with mean 1 over the batch, no gradient.

    ``score`` is u_align . v_j over the temperature, the scale of sim. The paper takes the inner product
    itself, a third of which is negative in practice, and collapses: softplus and the mean are ours. Where no
    exposed item is left to compare with, alpha is 1. ``sum_over_batch`` adds up what the processes that share
    the batch have. [p], bool [p] -> [p].
    """
    raw = functional.softplus(score.detach())
    total, n = sum_over_batch(torch.stack([raw[is_defined].sum(), is_defined.sum()]))
    return torch.where(is_defined, raw * n / total, 1.0)


def total_loss(terms: dict[str, Tensor]) -> Tensor:
    """Sum the terms of the towers that the variant trains: L = L_b + L_inc + L_align (Eq. 8)."""
    return torch.stack(list(terms.values())).sum()
