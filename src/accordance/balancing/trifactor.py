"""Adaptive weights for a matrix of goals: more for what is weak or risky, less for what is said twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from accordance.balancing.rewards import refuse_features
from accordance.balancing.transforms import FrozenNorm, checked, same_width
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError

Risk = Literal["low", "medium", "high"]
_LEVELS: dict[str, int] = {"low": 0, "medium": 1, "high": 2}


@dataclass(frozen=True)
class Dimension:
    """One row of the alignment matrix.

    Attributes:
        name: what it measures.
        category: which group of goals it belongs to.
        risk: how bad it is to miss it: ``low``, ``medium``, ``high``.
        target: mean of the normalised reward that is wanted, in reference standard deviations above the reference.
        binary: whether its reward is 0 or 1; its sd is then taken as at least 0.1.
        fails_below: a raw reward below this is a hard failure that overrules all others; only for high risk.
    """

    name: str
    category: str = ""
    risk: Risk = "low"
    target: float = 1.0
    binary: bool = False
    fails_below: float | None = None


@system("S097", "Quark adaptive weights")
class TriFactorWeights:
    """Weights by weakness x risk x redundancy over rewards on a frozen scale.

    - weakness: softplus((target - running mean) / temperature), capped, so that a hopeless target takes no more;
    - risk: 1, `risk_base`, `risk_base` squared;
    - redundancy: 1 / (1 + sum of positive correlations with the others), within prompts, not across them.

    Their product, normalised, is smoothed into the weights, and no weight falls below `floor`. The reward is
    sum_k w_k z_k, with z by reference-frozen normalisation; ``-clip`` where a high-risk dimension fails hard.

    The paper's abstract names the parts; the formulas are our reading of it. Call `fit` with rewards of reference
    samples, then `observe` every few steps with those of the policy.

    Args:
        dimensions: one per reward, in their order.
        temperature: of the weakness, in reference standard deviations.
        risk_base: factor per level of risk; 1 for none.
        redundancy: whether redundant dimensions are discounted.
        smoothing: share of the new weights in each update, in (0, 1]; 0 keeps equal weights.
        floor: least weight, below 1 / K.
        cap: largest weakness.
        clip: of the normalised rewards.

    Attributes:
        norm_: the frozen normalisation.
        weights: current weights, shape [K]; they sum to 1.
        history: the weights after each `observe`.
        factors: weakness, risk and redundancy of the last `observe`, shape [3, K].
    """

    prompt_aware = False

    def __init__(
        self,
        dimensions: Sequence[Dimension],
        *,
        temperature: float = 1.0,
        risk_base: float = 2.0,
        redundancy: bool = True,
        smoothing: float = 0.1,
        floor: float = 0.02,
        cap: float = 3.0,
        clip: float = 5.0,
    ) -> None:
        size = len(dimensions)
        _check(dimensions, temperature, risk_base, smoothing, floor)
        self.dimensions, self.temperature, self.risk_base = tuple(dimensions), temperature, risk_base
        self.redundancy, self.smoothing, self.floor = redundancy, smoothing, floor
        self.cap, self.clip = cap, clip
        least = torch.tensor([0.1 if d.binary else 1e-8 for d in dimensions], dtype=torch.float64)
        self.norm_ = FrozenNorm(clip, least)
        self.weights = torch.full((size,), 1.0 / size, dtype=torch.float64)
        self.factors = torch.ones(3, size, dtype=torch.float64)
        self.history: list[Tensor] = []

    def fit(self, samples: Tensor) -> TriFactorWeights:
        """Freeze the scale by rewards of reference samples, shape [prompts, samples, K]."""
        same_width(checked(samples), self.weights)
        self.norm_.fit(samples)
        return self

    def observe(self, rewards: Tensor, probs: Tensor | None = None) -> Tensor:
        """Move the weights by the policy's rewards, and return them, shape [K].

        Args:
            rewards: of its samples, shape [prompts, samples, K].
            probs: how likely the policy writes each response, shape [prompts, samples], where all are given.
        """
        if checked(rewards).ndim != 3:
            raise ConfigError(
                "redundancy within prompts needs several samples of each",
                where="rewards",
                found=list(rewards.shape),
                expected="[prompts, samples, K]",
            )
        z = self.norm_(rewards).double().cpu()
        p = torch.full(z.shape[:2], 1.0 / z.shape[1]).double() if probs is None else probs.double().cpu()
        p = p[..., None]
        targets = torch.tensor([d.target for d in self.dimensions], dtype=torch.float64)
        weakness = softplus((targets - (p * z).sum(1).mean(0)) / self.temperature).clamp(max=self.cap)
        risk = torch.tensor([self.risk_base ** _LEVELS[d.risk] for d in self.dimensions], dtype=torch.float64)
        discount = torch.ones_like(risk)
        if self.redundancy:
            discount = 1 / (1 + (within(z, p).clamp(min=0) - torch.eye(len(risk))).clamp(min=0).sum(-1))
        self.factors = torch.stack([weakness, risk, discount])
        new = self.factors.prod(0)
        mixed = (1 - self.smoothing) * self.weights + self.smoothing * new / new.sum()
        self.weights = _floored(mixed, self.floor)
        self.history.append(self.weights)
        return self.weights

    def __call__(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """The reward of each response, shape [n] or [prompts, samples]; see `RewardCombiner`."""
        refuse_features(self, features)
        z = self.norm_(rewards)
        total = z @ self.weights.to(z)
        for k, dimension in enumerate(self.dimensions):
            if dimension.fails_below is not None:
                total = torch.where(rewards[..., k] < dimension.fails_below, -self.clip, total)
        return total


def within(z: Tensor, p: Tensor) -> Tensor:
    """Correlations of rewards within prompts, pooled over them, shape [K, K]; `z` [P, S, K], `p` [P, S, 1]."""
    gap = z - (p * z).sum(1, keepdim=True)
    covariance = torch.einsum("psk,psl->kl", p * gap, gap) / len(z)
    sd = covariance.diagonal().clamp(min=1e-12).sqrt()
    return covariance / sd / sd[:, None]


def _floored(weights: Tensor, floor: float) -> Tensor:
    """Weights that sum to 1, none below the floor: those below are raised, the others shrink in proportion."""
    low = torch.zeros_like(weights, dtype=torch.bool)
    for _ in range(len(weights)):
        rest = weights.masked_fill(low, 0.0)
        spread = rest / rest.sum() * (1 - floor * low.sum())
        below = (spread < floor) & ~low
        if not bool(below.any()):
            return torch.where(low, floor, spread)
        low = low | below
    return torch.full_like(weights, 1.0 / len(weights))


def _check(
    dimensions: Sequence[Dimension], temperature: float, risk_base: float, smoothing: float, floor: float
) -> None:
    size = len(dimensions)
    ranges = {
        "dimensions": (size >= 1, size, "at least one"),
        "temperature": (temperature > 0, temperature, "> 0"),
        "risk_base": (risk_base >= 1, risk_base, ">= 1"),
        "smoothing": (0 <= smoothing <= 1, smoothing, "0 <= smoothing <= 1"),
        "floor": (0 <= floor * size < 1, floor, f"0 <= floor < {1 / max(size, 1):.3g}"),
    }
    for name, (holds, found, expected) in ranges.items():
        if not holds:
            raise ConfigError(f"{name} is out of range", where=name, found=found, expected=expected)
    for dimension in dimensions:
        if dimension.risk not in _LEVELS:
            raise ConfigError(
                "unknown risk", where=dimension.name, found=dimension.risk, expected=" or ".join(_LEVELS)
            )
        if dimension.fails_below is not None and dimension.risk != "high":
            raise ConfigError("fails_below is for dimensions of high risk", where=dimension.name)


__all__ = ["Dimension", "TriFactorWeights"]
