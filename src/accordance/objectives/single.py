"""Objectives over single responses: demonstrations (SFT) and thumbs (KTO, unpaired APO-zero)."""

from __future__ import annotations

import torch
from torch import Tensor

from accordance.core.errors import DataError, MissingReference
from accordance.core.objective import Objective, UnaryLogps
from accordance.objectives.registry import objective, require_positive
from accordance.objectives.workers import batch_totals


def need_labels(bundle: UnaryLogps) -> Tensor:
    """The labels of a unary bundle as booleans, shape [n]. Raises DataError where there are none."""
    if bundle.label is None:
        raise DataError(
            "this objective learns from thumbs and the responses carry no label",
            expected="a label (up or down) for each response",
            remedy="for demonstrations without labels use sft",
        )
    return bundle.label.bool()


@objective("sft")
def sft() -> Objective[UnaryLogps]:
    """Supervised fine-tuning: the negative log-likelihood of each response, summed over its tokens.

    The unit is ``tokens``: the batch loss is the sum over the number of response tokens in the batch. In a
    weighted sum with objectives over pairs or lists it is applied to the chosen (best) response, as its mean
    over tokens.
    """
    return Objective(
        name="sft", bundle=UnaryLogps, function=lambda bundle: -bundle.logp, reference=False, unit="tokens"
    )


@objective("kto")
def kto(
    beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Objective[UnaryLogps]:
    """KTO (arXiv:2402.01306): a prospect-theoretic value of each response against a reference point.

    The reference point is the KL from the reference policy, estimated on mismatched responses: their mean
    log-ratio over the batch (of all workers under `across_workers`), not below 0, without gradient.

    Args:
        beta: as in DPO; also the steepness of the value function.
        desirable_weight: weight of the thumbs up, the paper's lambda_D. Choose the two weights so that the
            totals of both sides stay within 1:1 and 4:3.
        undesirable_weight: weight of the thumbs down, the paper's lambda_U.
    """
    require_positive(beta=beta, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)

    def function(bundle: UnaryLogps) -> Tensor:
        up = need_labels(bundle)
        if bundle.kl_logp is None or bundle.kl_ref is None:
            raise MissingReference(
                "kto estimates the KL on mismatched responses and the bundle carries none",
                expected="kl_logp and kl_ref",
                remedy="let the trainer build the bundle, or use bco or apo_zero_unpaired, which need no KL",
            )
        total, count = batch_totals(bundle.kl_logp - bundle.kl_ref)[0]
        above = beta * (bundle.ratio - (total / count).clamp(min=0))
        return torch.where(up, desirable_weight * (-above).sigmoid(), undesirable_weight * above.sigmoid())

    return Objective(
        name="kto",
        bundle=UnaryLogps,
        function=function,
        labels=True,
        mismatched=True,
        rewards=lambda bundle: beta * bundle.ratio,
    )


@objective("apo_zero_unpaired")
def apo_zero_unpaired(
    beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Objective[UnaryLogps]:
    """APO-zero on single responses: KTO with the reference point at 0, so that no KL is estimated.

    Args:
        beta: as in DPO.
        desirable_weight: weight of the thumbs up.
        undesirable_weight: weight of the thumbs down.
    """
    require_positive(beta=beta, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)

    def function(bundle: UnaryLogps) -> Tensor:
        reward = beta * bundle.ratio
        return torch.where(
            need_labels(bundle), desirable_weight * (-reward).sigmoid(), undesirable_weight * reward.sigmoid()
        )

    return Objective(
        name="apo_zero_unpaired",
        bundle=UnaryLogps,
        function=function,
        labels=True,
        rewards=lambda bundle: beta * bundle.ratio,
    )
