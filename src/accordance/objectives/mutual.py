"""SAMI: answers are made to tell under which principles they were written, without a label of preference."""

from __future__ import annotations

import torch
from torch import Tensor

from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.objective import CrossLogps, Objective
from accordance.objectives.parts import Reduction
from accordance.objectives.registry import objective


@objective("sami")
@system("S125", "SAMI", paper="arXiv:2404.14313")
def sami(reduction: Reduction = "mean") -> Objective[CrossLogps]:
    """SAMI: a contrastive (InfoNCE) bound on the mutual information of conditions and responses.

    For each prompt, the j-th response was sampled under the j-th condition. The loss is the mean of two
    cross-entropies: which response belongs to a condition, and which condition to a response. With C conditions
    log C - loss bounds the mutual information given the prompt from below.

    No gradient flows through the sampling. The published code has an optional KL penalty, which is left out;
    take few steps, or add a likelihood term in the loop.

    Args:
        reduction: log-probabilities as ``mean`` over the tokens of a response, which works as a temperature, or
            ``sum``, which saturates for long responses.

    Raises:
        DataError: a prompt has not as many responses as conditions.
    """

    def function(cross: CrossLogps) -> Tensor:
        if cross.logp.shape[1] != cross.logp.shape[2]:
            raise DataError(
                "there must be one response for each condition",
                found=f"{cross.logp.shape[2]} responses under {cross.logp.shape[1]} conditions",
                expected="the j-th response written under the j-th condition",
            )
        fit = cross.logp / cross.length[:, None] if reduction == "mean" else cross.logp
        matching = fit.diagonal(dim1=1, dim2=2)
        which_response = (fit.logsumexp(2) - matching).mean(-1)
        which_condition = (fit.logsumexp(1) - matching).mean(-1)
        return (which_response + which_condition) / 2

    return Objective(name="sami", bundle=CrossLogps, function=function, reference=False, online=True)


def mutual_information(log_probs: Tensor) -> Tensor:
    """Exact mutual information in nats between a condition, drawn evenly, and the response to it.

    Args:
        log_probs: of every possible response under each condition, shape [..., C, R].

    Returns:
        Shape [...].
    """
    overall = log_probs.logsumexp(-2, keepdim=True) - torch.tensor(log_probs.shape[-2]).to(log_probs).log()
    # Where a response never occurs, 0 log 0 is 0.
    apart = torch.where(log_probs == -torch.inf, 0.0, log_probs - overall)
    return (log_probs.exp() * apart).sum(-1).mean(-1)
