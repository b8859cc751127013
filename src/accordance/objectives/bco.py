"""BCO: single thumbs through a binary classifier whose logit is the implicit reward (S031)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from accordance.core.catalogue import system
from accordance.core.objective import Objective, UnaryLogps
from accordance.objectives.registry import objective, require_positive
from accordance.objectives.single import need_labels
from accordance.objectives.workers import batch_totals


@objective("bco")
@system("S031", "BCO", paper="arXiv:2404.04656")
def bco(
    beta: float = 0.1, shift: bool = True, average: Literal["label", "all"] = "label"
) -> Objective[UnaryLogps]:
    """BCO: cross-entropy of thumbs up and down, rewards shifted by a running mean to tighten the bound on DPO.

    With rewards r = beta (log pi - log ref), an up costs -log sigmoid(r - delta), a down
    -log sigmoid(delta - r).
    delta is a running mean of rewards over all batches so far, this one included; no gradient flows through it.
    It moves only where gradients are recorded, so that evaluation leaves it alone. For ups and downs from
    different prompts, give the downs the weights of `density_ratio_weights`.

    Args:
        beta: as in DPO.
        shift: whether rewards are shifted by delta; without it this is plain binary cross-entropy.
        average: ``label``: the batch loss is the mean over ups plus the mean over downs, and delta is halfway
            between the two mean rewards; ``all``: one mean over all rows for each, as TRL has had it. They
            differ (apart from a factor 2) where a batch holds unequal numbers of ups and downs.
    """
    require_positive(beta=beta)
    state = {"reward_totals": torch.zeros(2, 2, dtype=torch.float64)} if shift else {}

    def function(bundle: UnaryLogps) -> Tensor:
        up = need_labels(bundle)
        reward = beta * bundle.ratio
        totals = batch_totals(reward[up], reward[~up])
        if shift:
            if torch.is_grad_enabled():
                # In place: sums of objectives and checkpoints hold on to this very tensor.
                state["reward_totals"].add_(totals.to(state["reward_totals"].device).double())
            reward = reward - reward_shift(state["reward_totals"], average).to(reward)
        losses = -logsigmoid(torch.where(up, reward, -reward))
        return losses * _label_factor(up, totals[:, 1]).to(losses) if average == "label" else losses

    return Objective(
        name="bco",
        bundle=UnaryLogps,
        function=function,
        labels=True,
        rewards=lambda bundle: beta * bundle.ratio,
        state=state,
    )


def reward_shift(totals: Tensor, average: Literal["label", "all"] = "label") -> Tensor:
    """The shift delta from the running totals of rewards.

    Args:
        totals: sum and count of the rewards of ups and downs, shape [2, 2].
        average: ``label``: the mean of the two means (of one of them, where the other has no rows yet);
            ``all``: the mean over all rows.

    Returns:
        A scalar; 0 where there are no rows.
    """
    if average == "all":
        total, count = totals.sum(0)
        return total / count.clamp(min=1)
    means, seen = totals[:, 0] / totals[:, 1].clamp(min=1), totals[:, 1] > 0
    return (means * seen).sum() / seen.sum().clamp(min=1)


def _label_factor(up: Tensor, counts: Tensor) -> Tensor:
    """Factors, shape [n], under which a mean over rows becomes mean over ups plus mean over downs."""
    return torch.where(up, *(counts.sum() / counts.clamp(min=1)))
