"""Wrappers that re-weight the loss of each pair, whatever the loss: LCPO (S056), focal, conflict weights.

All of them ask the wrapped loss L both ways, about the pair and about the swapped pair. By the Gibbs link
p(chosen > rejected) = exp(-L(pair)) / (exp(-L(pair)) + exp(-L(swapped))), the log-odds that the policy gives to a
label are L(swapped) - L(pair); for the log-sigmoid losses that is their margin.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.objective import PairLogps
from accordance.objectives.registry import Pairwise, require, wrapper
from accordance.objectives.workers import over_workers

#: Reliabilities are kept inside: below a half, labels and policy could turn over together.
_LEAST, _MOST = 0.501, 0.999


def both_ways(base: Pairwise, pairs: PairLogps) -> tuple[Tensor, Tensor]:
    """The loss of each pair and of the swapped pair, shape [n] each."""
    return base.function(pairs), base.function(pairs.swapped())


def label_confidence(base: Pairwise, pairs: PairLogps, reliability: float | Tensor) -> Tensor:
    """The probability that each label is right, given what the policy believes: LCPO's E-step.

    Args:
        base: the loss that turns log-probabilities into beliefs; not the wrapped one.
        pairs: n pairs.
        reliability: share of right labels, one number or one per pair, shape [n].

    Returns:
        Shape [n], without gradient.
    """
    with torch.no_grad():
        return _posterior(*both_ways(base, pairs), torch.as_tensor(reliability).to(pairs.chosen))


@wrapper("lcpo")
@system("S056", "LCPO", paper="arXiv:2509.24159")
def lcpo(base: Pairwise, initial: float = 0.75, memory: float = 1000.0, annotators: int = 4096) -> Pairwise:
    """LCPO: expectation maximisation over "is this label right", around any loss over pairs.

    The E-step gives each label the probability w = eta p / (eta p + (1 - eta)(1 - p)) of being right, with eta the
    reliability of its annotator and p the policy's own belief; no gradient flows through it. The loss is
    w L(pair) + (1 - w) L(swapped), auxiliary terms of L included in both. Each annotator's eta is the mean of its
    w over about its last `memory` labels. The paper's rate is one per batch; here it goes by the number of labels,
    so that cutting a batch into parts does not change it. Reliabilities stay between 0.501 and 0.999, and move only
    where gradients are recorded.

    Extras: ``annotator``, the index of each pair's annotator, shape [n]; without it all are one annotator. State:
    ``reliability``, eta by index, shape [annotators].

    Args:
        initial: reliability of an annotator before any label; 1 trusts everybody and is the wrapped loss itself.
        memory: over how many labels of an annotator the reliability is a running mean; 0 for those of the batch
            alone, which is EM on full batches.
        annotators: how many annotators there may be.
    """
    require(_LEAST <= initial <= _MOST or initial == 1, "initial", initial, f"{_LEAST} to {_MOST}, or 1")
    require(memory >= 0, "memory", memory, ">= 0")
    require(annotators > 0, "annotators", annotators, "> 0")
    reliability = torch.full((annotators,), initial, dtype=torch.float64)

    def function(pairs: PairLogps) -> Tensor:
        plain, swapped = both_ways(base, pairs)
        who = _annotator(pairs, annotators)
        right = _posterior(plain.detach(), swapped.detach(), reliability[who].to(plain))
        if torch.is_grad_enabled() and initial < 1:
            _update(reliability, who, right, memory)
        return right * plain + (1 - right) * swapped

    columns = tuple(dict.fromkeys((*base.columns, "annotator")))
    return replace(base, function=function, columns=columns, state={"reliability": reliability})


@wrapper("focal")
def focal(base: Pairwise, exponent: float = 2.0) -> Pairwise:
    """Focal weight: each pair's loss times (1 - p)^k, so that pairs that are right already count less.

    Around DPO it is the focalised preference optimisation of LifeAlign (arXiv:2509.17183), which lets the gradient
    flow through the weight; so does this.

    Args:
        exponent: the k; 0 is the wrapped loss itself.
    """
    require(exponent >= 0, "exponent", exponent, ">= 0")

    def function(pairs: PairLogps) -> Tensor:
        plain, swapped = both_ways(base, pairs)
        return plain * (exponent * logsigmoid(plain - swapped)).exp()

    return replace(base, function=function)


@wrapper("conflict")
def conflict(base: Pairwise) -> Pairwise:
    """Conflict weight: each pair's loss times a number of its own, turned over where the number is negative.

    With c from the extra ``conflict``: c L(pair) where c is positive, -c L(swapped) where it is negative, nothing at
    0. So a triage of old preferences under new rules says what to keep, to leave out and to turn over, and how
    much each counts. 1 everywhere is the wrapped loss itself.
    """

    def function(pairs: PairLogps) -> Tensor:
        if "conflict" not in pairs.extras:
            raise DataError(
                "conflict weighs each pair by a number and the bundle carries none",
                expected="an extra named conflict, shape [n]",
            )
        plain, swapped = both_ways(base, pairs)
        factor = pairs.extras["conflict"].to(plain)
        return factor.clamp(min=0) * plain + (-factor).clamp(min=0) * swapped

    return replace(base, function=function, columns=(*base.columns, "conflict"))


def _posterior(plain: Tensor, swapped: Tensor, reliability: Tensor) -> Tensor:
    return (reliability.logit() + swapped - plain).sigmoid()


def _annotator(pairs: PairLogps, most: int) -> Tensor:
    """The index of each pair's annotator, shape [n], on the CPU."""
    if "annotator" not in pairs.extras:
        return torch.zeros(len(pairs.chosen), dtype=torch.long)
    who = pairs.extras["annotator"].long().cpu()
    if len(who) and not 0 <= int(who.min()) <= int(who.max()) < most:
        raise DataError(
            "there are more annotators than lcpo keeps reliabilities of",
            found=f"index {int(who.max())}",
            expected=f"indices from 0 to {most - 1}",
            remedy=f"annotators={2 ** int(who.max() + 1).bit_length()}",
        )
    return who


def _update(reliability: Tensor, who: Tensor, right: Tensor, memory: float) -> None:
    """Move each annotator's reliability towards the mean of its labels' probabilities, in place."""
    right = right.double().cpu()
    totals = torch.stack([torch.zeros_like(reliability).index_add(0, who, x) for x in (right, right * 0 + 1)])
    total, count = over_workers(totals)
    step = 1 - torch.exp(-count / memory) if memory else (count > 0).double()
    mean = total / count.clamp(min=1)
    # In place: sums of objectives and checkpoints hold on to this very tensor.
    reliability.add_(step * (mean - reliability)).clamp_(_LEAST, _MOST)
