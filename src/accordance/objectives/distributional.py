"""f-DPG: policy gradients towards a target distribution, under any f-divergence."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.objective import ListLogps, Objective, need_reference
from accordance.objectives.divergences import get_divergence, steady_expm1
from accordance.objectives.listwise import need_scores
from accordance.objectives.policy_gradient import need_sampled
from accordance.objectives.registry import objective, require_positive


@objective("f_dpg")
@system("S118", "f-DPG", paper="arXiv:2302.08215")
def f_dpg(
    divergence: str = "js",
    alpha: float | None = None,
    beta: float = 0.1,
    target: Literal["tilted", "energy"] = "tilted",
    normaliser: Literal["group", "column"] = "group",
    baseline: Literal["leave_one_out", "none"] = "leave_one_out",
    clip: float | None = None,
) -> Objective[ListLogps]:
    """f-DPG: the policy goes to a target p(y) = P(y) / Z by policy gradient with pseudo-reward -f'(pi / p).

    The mean over a group of w (f'(t) - b) log pi, with w = pi / old and t = pi / p; no gradient flows through w,
    t and the baseline b, so only the *gradient* of this loss means something: it is that of D_f(pi || p), the
    expectation E_p[f(pi / p)]. Sequences count as a whole; old may be any policy that covers the target.

    Args:
        divergence: which one: reverse_kl is RLHF's, forward_kl that of GDC and DPG; js is between them.
        alpha: constant of the alpha-divergence.
        beta: price of going away from the reference where the target is tilted; 1 with scores of 0 and -inf
            makes a hard constraint, and scores sum_i l_i phi_i are conditions on moments.
        target: ``tilted``: log P = log ref + score / beta; ``energy``: log P is the score itself.
        normaliser: of each prompt: estimated from its ``group`` by importance sampling (a bias of order 1 / K for
            all but reverse_kl), or taken from the extra ``log_z``, a running estimate of who samples.
        baseline: the mean pseudo-reward of the others in the group, or nothing.
        clip: largest importance weight w, none for no limit.

    Raises:
        ConfigError: the divergence is unknown, or an option can't be used.
    """
    chosen = get_divergence(divergence, alpha)
    require_positive(beta=beta, clip=math.inf if clip is None else clip)
    tilted = target == "tilted"

    def function(lists: ListLogps) -> Tensor:
        with torch.no_grad():
            weight = steady_expm1(lists.logp - need_sampled(lists.old)) + 1
            weight = (weight if clip is None else weight.clamp(max=clip)).masked_fill(~lists.mask, 0.0)
            energy = _energy(lists, beta, tilted)
            impossible = energy == -math.inf
            if chosen.slope_at_infinity == math.inf and (impossible & lists.mask).any():
                raise DataError(
                    f"under {divergence} a response that the target rules out costs infinitely much",
                    found="a score of -inf",
                    remedy="divergence=forward_kl, js or total_variation can have hard constraints",
                )
            log_z = _log_z(lists, energy, normaliser)[:, None]
            log_t = (lists.logp - energy + log_z).masked_fill(impossible, math.inf)
            penalty = chosen.slope(log_t).masked_fill(~lists.mask, 0.0)
            size = lists.mask.sum(-1, keepdim=True).clamp(min=1)
            if baseline == "leave_one_out":
                total = weight * penalty
                others = total.sum(-1, keepdim=True) - total
                penalty = penalty - others / (size - 1).clamp(min=1)
        return (weight * penalty * lists.logp).sum(-1) / size[:, 0]

    return Objective(
        name="f_dpg",
        bundle=ListLogps,
        function=function,
        reference=tilted,
        online=True,
        columns=("log_z",) if normaliser == "column" else (),
    )


def _energy(lists: ListLogps, beta: float, tilted: bool) -> Tensor:
    scores = need_scores(lists).to(lists.logp).masked_fill(~lists.mask, -math.inf)
    if scores.isnan().any() or (scores == math.inf).any():
        raise DataError("a score of the target is no number", expected="a finite number, or -inf")
    return need_reference(lists.ref) + scores / beta if tilted else scores


def _log_z(lists: ListLogps, energy: Tensor, normaliser: str) -> Tensor:
    if normaliser == "column":
        if "log_z" not in lists.extras:
            raise DataError("the bundle carries no normaliser", expected="an extra `log_z`, shape [n]")
        return lists.extras["log_z"].to(energy)
    ratio = (energy - need_sampled(lists.old)).masked_fill(~lists.mask, -math.inf)
    return ratio.logsumexp(-1) - lists.mask.sum(-1).clamp(min=1).to(energy).log()
