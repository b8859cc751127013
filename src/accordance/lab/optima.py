"""What is best, exactly: optima of tables of rewards at a price for KL, under limits, for the worst-off, at a budget.

Policies over P prompts x R responses are log-probabilities, shape [P, R], prompts count alike, and everything is in
float64. For a reward r and a price beta the best policy is known in closed form,

    pi(y) ~ ref(y) exp(r(y) / beta)

and what is best under limits or for the worst-off group is of the same form, for the reward that the multipliers of
the dual problem mix. No learning rule of `objectives` or `balancing` is used, so that they can be held against these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq, linprog, minimize
from torch import Tensor

from accordance.core.errors import ConfigError, DataError


@dataclass(frozen=True)
class Optimum:
    """The best policy, and what proves it.

    Attributes:
        policy: log-probabilities, shape [P, R].
        multipliers: of the limits (at least 0), or the weights of the groups (they add up to 1), shape [K].
        value: what it achieves: mean reward (of the worst-off group) less beta times the KL.
        gap: value of the dual problem less `value`: no policy is better by more than this.
        kl: mean KL from the reference.
    """

    policy: Tensor
    multipliers: Tensor
    value: float
    gap: float
    kl: float


def kl_optimum(ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    """The policy with the largest mean reward less beta KL(policy || ref): log-probabilities, shape [..., R].

    Args:
        ref: log-probabilities of the reference, shape [..., R].
        reward: shape [..., R].
        beta: price of the KL, above 0.

    Raises:
        ConfigError: beta is not above 0.
    """
    if not beta > 0:
        raise ConfigError("the price of the KL", where="beta", found=beta, expected="> 0")
    return (ref.double() + reward.double() / beta).log_softmax(-1)


def optimum_at_kl(ref: Tensor, reward: Tensor, budget: float) -> tuple[Tensor, float]:
    """The policy with the largest mean reward among those with a mean KL of at most `budget`, and its price.

    Args:
        ref: log-probabilities, shape [P, R].
        reward: shape [P, R].
        budget: in nats per prompt, above 0.

    Returns:
        Log-probabilities, shape [P, R], and the beta of which it is the `kl_optimum`.

    Raises:
        ConfigError: budget is not above 0.
        DataError: even the best responses alone cost less than the budget, so that it does not bind.
    """
    if not budget > 0:
        raise ConfigError("a budget of KL", where="budget", found=budget, expected="> 0")

    def over(log_beta: float) -> float:
        return mean_kl(kl_optimum(ref, reward, float(np.exp(log_beta))), ref) - budget

    low, high = -12.0, 12.0
    if over(low) < 0:
        raise DataError(
            "the budget does not bind", found=f"{budget} nats", expected=f"below {over(low) + budget:.4g}"
        )
    root: Any = brentq(over, low, high, xtol=1e-13)
    beta = float(np.exp(root))
    return kl_optimum(ref, reward, beta), beta


def constrained_optimum(ref: Tensor, reward: Tensor, costs: Tensor, limits: Tensor, beta: float) -> Optimum:
    """The best policy whose mean costs stay within their limits, by the dual problem.

    A reward that must reach a level is a cost of minus it with a limit of minus the level; with a `reward` of 0
    what comes out is the policy nearest to the reference that meets the limits.

    Args:
        ref: log-probabilities, shape [P, R].
        reward: shape [P, R].
        costs: shape [P, R, K].
        limits: of each mean cost, shape [K].
        beta: price of the KL, above 0.

    Returns:
        The optimum; its multipliers are what a unit of each limit is worth.

    Raises:
        DataError: no policy meets the limits, or they are met by none but extreme ones; says by how much they miss.
    """
    ref, reward, costs, limits = (x.double() for x in (ref, reward, costs, limits))
    ref = ref.log_softmax(-1)
    _check_reach(costs, limits)

    def policy(weights: Tensor) -> Tensor:
        return kl_optimum(ref, reward - costs @ weights, beta)

    def dual(weights: Tensor) -> tuple[float, Tensor, Tensor]:
        best = policy(weights)
        total = beta * torch.logsumexp(ref + (reward - costs @ weights) / beta, -1).mean()
        return (total + weights @ limits).item(), limits - _mean(best, costs), _spread(best, costs) / beta

    weights = _minimise(dual, torch.zeros(len(limits), dtype=torch.float64), simplex=False)
    best = policy(weights)
    miss = (_mean(best, costs) - limits).amax().item()
    value = (_mean(best, reward[..., None])[0] - beta * mean_kl(best, ref)).item()
    return _certified(
        Optimum(best, weights, value, dual(weights)[0] - value, mean_kl(best, ref)), max(miss, 0.0)
    )


def max_min_optimum(ref: Tensor, rewards: Tensor, beta: float) -> Optimum:
    """The policy that is best for the worst-off of several groups: max of min_g (mean reward of g) less beta KL.

    Args:
        ref: log-probabilities, shape [P, R].
        rewards: of each group, shape [P, R, G]; on one scale.
        beta: price of the KL, above 0.

    Returns:
        The optimum; its multipliers are the weights of the groups under which it is the best for their mixture.
    """
    ref, rewards = ref.double().log_softmax(-1), rewards.double()

    def dual(weights: Tensor) -> tuple[float, Tensor, Tensor]:
        mixed = rewards @ weights
        best = kl_optimum(ref, mixed, beta)
        total = beta * torch.logsumexp(ref + mixed / beta, -1).mean()
        return total.item(), _mean(best, rewards), _spread(best, rewards) / beta

    groups = rewards.shape[-1]
    weights = _minimise(dual, torch.full((groups,), 1.0 / groups, dtype=torch.float64), simplex=True)
    best = kl_optimum(ref, rewards @ weights, beta)
    value = (_mean(best, rewards).amin() - beta * mean_kl(best, ref)).item()
    return _certified(Optimum(best, weights, value, dual(weights)[0] - value, mean_kl(best, ref)), 0.0)


def pareto_front(ref: Tensor, rewards: Tensor, weights: Tensor, beta: float) -> Tensor:
    """Mean rewards of the optima of weighted sums: no policy of as little KL is better on all.

    Args:
        ref: log-probabilities, shape [P, R].
        rewards: shape [P, R, K].
        weights: one row for each point of the front, shape [n, K], at least 0.
        beta: price of the KL, above 0.

    Returns:
        Shape [n, K].
    """
    if (weights < 0).any():
        raise ConfigError("weights of a front are at least 0", where="weights", found=weights.amin().item())
    mixed = torch.einsum("prk,nk->npr", rewards.double(), weights.double())
    best = kl_optimum(ref.double(), mixed, beta)
    return torch.einsum("npr,prk->nk", best.exp(), rewards.double()) / rewards.shape[0]


def mean_kl(policy: Tensor, ref: Tensor) -> float:
    """KL(policy || ref) in nats, the mean over prompts; both of shape [P, R]."""
    return (policy.exp() * (policy - ref.double().log_softmax(-1))).nansum(-1).mean().item()


Dual = Callable[[Tensor], tuple[float, Tensor, Tensor]]


def _minimise(dual: Dual, start: Tensor, *, simplex: bool) -> Tensor:
    """The smallest value of a convex dual over weights of at least 0 (that add up to 1): SLSQP, then Newton."""
    at = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones((1, len(w)))}
    found = minimize(
        lambda w: dual(torch.from_numpy(w))[0],
        start.numpy(),
        jac=lambda w: dual(torch.from_numpy(w))[1].numpy(),
        bounds=[(0, None)] * len(start),
        constraints=[at] if simplex else [],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    weights = torch.from_numpy(np.maximum(found.x, 0.0))
    return _polish(dual, weights / weights.sum() if simplex else weights, simplex)


def _polish(dual: Dual, weights: Tensor, simplex: bool, steps: int = 30) -> Tensor:
    """Newton's method on the weights that are not 0; a step that does not come closer is not taken."""
    for _ in range(steps):
        _, slope, curve = dual(weights)
        free = weights > 1e-7
        if not free.any():
            break
        size = int(free.sum())
        system = torch.zeros(size + simplex, size + simplex, dtype=torch.float64)
        system[:size, :size] = curve[free][:, free]
        right = torch.zeros(size + simplex, dtype=torch.float64)
        right[:size] = -slope[free]
        if simplex:
            system[size, :size] = system[:size, size] = 1.0
        step = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution[:size, 0]
        moved = weights.clone()
        moved[free] += step
        if (moved < 0).any() or _error(dual, moved, simplex) >= _error(dual, weights, simplex):
            break
        weights = moved
    return weights


def _error(dual: Dual, weights: Tensor, simplex: bool) -> float:
    """How far the slopes of the weights that are not 0 are from what they should be: 0, or equal."""
    slope = dual(weights)[1][weights > 1e-7]
    return (slope - slope.mean() if simplex else slope).abs().sum().item()


def _certified(found: Optimum, miss: float, tolerance: float = 1e-7) -> Optimum:
    if max(abs(found.gap), miss) > tolerance:
        raise DataError(
            "the optimum was not reached",
            found=f"duality gap {found.gap:.1e}, limits missed by {miss:.1e}",
            expected=f"at most {tolerance:.0e}; a larger beta, or limits with more room",
        )
    return found


def _check_reach(costs: Tensor, limits: Tensor) -> None:
    """Whether any policy meets the limits, by linear programming: the smallest largest excess."""
    prompts, responses, many = costs.shape
    flat = (costs / prompts).reshape(prompts * responses, many).T.numpy()
    one = np.kron(np.eye(prompts), np.ones((1, responses)))
    done = linprog(
        [0.0] * (prompts * responses) + [1.0],
        A_ub=np.hstack([flat, -np.ones((many, 1))]),
        b_ub=limits.numpy(),
        A_eq=np.hstack([one, np.zeros((prompts, 1))]),
        b_eq=np.ones(prompts),
        bounds=[(0, None)] * (prompts * responses) + [(None, None)],
    )
    if not done.success or done.fun > -1e-9:
        raise DataError(
            "no policy meets these limits with room to spare",
            where="limits",
            found=f"the best one is above some limit by {done.fun:.4g}",
            expected="limits that some policy stays below",
        )


def _mean(policy: Tensor, values: Tensor) -> Tensor:
    """Mean over prompts of the expectation of each of K values, shape [K]."""
    return torch.einsum("pr,prk->k", policy.exp(), values) / len(policy)


def _spread(policy: Tensor, values: Tensor) -> Tensor:
    """Mean over prompts of the covariance of K values, shape [K, K]."""
    probs = policy.exp()
    centred = values - torch.einsum("pr,prk->pk", probs, values)[:, None]
    return torch.einsum("pr,prk,prl->kl", probs, centred, centred) / len(policy)
