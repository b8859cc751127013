"""Soft labels: each pair by the probability that its label is right, whatever the loss (weak-to-strong)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from accordance.core.errors import DataError
from accordance.core.objective import PairLogps
from accordance.objectives.registry import Pairwise, require, wrapper
from accordance.objectives.reweight import both_ways
from accordance.objectives.workers import over_workers


@wrapper("soft")
def soft(base: Pairwise, confidence: float = 0.0, warmup: float = 0.0) -> Pairwise:
    """Soft labels: p L(pair) + (1 - p) L(swapped), with p from the extra ``soft_label``.

    With `confidence` a, the target is (1 - a) p + a [the policy prefers the chosen response]: the auxiliary
    confidence loss of Burns et al. (arXiv:2312.09390), which lets a strong student hold on to what it is sure of
    against a weak teacher. Their threshold is the batch's quantile at the mean label; over pairs, whose sides are
    arbitrary, that is one half. No gradient flows through the target. p = 1 everywhere and a = 0 is the wrapped
    loss itself.

    State: ``seen``, the pairs trained on so far.

    Args:
        confidence: the a, from 0 to 1.
        warmup: pairs over which a rises from 0 to its value; 0 for at once.
    """
    require(0 <= confidence <= 1, "confidence", confidence, "0 to 1")
    require(warmup >= 0, "warmup", warmup, ">= 0")
    seen = torch.zeros(1, dtype=torch.float64)

    def function(pairs: PairLogps) -> Tensor:
        if "soft_label" not in pairs.extras:
            raise DataError(
                "soft weighs each pair by the probability of its label and the bundle carries none",
                expected="an extra named soft_label, shape [n], in [0, 1]",
            )
        plain, swapped = both_ways(base, pairs)
        target = pairs.extras["soft_label"].to(plain)
        if confidence:
            share = confidence * (min(1.0, float(seen) / warmup) if warmup else 1.0)
            own = (swapped > plain).to(plain) + 0.5 * (swapped == plain)
            target = ((1 - share) * target + share * own).detach()
            if torch.is_grad_enabled():
                count = torch.tensor([[float(len(plain)), 0.0]], dtype=torch.float64)
                seen.add_(over_workers(count)[0, 0].cpu())
        return target * plain + (1 - target) * swapped

    state = {"seen": seen} if confidence else {}
    return replace(base, function=function, columns=(*base.columns, "soft_label"), state=state)
