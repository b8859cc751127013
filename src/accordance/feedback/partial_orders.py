"""Preferences that are incomplete: vector utilities, a set of admissible weights, and people who overlook criteria."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from scipy.special import expit

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.feedback.rational import Choice, fit

Verdict = Literal["first", "second", "equal", "incomparable"]


@system("S015", "Beyond preferences", paper="arXiv:2408.16984")
@dataclass(frozen=True)
class PartialOrder:
    """An order that may leave two options incomparable (after Zhi-Xuan et al. 2024; the technical form is ours).

    One option is better than another where every admissible weighting of the criteria says so. Whether a weighting
    lies in the hull of `weights` or is one of its corners makes no difference, so the corners are enough. Beside it
    stand the attention model (`fit_attention`), role norms and their agreement (`feedback.norms`).

    Attributes:
        weights: admissible weightings of d criteria, shape [v, d]; one weighting is a scalar utility.
        criteria: their names.
        labels: whose weightings they are.
    """

    weights: np.ndarray
    criteria: tuple[str, ...] = ()
    labels: tuple[Hashable, ...] = ()

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or not len(self.weights) or not np.isfinite(self.weights).all():
            raise DataError("weights are finite, one row per weighting", found=self.weights)

    def compare(self, first: np.ndarray, second: np.ndarray, margin: float = 0.0) -> Verdict:
        """Which of two options is better.

        Args:
            first, second: utilities on each criterion, shape [d].
            margin: differences of weighted utility up to this size decide nothing.
        """
        gap = self.weights @ (np.asarray(first) - np.asarray(second))
        if (np.abs(gap) <= margin).all():
            return "equal"
        if (gap >= -margin).all() and (gap > margin).any():
            return "first"
        return "second" if (gap <= margin).all() else "incomparable"

    def undominated(self, options: np.ndarray) -> list[int]:
        """Indices of the options that no other is better than; options of shape [n, d]."""
        return [
            i
            for i, mine in enumerate(options)
            if not any(self.compare(other, mine) == "first" for j, other in enumerate(options) if j != i)
        ]

    def choose(
        self, options: np.ndarray, break_ties: Callable[[Sequence[int]], int] | None = None
    ) -> int | None:
        """The option to take: the only undominated one, else what `break_ties` (role norms, a person) says.

        There is no hidden sum: without `break_ties` an open choice is None, to ask, offer several, or defer.
        """
        left = self.undominated(options)
        if len(left) == 1:
            return left[0]
        return None if break_ties is None else break_ties(left)


def fit_utilities(
    gaps: Sequence[np.ndarray], prefers_first: Sequence[np.ndarray], *, prior: float = 1.0
) -> np.ndarray:
    """A linear utility per criterion from judgments on that criterion, by logistic regression.

    Args:
        gaps: per criterion, features of the first option less the second, shape [n_c, f].
        prefers_first: per criterion, whether the first was marked better, shape [n_c].
        prior: precision of each coefficient.

    Returns:
        Coefficients, shape [d, f]: ``features @ result.T`` are utilities on each criterion.
    """
    return np.array([_logistic(gap, said, prior) for gap, said in zip(gaps, prefers_first, strict=True)])


def fit_partial_order(
    gaps: np.ndarray,
    prefers_first: np.ndarray,
    labels: Sequence[Hashable],
    *,
    criteria: Sequence[str] = (),
    prior: float = 1.0,
    least: int = 20,
) -> PartialOrder:
    """The admissible weights: those of each group (or person), from their overall comparisons.

    Args:
        gaps: utilities of the first option less the second on each criterion, shape [n, d].
        prefers_first: whether the first was preferred, shape [n]; leave ties and what can't be compared out.
        labels: the group or person of each comparison. People's own weights are noisy, and every error widens the
            set: with few comparisons per person, use groups.
        criteria: names.
        prior: precision of each weight.
        least: labels with fewer comparisons are refused.

    Returns:
        Weights scaled to absolute sum 1 each: how sharply people choose is no part of what they want.

    Raises:
        DataError: unequal lengths, or a label with too few comparisons.
    """
    if not len(gaps) == len(prefers_first) == len(labels):
        raise DataError("comparisons come in equal numbers", found=(len(gaps), len(prefers_first), len(labels)))
    names = list(dict.fromkeys(labels))
    who = np.array([names.index(label) for label in labels])
    few = {str(name): int((who == i).sum()) for i, name in enumerate(names) if (who == i).sum() < least}
    if few or not names:
        raise DataError(
            "too few comparisons to tell weights", found=few, expected=f"{least} per group or person"
        )
    raw = np.array([_logistic(gaps[who == i], prefers_first[who == i], prior) for i in range(len(names))])
    size = np.abs(raw).sum(1, keepdims=True)
    return PartialOrder(raw / np.where(size > 0, size, 1), tuple(criteria), tuple(names))


@dataclass(frozen=True)
class Attention:
    """What people want, apart from what they overlook.

    Attributes:
        weights: of the criteria, shape [d].
        attended: probability that each criterion is looked at, shape [d].
    """

    weights: np.ndarray
    attended: np.ndarray


def fit_attention(
    gaps: np.ndarray,
    prefers_first: np.ndarray,
    *,
    per_criterion: bool = False,
    lapse: float = 0.0,
    prior: float = 0.1,
    rounds: int = 500,
) -> Attention:
    """Weights of people who look at a random subset of the criteria each time, by EM over all subsets.

    P(first) is the mean over subsets S of lapse / 2 + (1 - lapse) sigmoid(sum of w_c gap_c over c in S). With
    nothing overlooked this is logistic regression.

    Args:
        gaps: utilities of the first option less the second, shape [n, d]; at most 10 criteria.
        prefers_first: shape [n].
        per_criterion: a probability for each criterion; by default one for all, which far fewer answers can tell.
        lapse: share of answers given blindly.
        prior: precision of each weight.
        rounds: of EM.

    Raises:
        ConfigError: more than 10 criteria, or a lapse outside [0, 1).
    """
    n, d = gaps.shape
    if d > 10 or not 0 <= lapse < 1:
        raise ConfigError("attention is for at most 10 criteria, a lapse in [0, 1)", found=(d, lapse))
    subsets = np.array(list(product((0.0, 1.0), repeat=d)))  # [2^d, d]
    sign = np.where(np.asarray(prefers_first, bool), 1.0, -1.0)
    weights, attended = _logistic(gaps, np.asarray(prefers_first), prior), np.full(d, 0.8)
    signed = sign[:, None] * gaps
    for _ in range(rounds):
        sure = (1 - lapse) * expit(signed @ (subsets * weights).T)  # [n, 2^d]
        p = lapse / 2 + sure
        chance = np.prod(np.where(subsets > 0, attended, 1 - attended), axis=1)
        share = p * chance
        share /= share.sum(1, keepdims=True)
        # Of a subset's share, the part that was not blind teaches the weights.
        heeded = share * sure / p
        new = np.clip((share.sum(0) @ subsets) / n, 1e-3, 1 - 1e-3)
        new = new if per_criterion else np.full(d, new.mean())
        step = _newton(signed, subsets, heeded, weights, prior)
        moved = np.abs(step).max() + np.abs(new - attended).max()
        weights, attended = weights + step, new
        if moved < 1e-4:
            break
    return Attention(weights, attended)


def _newton(
    signed: np.ndarray, subsets: np.ndarray, share: np.ndarray, weights: np.ndarray, prior: float
) -> np.ndarray:
    """One step up the expected log-likelihood; the curve is positive, so that it ascends."""
    p = expit(signed @ (subsets * weights).T)
    slope = ((share * (1 - p)) @ subsets * signed).sum(0) - prior * weights
    curve = share * p * (1 - p)
    both = (subsets[:, :, None] * subsets[:, None, :]).reshape(len(subsets), -1)
    pairs = (signed[:, :, None] * signed[:, None, :]).reshape(len(signed), -1)
    hessian = ((curve @ both) * pairs).sum(0).reshape(len(weights), -1)
    return np.linalg.solve(hessian + prior * np.eye(len(weights)), slope)


def _logistic(gaps: np.ndarray, prefers_first: np.ndarray, prior: float) -> np.ndarray:
    zero = np.zeros(gaps.shape[1])
    said = [Choice(np.array([gap, zero]), 0 if first else 1) for gap, first in zip(gaps, prefers_first)]
    return fit(said, prior=prior).mean
