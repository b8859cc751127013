"""Distilling a preference-aligned teacher: DCKD matches its distributions, ADPA rewards what it would rather say.

Both read comparisons of whole distributions, which the log-prob path makes chunk by chunk (`Tokens.teacher_kl`,
`Tokens.advantage`). Teacher and student share one vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.objective import Objective, PairLogps, Tokens, Whole
from accordance.objectives.parts import likelihood
from accordance.objectives.registry import objective, require


@objective("dckd")
def dckd(alpha: float = 1.0, nll_weight: float = 1.0) -> Objective[PairLogps]:
    """DCKD (arXiv:2502.17927): the teacher's distribution at every token of the chosen *and* the rejected answer.

    Likelihood of the chosen answer plus alpha times the mean over tokens of KL(teacher || policy), once for each
    answer of the pair.

    Args:
        alpha: weight of the divergences; 0 is likelihood alone.
        nll_weight: weight of the chosen answer's negative log-likelihood per token.
    """
    require(alpha >= 0, "alpha", alpha, ">= 0")
    require(nll_weight >= 0, "nll_weight", nll_weight, ">= 0")
    imitate = likelihood(nll_weight)

    def function(pairs: PairLogps) -> Tensor:
        chosen, rejected = per_answer(pairs, "teacher_kl")
        return imitate(pairs) + alpha * (chosen / pairs.chosen_length + rejected / pairs.rejected_length)

    return Objective("dckd", PairLogps, function, reference=False, tokens=True, whole=("teacher_kl",))


@objective("adpa")
@system("S037", "ADPA", paper="arXiv:2502.17927")
def adpa(gamma: float = 1.0, nll_weight: float = 1.0) -> Objective[PairLogps]:
    """ADPA: in the states that the student itself comes to, every token is worth the teacher's advantage.

    The advantage of token v in state s is log teacher(v | s) - log teacher's reference(v | s), the reward that DPO's
    teacher implies, up to its beta. The loss is the likelihood of the chosen answer less gamma times the mean over
    the tokens of the *student's own* answer of the expected advantage, an exact expectation over the vocabulary.
    The student's answers are sampled once, before training, and take the place of the rejected ones. ADPA+ starts
    from a student trained with `dckd`.

    The objective is linear in the policy: with a large gamma a point mass is best, and the likelihood and the few
    epochs are all that holds it. The paper's optional importance weight and KL penalty are left out.

    Args:
        gamma: weight of the expected advantage; 0 is likelihood alone.
        nll_weight: weight of the chosen answer's negative log-likelihood per token.
    """
    require(gamma >= 0, "gamma", gamma, ">= 0")
    require(nll_weight >= 0, "nll_weight", nll_weight, ">= 0")
    imitate = likelihood(nll_weight)

    def function(pairs: PairLogps) -> Tensor:
        _, own = per_answer(pairs, "advantage")
        return imitate(pairs) - gamma * own / pairs.rejected_length

    return Objective(
        "adpa", PairLogps, function, reference=False, tokens=True, whole=("advantage",), own_answers=True
    )


def need_tokens(tokens: Tokens | None, *names: Whole) -> Tokens:
    """Per-token values that carry some comparisons of whole distributions.

    Raises:
        DataError: they are not there.
    """
    missing = ["tokens"] if tokens is None else [name for name in names if getattr(tokens, name) is None]
    if tokens is None or missing:
        raise DataError(
            "this objective reads what whole distributions say of each token and the bundle does not carry it",
            found=f"no {', '.join(missing)}",
            remedy="give the trainer a reference (kl) or a teacher (teacher_kl, advantage), and Engine.compared",
        )
    return tokens


def per_answer(pairs: PairLogps, name: Whole, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A per-token value added up over the chosen and over the rejected answer, shape [n] each.

    Args:
        pairs: with tokens.
        name: which value.
        values: others in its place, shape [tokens] (the same, weighted).
    """
    tokens = need_tokens(pairs.tokens, name)
    found = getattr(tokens, name) if values is None else values
    total = torch.zeros(2 * len(pairs.chosen), dtype=found.dtype, device=found.device)
    sums = total.index_add(0, tokens.row, found)
    return sums[0::2], sums[1::2]
