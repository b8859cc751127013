"""Objectives over lists: rankings of any length, ties allowed."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.objective import ListLogps, Objective, need_reference
from accordance.objectives.parts import Reduction
from accordance.objectives.registry import objective, require, require_positive

Squash = Literal["sigmoid", "range", "none"]


@objective("plackett_luce")
def plackett_luce(
    beta: float = 0.1, reduction: Reduction = "sum", reference: bool = True
) -> Objective[ListLogps]:
    """DPO for rankings (arXiv:2305.18290, appendix A.3): the Plackett-Luce likelihood of the order.

    At each place, the response is chosen among itself and all that were judged worse; tied ones are no
    opponents. Lists of two give DPO.

    Args:
        beta: scale of the rewards.
        reduction: rewards as ``sum`` or ``mean`` over the tokens of a response.
        reference: whether rewards are log-ratios to the reference, or plain log-probabilities.
    """
    require_positive(beta=beta)

    def rewards(lists: ListLogps) -> Tensor:
        value = lists.logp - need_reference(lists.ref) if reference else lists.logp
        return beta * (value / lists.length if reduction == "mean" else value)

    def function(lists: ListLogps) -> Tensor:
        scores = need_scores(lists)
        return _ranking_loss(rewards(lists), scores, lists.mask, temperatures=False)

    return Objective(
        name="plackett_luce", bundle=ListLogps, function=function, reference=reference, rewards=rewards
    )


@objective("pro")
@system("S076", "PRO", paper="arXiv:2306.17492")
def pro(alpha: float = 0.05, temperatures: bool = True, squash: Squash = "sigmoid") -> Objective[ListLogps]:
    """PRO: the best response against all others, the second best against the rest, ..., plus SFT on the best.

    Rewards are mean log-probabilities, without a reference. The contrast of place k with opponent i is as sharp
    as the gap between their scores is wide; the response at place k itself takes its widest gap. The SFT term
    is the *summed* negative log-likelihood of the best response, times alpha (n - 1)^2, as in the authors'
    code.

    Args:
        alpha: weight of the SFT term; it is all that keeps the policy near the data. 0 leaves it out.
        temperatures: whether score gaps set the sharpness; without them this is the Plackett-Luce likelihood.
        squash: how scores are brought into [0, 1] before gaps are taken: ``sigmoid`` (for reward-model
            outputs), ``range`` (by each list's own smallest and largest), ``none`` (they are already).
    """
    require(alpha >= 0, "alpha", alpha, ">= 0")
    require(
        temperatures or squash == "sigmoid", "squash", squash, "nothing: without temperatures it has no effect"
    )

    def rewards(lists: ListLogps) -> Tensor:
        return lists.logp / lists.length

    def function(lists: ListLogps) -> Tensor:
        scores = need_scores(lists)
        squashed = _squash(scores, lists.mask, squash) if temperatures else scores
        loss = _ranking_loss(rewards(lists), squashed, lists.mask, temperatures)
        if alpha == 0:
            return loss
        contrasts = (lists.mask.sum(-1) - 1).clamp(min=0).to(loss.dtype)
        return loss - alpha * contrasts**2 * lists.logp.gather(-1, best(lists)[:, None])[:, 0]

    return Objective(name="pro", bundle=ListLogps, function=function, reference=False, rewards=rewards)


def need_scores(lists: ListLogps) -> Tensor:
    """The scores of a list bundle, shape [n, K]. Raises DataError where there are none."""
    if lists.scores is None:
        raise DataError(
            "this objective learns from rankings and the responses carry no scores",
            expected="one score per response, larger is better",
        )
    return lists.scores


def best(lists: ListLogps) -> Tensor:
    """Index of the best response of each list (the first of several), shape [n]."""
    return need_scores(lists).masked_fill(~lists.mask, -torch.inf).argmax(-1)


def _squash(scores: Tensor, mask: Tensor, how: Squash) -> Tensor:
    if how == "none":
        return scores
    if how == "sigmoid":
        return scores.sigmoid()
    low = scores.masked_fill(~mask, torch.inf).amin(-1, keepdim=True)
    high = scores.masked_fill(~mask, -torch.inf).amax(-1, keepdim=True)
    return torch.where(mask, (scores - low) / (high - low).clamp(min=torch.finfo(scores.dtype).tiny), 0)


def _ranking_loss(rewards: Tensor, scores: Tensor, mask: Tensor, temperatures: bool) -> Tensor:
    """Sum over places k of -log softmax of k among itself and the responses below it; shapes [n, K] to [n]."""
    gaps = scores[:, :, None] - scores[:, None, :]  # [n, k, i]: by how much k is better than i
    below = (gaps > 0) & mask[:, :, None] & mask[:, None, :]
    gaps = gaps.masked_fill(~below, 0).to(rewards.dtype)
    sharpness = gaps if temperatures else below.to(rewards.dtype)
    own = rewards * sharpness.amax(-1)
    opponents = (rewards[:, None, :] * sharpness).masked_fill(~below, -torch.inf)
    # A place without opponents holds its own term alone, so it costs log 1 = 0.
    stages = torch.logsumexp(torch.cat([own[..., None], opponents], dim=-1), dim=-1) - own
    return stages.sum(-1)
