"""The parts of a pairwise objective, and the builder that puts them together.

    score (reduction, reference) -> link -> times beta = reward -> loss of two rewards + auxiliary terms

Most losses look only at the margin between the rewards: `margin(shape)`. A new objective is a choice of parts:
``pairwise(margin(log_sigmoid()), score=log_ratio("mean"), beta=2.0)`` is LN-DPO. Nothing in here averages over
examples or applies the weights of a bundle: whoever trains does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from accordance.core.objective import Objective, PairLogps
from accordance.objectives.divergences import steady_expm1

Reduction = Literal["sum", "mean"]
Average = Literal["response", "batch", "sum"]
Link = Callable[[Tensor], Tensor]
Shape = Callable[[Tensor], Tensor]
PairTerm = Callable[[PairLogps], Tensor]
PairLoss = Callable[[Tensor, Tensor, PairLogps], Tensor]


@dataclass(frozen=True)
class Score:
    """How the score of each response is read off a pair bundle.

    Attributes:
        read: from the pairs to the scores of (chosen, rejected), shape [n] each.
        reference: whether it needs reference log-probabilities.
        tokens: whether it needs per-token values.
    """

    read: Callable[[PairLogps], tuple[Tensor, Tensor]]
    reference: bool
    tokens: bool = False


def log_ratio(reduction: Reduction = "sum") -> Score:
    """log pi - log ref of a response: the sum over its tokens, or the mean (length-normalised)."""
    if reduction == "sum":
        return Score(lambda pairs: (pairs.chosen_ratio, pairs.rejected_ratio), reference=True)
    return Score(
        lambda pairs: (
            pairs.chosen_ratio / pairs.chosen_length,
            pairs.rejected_ratio / pairs.rejected_length,
        ),
        reference=True,
    )


def log_prob(reduction: Reduction = "sum") -> Score:
    """log pi of a response, without a reference: the sum over its tokens, or the mean."""
    if reduction == "sum":
        return Score(lambda pairs: (pairs.chosen, pairs.rejected), reference=False)
    return Score(
        lambda pairs: (pairs.chosen / pairs.chosen_length, pairs.rejected / pairs.rejected_length),
        reference=False,
    )


def identity(score: Tensor) -> Tensor:
    """The link of DPO: the reward is beta times the score itself."""
    return score


def log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 - p)) of a probability p = exp(logp), elementwise; finite at p = 1."""
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    # log(1 - e^x) loses digits near x = 0 in one form and near -inf in the other.
    near = logp > -0.6931
    complement = torch.where(
        near,
        torch.log(-torch.expm1(torch.where(near, logp, -1.0))),
        torch.log1p(-torch.exp(torch.where(near, -1.0, logp))),
    )
    return logp - complement


# Shapes: from the margin between two rewards to a loss, elementwise.


def log_sigmoid(label_smoothing: float = 0.0) -> Shape:
    """-log sigmoid(m), the logistic loss; with smoothing e: (1 - e) l(m) + e l(-m)."""
    if label_smoothing == 0:
        return lambda m: -logsigmoid(m)
    return lambda m: -(1 - label_smoothing) * logsigmoid(m) - label_smoothing * logsigmoid(-m)


def unbiased_log_sigmoid(flip_rate: float) -> Shape:
    """The logistic loss, unbiased under labels flipped at a known rate e: ((1-e) l(m) - e l(-m)) / (1 - 2e)."""
    return lambda m: (-(1 - flip_rate) * logsigmoid(m) + flip_rate * logsigmoid(-m)) / (1 - 2 * flip_rate)


def hinge_loss(target: float = 1.0) -> Shape:
    """max(0, target - m)."""
    return lambda m: relu(target - m)


def squared(target: float, scale: float = 1.0) -> Shape:
    """((m - target) / scale)^2."""
    return lambda m: ((m - target) / scale) ** 2


def exo_loss(label_smoothing: float) -> Shape:
    """KL from the policy's preference sigmoid(m) to the smoothed label (1 - e, e); 0 < e < 1/2."""
    kept, flipped = math.log1p(-label_smoothing), math.log(label_smoothing)
    return lambda m: m.sigmoid() * (logsigmoid(m) - kept) + (-m).sigmoid() * (logsigmoid(-m) - flipped)


def log_ratio_modulated(tau: float) -> Shape:
    """Logistic where the margin is below 0, exponential above, blended by sigmoid(m / tau)."""

    def shape(m: Tensor) -> Tensor:
        # The exponential is multiplied as a logarithm: for m far below 0 it would be infinity times 0.
        exponential = steady_expm1(logsigmoid(m / tau) - m) + 1
        return -logsigmoid(m) * (-m / tau).sigmoid() + exponential

    return shape


def margin(shape: Shape, offset: float | PairTerm = 0.0) -> PairLoss:
    """A loss of the margin chosen - rejected - offset.

    Args:
        shape: from margins to losses, elementwise.
        offset: how far apart the rewards should be: one number, or from the pairs to one per pair (a function
            of `pairs.gap`, say).
    """

    def loss(chosen: Tensor, rejected: Tensor, pairs: PairLogps) -> Tensor:
        return shape(chosen - rejected - (offset(pairs) if callable(offset) else offset))

    return loss


def likelihood(weight: float, average: Average = "response") -> PairTerm:
    """An auxiliary term: `weight` times the negative log-likelihood of the chosen response.

    Args:
        weight: its weight.
        average: ``response``: per token, each response by its own length; ``sum``: not divided; ``batch``: per
            token of the whole batch, as TRL has it. The last depends on what else is in the batch, so with it
            gradient accumulation changes the loss.
    """

    def term(pairs: PairLogps) -> Tensor:
        if average == "sum":
            return -weight * pairs.chosen
        length = pairs.chosen_length.to(pairs.chosen.dtype)
        return -weight * pairs.chosen / (length if average == "response" else length.mean())

    return term


def pairwise(
    loss: PairLoss,
    *,
    score: Score,
    beta: float = 1.0,
    link: Link = identity,
    weight: PairTerm | None = None,
    auxiliary: Sequence[PairTerm] = (),
    rewards: Callable[[PairLogps], tuple[Tensor, Tensor]] | None = None,
    name: str = "",
) -> Objective[PairLogps]:
    """An objective over pairs from its parts.

    Args:
        loss: from the rewards of chosen and rejected, shape [n] each, and the pairs to one loss per pair.
        score: how a response's score is read off the pairs.
        beta: the reward is beta * link(score).
        link: elementwise.
        weight: a factor on each pair's loss that belongs to the method; no gradient flows through it.
        auxiliary: terms that are added, each from the pairs to shape [n]; `weight` does not touch them.
        rewards: the implicit rewards to report, where they are not beta * link(score).
        name: what to call it; `@objective` sets it.
    """

    def implicit(pairs: PairLogps) -> tuple[Tensor, Tensor]:
        chosen, rejected = score.read(pairs)
        return beta * link(chosen), beta * link(rejected)

    def function(pairs: PairLogps) -> Tensor:
        value = loss(*implicit(pairs), pairs)
        if weight is not None:
            value = value * weight(pairs).detach()
        for term in auxiliary:
            value = value + term(pairs)
        return value

    return Objective(
        name=name,
        bundle=PairLogps,
        function=function,
        reference=score.reference,
        tokens=score.tokens,
        rewards=rewards or implicit,
    )
