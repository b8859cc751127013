"""Objectives for self-play: log-ratios are regressed onto win rates against opponents (EGPO, SPPO, MNPO, INPO).

All are pairwise squares; they differ in what the log-ratio is taken to (the reference, the policy of the last
round, a mixture with earlier ones) and in whether the two responses of a pair are tied to each other or each to
its own win rate. Who the opponents are is decided by whoever samples and judges: it is not part of the loss.
`accordance.objectives.online` has the extragradient step, and turns any of them into a loss over lists.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.objective import Objective, PairLogps, need_reference
from accordance.objectives.parts import PairLoss, Reduction, Score, log_ratio, margin, pairwise, squared
from accordance.objectives.registry import objective, require, require_positive

Labels = Literal["hard", "soft"]


@objective("egpo")
@system("S070", "EGPO", paper="arXiv:2503.08942")
def egpo(beta: float = 0.1, reduction: Reduction = "sum") -> Objective[PairLogps]:
    """Online IPO, the loss of both half-steps of extragradient preference optimisation: (h - gap / beta)^2.

    h is the difference of the two log-ratios to the reference, gap that of the two win rates against the
    opponents. With opponents from the policy itself and plain steps this is online mirror descent, which may
    cycle; `accordance.objectives.Extragradient` takes the opponents from a look-ahead instead, and the policy
    itself converges to the equilibrium of the game with KL price beta.

    The gap of a pair that was compared directly, with opponents from the policy, is the label less a half: 0.5.

    Args:
        beta: price of the KL from the reference.
        reduction: log-ratios as ``sum`` or ``mean`` over the tokens of a response.
    """
    require_positive(beta=beta)
    return pairwise(
        margin(squared(0.0, scale=beta), offset=win_rate_gap), score=log_ratio(reduction), beta=beta
    )


@objective("sppo")
@system("S132", "SPPO", paper="arXiv:2405.00675")
def sppo(beta: float = 0.001, labels: Labels = "hard") -> Objective[PairLogps]:
    """Self-play preference optimisation: each log-ratio is regressed onto (win rate - 1/2) / beta by itself.

    So the chosen goes up and the rejected down in absolute terms. The reference of the bundle should be the
    policy that sampled the pair (the last round's), not the one that all rounds began with. What the theory
    promises is the *average* of the policies of all rounds; where preferences are cyclic the last one may cycle.

    Args:
        beta: 1 / eta; with the default the target is far away and the number of steps decides how far it goes.
        labels: ``hard``: the chosen has win rate 1, the rejected 0. ``soft``: the estimated win rates are in the
            extras ``chosen_win_rate`` and ``rejected_win_rate``. (The paper halves the soft loss; here soft
            labels of 1 and 0 give the hard loss.)
    """
    require_positive(beta=beta)

    def loss(chosen: Tensor, rejected: Tensor, pairs: PairLogps) -> Tensor:
        up, down = (1.0, 0.0) if labels == "hard" else win_rates_of(pairs)
        return ((chosen - (up - 0.5)) / beta) ** 2 + ((rejected - (down - 0.5)) / beta) ** 2

    made = pairwise(loss, score=log_ratio(), beta=beta)
    return made if labels == "hard" else _reading(made, "chosen_win_rate", "rejected_win_rate")


@objective("mnpo")
@system("S137", "MNPO", paper="arXiv:2509.23102")
def mnpo(
    eta: float = 0.0075,
    ratio: float | None = None,
    history: int = 0,
    labels: Labels = "hard",
    reduction: Reduction = "sum",
) -> Objective[PairLogps]:
    """Multiplayer Nash preference optimisation: a square around a mixture of the reference and past policies.

    h = m - ratio m_ref - (1 - ratio) mean_j m_j, with m the margin of log-probabilities chosen - rejected, and
    the loss (h - 1 / (2 eta))^2. Its minimum over pairs sampled from mu is log pi = base + P(. > mu) / eta: the
    policy that the *pairs* are sampled from is the opponent, the history of the loss alone is not. To face a
    population, sample the pairs from all of it.

    In the first round there is no history: the reference stands for it, and this is `ipo`. Weights of the past
    policies are equal. (With their own oracle for each of several players the loss is the same.)

    Args:
        eta: 1 / (2 eta) is the margin aimed at.
        ratio: weight of the reference in the mixture, 1/3 where nothing is said; without history no effect.
        history: how many past policies there are, the latest first. Their log-probabilities are in the extras
            ``history0_chosen``, ``history0_rejected``, ``history1_chosen``, ...
        labels: ``hard``: the chosen won. ``soft``: the target is gap / eta with the difference of win rates.
        reduction: log-probabilities as ``sum`` or ``mean`` over the tokens of a response.
    """
    require_positive(eta=eta)
    require(history >= 0, "history", history, ">= 0")
    require(ratio is None or history > 0, "ratio", ratio, "nothing: without a history it has no effect")
    share = 1 / 3 if ratio is None else ratio
    require(0 <= share <= 1, "ratio", ratio, "0 <= ratio <= 1")
    return _mixture_regression(eta, share, history, labels, reduction)


@objective("inpo")
def inpo(
    eta: float = 0.0075, tau: float = 0.0025, labels: Labels = "hard", reduction: Reduction = "sum"
) -> Objective[PairLogps]:
    """Iterative Nash policy optimisation (arXiv:2407.00617): `mnpo` with the last policy as all the history.

    Args:
        eta: as in `mnpo`.
        tau: price of the KL from the reference; tau / eta is the reference's weight in the mixture.
        labels: as in `mnpo`.
        reduction: as in `mnpo`.
    """
    require_positive(eta=eta, tau=tau)
    require(tau <= eta, "tau", tau, f"at most eta = {eta:g}")
    return _mixture_regression(eta, tau / eta, 1, labels, reduction)


def log_ratio_to_mixture(ratio: float, history: int, reduction: Reduction = "sum") -> Score:
    """log pi - ratio log ref - (1 - ratio) mean_j log pi_j of a response, the pi_j being past policies.

    Their log-probabilities are averaged, so that the mixture is a geometric one, not that of probabilities.
    """
    plain = log_ratio(reduction)

    def read(pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return tuple(  # type: ignore[return-value]
            score - (1 - ratio) * _mean_past(pairs, side, ref, length, history, reduction)
            for score, side, ref, length in zip(
                plain.read(pairs),
                ("chosen", "rejected"),
                (pairs.ref_chosen, pairs.ref_rejected),
                (pairs.chosen_length, pairs.rejected_length),
            )
        )

    return plain if history == 0 else Score(read, reference=True)


def win_rate_gap(pairs: PairLogps) -> Tensor:
    """`pairs.gap` as a difference of win rates, shape [n].

    Raises:
        DataError: there is none, or it is no difference of two probabilities.
    """
    if pairs.gap is None or (pairs.gap.abs() > 1).any():
        raise DataError(
            "this objective aims at differences of win rates",
            found="pairs without a gap" if pairs.gap is None else f"a gap of {pairs.gap.abs().max().item():g}",
            expected="gap in [-1, 1]: how much more often the chosen response beats the opponents",
            remedy="let a preference model give the probabilities, or use ipo or sppo, which need labels only",
        )
    return pairs.gap.to(pairs.chosen)


def win_rates_of(pairs: PairLogps) -> tuple[Tensor, Tensor]:
    """The win rates of chosen and rejected, shape [n] each. DataError where they are missing or outside [0, 1]."""
    rates = []
    for name in ("chosen_win_rate", "rejected_win_rate"):
        rate = _column(pairs, name).to(pairs.chosen)
        if ((rate < 0) | (rate > 1)).any():
            raise DataError("a win rate is a probability", where=name, expected="values in [0, 1]")
        rates.append(rate)
    return rates[0], rates[1]


def _mixture_regression(
    eta: float, ratio: float, history: int, labels: Labels, reduction: Reduction
) -> Objective[PairLogps]:
    loss: PairLoss = (
        margin(squared(0.5, scale=eta))
        if labels == "hard"
        else margin(squared(0.0, scale=eta), offset=win_rate_gap)
    )
    made = pairwise(loss, score=log_ratio_to_mixture(ratio, history, reduction), beta=eta)
    return _reading(made, *(f"history{j}_{side}" for j in range(history) for side in ("chosen", "rejected")))


def _mean_past(
    pairs: PairLogps, side: str, ref: Tensor | None, length: Tensor, history: int, reduction: Reduction
) -> Tensor:
    """How much likelier than the reference the past policies find the responses, on (geometric) average, [n]."""
    past = torch.stack([_column(pairs, f"history{j}_{side}") for j in range(history)]).mean(0)
    difference = past.to(pairs.chosen) - need_reference(ref)
    return difference / length if reduction == "mean" else difference


def _column(pairs: PairLogps, name: str) -> Tensor:
    if name not in pairs.extras:
        raise DataError(
            "the bundle lacks a column that this objective reads",
            where=name,
            found=f"extras {sorted(pairs.extras)}",
            expected=f"{name}, one number per pair",
        )
    return pairs.extras[name].detach()


def _reading(made: Objective[PairLogps], *columns: str) -> Objective[PairLogps]:
    return replace(made, columns=columns)
