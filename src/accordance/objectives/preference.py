"""Objectives over pairs: the DPO family. Each is a choice of the parts in `parts`.

Rewards are those that each loss itself implies, constant terms left out. TRL logs beta times the summed
log-ratio for all of them, which orders pairs otherwise where the loss is length-normalised.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from accordance.core.catalogue import system
from accordance.core.objective import Objective, PairLogps, need_reference
from accordance.objectives.divergences import get_divergence
from accordance.objectives.parts import (
    Average,
    Reduction,
    exo_loss,
    hinge_loss,
    likelihood,
    log_odds,
    log_prob,
    log_ratio,
    log_ratio_modulated,
    log_sigmoid,
    margin,
    pairwise,
    squared,
    unbiased_log_sigmoid,
)
from accordance.objectives.registry import objective, require, require_positive, require_rate


@objective("dpo")
def dpo(beta: float = 0.1, label_smoothing: float = 0.0) -> Objective[PairLogps]:
    """Direct preference optimisation (arXiv:2305.18290, equation 7): -log sigmoid of the reward margin.

    Args:
        beta: strength of the pull towards the reference; smaller lets the policy go further.
        label_smoothing: assumed share of wrong labels (conservative DPO); 0 is plain DPO.
    """
    require_positive(beta=beta)
    require_rate(label_smoothing=label_smoothing)
    return pairwise(margin(log_sigmoid(label_smoothing)), score=log_ratio(), beta=beta)


@objective("ln_dpo")
@system("S052", "LN-DPO", paper="arXiv:2407.15229")
def ln_dpo(beta: float = 2.0, label_smoothing: float = 0.0) -> Objective[PairLogps]:
    """Length-normalised DPO: the implicit reward is a mean over tokens, not a sum. TRL's ``sigmoid_norm``.

    Args:
        beta: as in DPO, but ten times as large, since log-ratios per token are small; 1 to 10 is usual.
        label_smoothing: assumed share of wrong labels; 0 for none.
    """
    require_positive(beta=beta)
    require_rate(label_smoothing=label_smoothing)
    return pairwise(margin(log_sigmoid(label_smoothing)), score=log_ratio("mean"), beta=beta)


@objective("ipo")
def ipo(beta: float = 0.1, reduction: Reduction = "mean") -> Objective[PairLogps]:
    """Identity preference optimisation (arXiv:2310.12036, equation 17): (h - 1 / (2 beta))^2.

    h is the difference of the two log-ratios. The paper writes sequence log-ratios; its authors say that their
    results come from means over tokens, and TRL takes those: that is the default here too.

    Args:
        beta: strength of the pull towards the reference, the paper's tau.
        reduction: ``mean`` over the tokens of a response, or ``sum`` for equation 17 to the letter.
    """
    require_positive(beta=beta)
    return pairwise(margin(squared(0.5, scale=beta)), score=log_ratio(reduction), beta=beta)


@objective("hinge")
def hinge(beta: float = 0.1, reduction: Reduction = "sum") -> Objective[PairLogps]:
    """max(0, 1 - reward margin): SLiC's calibration loss on DPO's rewards (arXiv:2305.10425, 2309.06657).

    Args:
        beta: scale of the rewards; 1 / beta is the margin of log-ratios at which a pair is done with.
        reduction: log-ratios as ``sum`` or ``mean`` over the tokens of a response.
    """
    require_positive(beta=beta)
    return pairwise(margin(hinge_loss()), score=log_ratio(reduction), beta=beta)


@objective("robust")
def robust(beta: float = 0.1, label_smoothing: float = 0.1) -> Objective[PairLogps]:
    """Provably robust DPO (arXiv:2403.00409): unbiased under randomly flipped labels.

    Args:
        beta: as in DPO.
        label_smoothing: the share of labels that are flipped; 0 is plain DPO.
    """
    require_positive(beta=beta)
    require_rate(label_smoothing=label_smoothing)
    return pairwise(margin(unbiased_log_sigmoid(label_smoothing)), score=log_ratio(), beta=beta)


@objective("exo_pair")
def exo_pair(beta: float = 0.1, label_smoothing: float = 1e-3) -> Objective[PairLogps]:
    """EXO on pairs (arXiv:2402.00856): reverse KL from the policy's preference to the smoothed label.

    Args:
        beta: as in DPO.
        label_smoothing: probability that the label gives to the rejected response, above 0.
    """
    require_positive(beta=beta, label_smoothing=label_smoothing)
    require_rate(label_smoothing=label_smoothing)
    return pairwise(margin(exo_loss(label_smoothing)), score=log_ratio(), beta=beta)


@objective("discopop")
def discopop(beta: float = 0.1, tau: float = 0.05) -> Objective[PairLogps]:
    """DiscoPOP (arXiv:2406.08414): the log-ratio modulated loss that a language model discovered.

    Args:
        beta: as in DPO.
        tau: width of the passage from the logistic to the exponential part.
    """
    require_positive(beta=beta, tau=tau)
    return pairwise(margin(log_ratio_modulated(tau)), score=log_ratio(), beta=beta)


@objective("f_dpo")
@system("S162", "f-DPO", paper="arXiv:2309.16240")
def f_dpo(
    beta: float = 0.1,
    divergence: str = "js",
    alpha: float | None = None,
    label_smoothing: float = 0.0,
    reduction: Reduction = "sum",
) -> Objective[PairLogps]:
    """DPO under another divergence constraint than the reverse KL: rewards are beta f'(pi / ref).

    Exponents are continued as straight lines beyond 40 (see `steady_expm1`), where TRL clamps them for
    ``alpha`` and lets them overflow for ``forward_kl``. The reward's constant makes it 0 at pi = ref.

    Args:
        beta: as in DPO; it must be tuned anew for each divergence.
        divergence: ``js``, ``forward_kl``, ``alpha``, or ``reverse_kl``, which is DPO.
        alpha: constant of the alpha-divergence, between 0 (reverse KL) and 1 (forward KL); none for 0.5.
            TRL's ``f_alpha_divergence_coef`` is 1 - alpha.
        label_smoothing: assumed share of wrong labels; 0 for none.
        reduction: log-ratios as ``sum`` or ``mean`` over the tokens of a response; the mean (our extension)
            tames the forward KL on long answers.
    """
    require_positive(beta=beta)
    require_rate(label_smoothing=label_smoothing)
    link = get_divergence(divergence, alpha).link()
    return pairwise(margin(log_sigmoid(label_smoothing)), score=log_ratio(reduction), beta=beta, link=link)


@objective("simpo")
def simpo(beta: float = 2.0, gamma: float = 1.0, label_smoothing: float = 0.0) -> Objective[PairLogps]:
    """SimPO (arXiv:2405.14734, equation 6): mean log-probabilities as rewards, a target margin, no reference.

    Args:
        beta: scale of the rewards.
        gamma: how far apart the rewards of a pair should be; 0 for none.
        label_smoothing: assumed share of wrong labels; 0 for none.
    """
    require_positive(beta=beta)
    require_rate(label_smoothing=label_smoothing)
    return pairwise(margin(log_sigmoid(label_smoothing), gamma), score=log_prob("mean"), beta=beta)


@objective("cpo")
def cpo(
    beta: float = 0.1,
    nll_weight: float = 1.0,
    nll_average: Average = "response",
    label_smoothing: float = 0.0,
) -> Objective[PairLogps]:
    """Contrastive preference optimisation (arXiv:2401.08417): DPO without a reference, plus likelihood.

    Args:
        beta: scale of the rewards beta log pi.
        nll_weight: weight of the chosen response's negative log-likelihood; 0 leaves it out.
        nll_average: of the likelihood: ``response`` per token of each response, ``sum`` as the paper writes it,
            ``batch`` per token of the whole batch as TRL has it (then gradient accumulation changes the loss).
        label_smoothing: assumed share of wrong labels; 0 for none.
    """
    require_positive(beta=beta)
    require_rate(label_smoothing=label_smoothing)
    require(nll_weight >= 0, "nll_weight", nll_weight, ">= 0")
    return pairwise(
        margin(log_sigmoid(label_smoothing)),
        score=log_prob(),
        beta=beta,
        auxiliary=[likelihood(nll_weight, nll_average)] if nll_weight else [],
    )


@objective("orpo")
def orpo(beta: float = 0.1, nll_average: Literal["response", "batch"] = "response") -> Objective[PairLogps]:
    """ORPO (arXiv:2403.07691, equation 6): likelihood of the chosen plus a log odds ratio, no reference.

    Probabilities are geometric means over tokens. The likelihood is that of the response alone, as the paper
    writes it; TRL adds the prompt's tokens, which changes the gradient.

    Args:
        beta: weight of the odds-ratio term, the paper's lambda.
        nll_average: of the likelihood: ``response`` per token of each response, ``batch`` per token of the
            whole batch as TRL has it (then gradient accumulation changes the loss).
    """
    require_positive(beta=beta)
    score = log_prob("mean")

    def rewards(pairs: PairLogps) -> tuple[Tensor, Tensor]:
        chosen, rejected = score.read(pairs)
        return beta * chosen, beta * rejected

    return pairwise(
        margin(lambda m: -beta * logsigmoid(m)),
        score=score,
        link=log_odds,
        auxiliary=[likelihood(1.0, nll_average)],
        rewards=rewards,
    )


@objective("apo_zero")
def apo_zero(beta: float = 0.1) -> Objective[PairLogps]:
    """APO-zero (arXiv:2408.06266, equation 7): raise the chosen, lower the rejected.

    For data whose chosen responses are better than what the model writes.

    Args:
        beta: as in DPO.
    """
    require_positive(beta=beta)
    return pairwise(
        lambda chosen, rejected, _: (-chosen).sigmoid() + rejected.sigmoid(), score=log_ratio(), beta=beta
    )


@objective("apo_down")
def apo_down(beta: float = 0.1) -> Objective[PairLogps]:
    """APO-down (arXiv:2408.06266, equation 8): lower the chosen, lower the rejected more.

    For data whose chosen responses are worse than what the model writes.

    Args:
        beta: as in DPO.
    """
    require_positive(beta=beta)
    return pairwise(
        lambda chosen, rejected, _: chosen.sigmoid() + (rejected - chosen).sigmoid(),
        score=log_ratio(),
        beta=beta,
    )


@objective("aot")
def aot(beta: float = 0.1, label_smoothing: float = 0.0) -> Objective[PairLogps]:
    """AOT for pairs (arXiv:2406.05882): the policy's margins dominate the reference's, quantile by quantile.

    The margins log pi(chosen) - log pi(rejected) of a batch and those of the reference are sorted apart, and each
    rank of the one is held against the same rank of the other. What a pair costs depends on its batch, so gradient
    accumulation changes the loss: use large batches.

    Args:
        beta: as in DPO.
        label_smoothing: assumed share of wrong labels; 0 for none.
    """
    require_positive(beta=beta)
    require_rate(label_smoothing=label_smoothing)
    shape, plain = log_sigmoid(label_smoothing), log_ratio()

    def loss(chosen: Tensor, rejected: Tensor, pairs: PairLogps) -> Tensor:
        own, order = (pairs.chosen - pairs.rejected).sort()
        ref = (need_reference(pairs.ref_chosen) - need_reference(pairs.ref_rejected)).sort().values
        return shape(beta * (own - ref))[order.argsort()]  # each pair's loss stands in its own place

    return replace(pairwise(loss, score=plain, beta=beta), ranked=True)


@objective("aot_unpaired")
def aot_unpaired(beta: float = 0.1, label_smoothing: float = 0.0) -> Objective[PairLogps]:
    """AOT across pairs (arXiv:2406.05882): rewards of chosen answers dominate those of rejected ones, as distributions.

    The log-ratios of a batch's chosen answers and those of its rejected ones are sorted apart, and each rank of the
    one is held against the same rank of the other: which answers were judged together does not matter. The loss of a
    rank stands where its chosen answer does. As with `aot`, gradient accumulation (and a batch beyond ``max_tokens``,
    which is cut) changes the loss.

    Args:
        beta: as in DPO.
        label_smoothing: assumed share of wrong labels; 0 for none.
    """
    require_positive(beta=beta)
    require_rate(label_smoothing=label_smoothing)
    shape = log_sigmoid(label_smoothing)

    def loss(chosen: Tensor, rejected: Tensor, _: PairLogps) -> Tensor:
        up, order = chosen.sort()
        return shape(up - rejected.sort().values)[order.argsort()]

    return replace(pairwise(loss, score=log_ratio(), beta=beta), ranked=True)


@objective("nca")
def nca(beta: float = 0.1) -> Objective[PairLogps]:
    """Noise contrastive alignment for pairs (arXiv:2402.05369): each reward against 0, not against the other.

    Args:
        beta: as in DPO.
    """
    require_positive(beta=beta)
    return pairwise(
        lambda chosen, rejected, _: (
            -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)
        ),
        score=log_ratio(),
        beta=beta,
    )


@objective("bco_pair")
def bco_pair(beta: float = 0.1) -> Objective[PairLogps]:
    """Binary cross-entropy of "is it the chosen one" on both responses of a pair: BCO (S031) without the shift.

    Args:
        beta: as in DPO.
    """
    require_positive(beta=beta)
    return pairwise(
        lambda chosen, rejected, _: -logsigmoid(chosen) - logsigmoid(-rejected), score=log_ratio(), beta=beta
    )
