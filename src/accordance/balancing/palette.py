"""A palette of values: "at least this much of each", met by the policy that changes least, or said to be out of reach.

The dual has one variable per value and needs only rewards of samples from the base policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linprog, minimize
from scipy.sparse import block_diag, csr_matrix, hstack, vstack
from torch import Tensor

from accordance.balancing.rewards import refuse_features
from accordance.balancing.transforms import checked, same_width
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, TrainingError

Dual = Literal["per_prompt", "pooled"]

#: How far beyond the palette reach is looked for; only being below 1 matters.
_FAR = 2.0


@dataclass(frozen=True)
class Palette:
    """The least-changed policy that meets a palette; as a reward combiner, its reward ``weights . r``.

    As a reward it is to be trained on with KL coefficient 1, or times beta with KL coefficient beta.

    Attributes:
        asked: the palette, shape [K].
        target: what is met: the palette, or where it is out of reach the adjusted one, shape [K].
        weights: one per value, at least 0, shape [K]; the paper's lambda.
        base: expected rewards under the base policy, shape [K].
        realised: the same under the new policy, shape [K].
        kl: KL from the base policy; with ``dual="pooled"`` of the joint distribution of prompt and response.
        reach: largest share of the way from base to palette that can be gone; at most 2, below 1 if out of reach.
        sensitivity: d weights / d target, shape [K, K]; 0 outside the values that bind.
        dual: see `solve_palette`.
    """

    asked: Tensor
    target: Tensor
    weights: Tensor
    base: Tensor
    realised: Tensor
    kl: float
    reach: float
    sensitivity: Tensor
    dual: Dual
    prompt_aware = False

    @property
    def feasible(self) -> bool:
        """Whether the palette that was asked for can be met."""
        return self.reach > 1.0

    def __call__(self, rewards: Tensor, features: Tensor | None = None) -> Tensor:
        """The reward of each response, shape [n] or [prompts, samples]; see `RewardCombiner`."""
        refuse_features(self, features)
        same_width(rewards, self.weights)
        return rewards @ self.weights.to(rewards)

    def choose(self, rewards: Tensor, *, generator: torch.Generator) -> Tensor:
        """Which of k samples of the base policy to answer with, drawn by softmax(weights . r).

        Args:
            rewards: shape [prompts, k, K].
            generator: of the draw.

        Returns:
            Indices, shape [prompts].
        """
        return torch.multinomial(self(rewards).softmax(-1), 1, generator=generator)[:, 0]


@system("S091", "MAP", paper="arXiv:2410.19198")
def solve_palette(
    rewards: Tensor,
    palette: Tensor,
    *,
    base: Tensor | None = None,
    dual: Dual = "per_prompt",
    adjust: float | None = None,
) -> Palette:
    """The policy closest to the base one whose expected rewards reach a palette.

    It is base * exp(weights . r), normalised; the weights maximise the concave dual -E_x log Z(x) + weights . palette
    (``per_prompt``, exact for policies that answer each prompt) or -log E_x Z(x) + weights . palette (``pooled``, the
    paper's, which also moves mass between prompts and misses the palette slightly when it is not allowed to).

    Departs from the spec: whether a palette can be met is decided by a linear program over the samples, not by
    watching the dual diverge; and the adjusted palette is found by the same program, not by bisection. What can
    only be reached in the limit of a policy that never does anything else counts as out of reach.

    Args:
        rewards: of samples from the base policy, shape [prompts, samples, K].
        palette: least expected value of each reward, shape [K].
        base: probability of each sample under the base policy, shape [prompts, samples], rows summing to 1; equal
            by default, as drawn samples are. With it the samples may be all responses of a table.
        dual: ``per_prompt`` or ``pooled``.
        adjust: where the palette is out of reach, meet the one that goes this share of the largest way from the
            base level to it, in (0, 1); by default that is an error.

    Raises:
        ConfigError: the palette is out of reach and `adjust` is None (the message says how far one can go), or
            shapes or values can't be used.
    """
    r, p0, asked = _inputs(rewards, palette, base, adjust)
    start = np.einsum("ps,psk->k", p0, r) / len(r)
    reach = _reach(r, p0, start, asked, dual)
    target = asked
    if reach <= 1.0:
        if adjust is None:
            best = start + reach * (asked - start)
            raise ConfigError(
                "no policy over these samples reaches the palette",
                where="palette",
                found=_numbers(asked),
                expected=f"at most {_numbers(best)}, {reach:.0%} of the way from the base level {_numbers(start)}",
                remedy="ask for less, draw more samples, or pass adjust=0.95 to take 95% of what can be reached",
            )
        target = start + adjust * reach * (asked - start)
    weights = _solve_dual(r, p0, target, dual)
    log_z, mean, covariance = _moments(r, p0, weights, dual)
    active = weights > 0
    sensitivity = np.zeros_like(covariance)
    if active.any():
        sensitivity[np.ix_(active, active)] = np.linalg.pinv(covariance[np.ix_(active, active)])
    tensors = map(torch.from_numpy, (asked, target, weights, start, mean))
    asked_, target_, weights_, base_, realised = tensors
    kl = float(weights @ mean - log_z)
    return Palette(asked_, target_, weights_, base_, realised, kl, reach, torch.from_numpy(sensitivity), dual)


def _inputs(
    rewards: Tensor, palette: Tensor, base: Tensor | None, adjust: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if checked(rewards).ndim != 3:
        raise ConfigError(
            "rewards can't be used", found=list(rewards.shape), expected="shape [prompts, samples, K]"
        )
    same_width(rewards, palette)
    if adjust is not None and not 0 < adjust < 1:
        raise ConfigError("adjust is out of range", where="adjust", found=adjust, expected="0 < adjust < 1")
    r = rewards.detach().double().cpu().numpy()
    p0 = np.full(r.shape[:2], 1 / r.shape[1]) if base is None else base.detach().double().cpu().numpy()
    if p0.shape != r.shape[:2] or (p0 < 0).any() or not np.allclose(p0.sum(1), 1, atol=1e-4):
        raise ConfigError(
            "base probabilities must be at least 0 and sum to 1 for each prompt",
            where="base",
            found=list(p0.shape),
            expected=f"shape {list(r.shape[:2])}",
        )
    return r, p0 / p0.sum(1, keepdims=True), palette.detach().double().cpu().numpy()


def _reach(r: np.ndarray, p0: np.ndarray, start: np.ndarray, asked: np.ndarray, dual: Dual) -> float:
    """Largest t in [0, 2] such that some policy on the support reaches start + t (asked - start)."""
    prompts, samples, size = r.shape
    # Unknowns: the policy, prompt by prompt, and t.
    ones = [np.ones((1, samples))] * prompts if dual == "per_prompt" else [np.ones((1, prompts * samples))]
    share = prompts if dual == "per_prompt" else 1
    sums = hstack([block_diag(ones), csr_matrix((len(ones), 1))])
    means = np.hstack([-r.reshape(-1, size).T / share, (asked - start)[:, None]])
    cost = np.zeros(prompts * samples + 1)
    cost[-1] = -1.0
    bounds = [(0, None) if p > 0 else (0, 0) for p in p0.flatten()] + [(0, _FAR)]
    done = linprog(cost, means, -start, vstack([sums]), np.ones(len(ones)), bounds, method="highs")
    if not done.success:
        raise TrainingError("the reach of the palette can't be computed", found=done.message)
    reach = float(done.x[-1])
    return min(reach, 1.0) if reach <= 1.0 + 1e-9 else reach


def _moments(
    r: np.ndarray, p0: np.ndarray, weights: np.ndarray, dual: Dual
) -> tuple[float, np.ndarray, np.ndarray]:
    """log Z, and mean and covariance of the rewards under base * exp(weights . r)."""
    if dual == "pooled":
        r, p0 = r.reshape(1, -1, r.shape[-1]), p0.reshape(1, -1) / len(p0)
    with np.errstate(divide="ignore"):
        score = r @ weights + np.log(p0)
    top = score.max(1, keepdims=True)
    mass = np.exp(score - top)
    total = mass.sum(1, keepdims=True)
    p = mass / total
    each = np.einsum("ps,psk->pk", p, r)
    gap = r - each[:, None]
    covariance = np.einsum("ps,psk,psl->kl", p, gap, gap) / len(r)
    return float((top + np.log(total)).mean()), each.mean(0), covariance


def _solve_dual(r: np.ndarray, p0: np.ndarray, target: np.ndarray, dual: Dual) -> np.ndarray:
    """argmax over weights >= 0 of the dual: L-BFGS-B to find what binds, Newton on those to the last digits."""

    def negative(weights: np.ndarray) -> tuple[float, np.ndarray]:
        log_z, mean, _ = _moments(r, p0, weights, dual)
        return log_z - float(weights @ target), mean - target

    size = len(target)
    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(
        negative, np.zeros(size), jac=True, method="L-BFGS-B", bounds=[(0, None)] * size, options=options
    )
    weights = found.x
    for _ in range(50):
        _, mean, covariance = _moments(r, p0, weights, dual)
        active = weights > 1e-9
        gap = np.where(active, target - mean, 0.0)
        if np.abs(gap).max(initial=0.0) < 1e-12:
            break
        step = np.zeros(size)
        step[active] = np.linalg.pinv(covariance[np.ix_(active, active)]) @ gap[active]
        weights = np.where(active, np.maximum(weights + step, 0.0), 0.0)
    _, mean, _ = _moments(r, p0, weights, dual)
    scale = 1 + np.abs(target).max()
    if (mean - target).min() < -1e-6 * scale or not np.isfinite(weights).all():
        raise TrainingError(
            "the dual of the palette did not converge",
            found=f"weights {_numbers(weights)}, short by {float((target - mean).max()):.1e}",
            remedy="the palette is at the edge of what can be reached: ask for a little less",
        )
    return weights


def _numbers(values: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"


__all__ = ["Palette", "solve_palette"]
