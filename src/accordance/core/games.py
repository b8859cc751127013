"""Preference games between policies: values, duality gap, exploitability and equilibria, all of them exact.

Two policies answer one prompt; the pay-off is the probability that the first answer is preferred. `preference`
holds it for every pair of responses and need not be transitive; entry [i, j] is P(i > j). With `beta` above 0
each player also pays beta times its KL from a reference:

    V(p, q) = P(p > q) - beta KL(p || ref) + beta KL(q || ref)

All functions take a batch of prompts in the leading dimensions and work in the dtype given; use float64 for gaps
below 1e-6. Policies are log-probabilities over the last dimension.
"""

from __future__ import annotations

import math

import torch
from scipy.optimize import linprog
from torch import Tensor

from accordance.core.errors import ConfigError, DataError


def win_rates(preference: Tensor, opponent: Tensor) -> Tensor:
    """P(y > opponent) of every response y.

    Args:
        preference: shape [..., R, R].
        opponent: log-probabilities, shape [..., R].

    Returns:
        Shape [..., R].
    """
    return (preference @ opponent.exp()[..., None])[..., 0]


def best_response(preference: Tensor, opponent: Tensor, ref: Tensor, beta: float) -> Tensor:
    """Log-probabilities of the policy that does best against an opponent and pays beta KL, shape [..., R].

    It is in proportion to ref(y) exp(P(y > opponent) / beta); `beta` must be above 0.
    """
    _check(beta, positive=True)
    return (ref + win_rates(preference, opponent) / beta).log_softmax(-1)


def duality_gap(policy: Tensor, preference: Tensor, ref: Tensor | None = None, beta: float = 0.0) -> Tensor:
    """max_q V(q, policy) - min_q V(policy, q): 0 at the equilibrium and nowhere else.

    Args:
        policy: log-probabilities, shape [..., R].
        preference: shape [..., R, R]; its two players' pay-offs must add up to 1 (checked).
        ref: log-probabilities of the reference, shape [..., R]; needed where beta > 0.
        beta: price of the KL; 0 for the game without a reference.

    Returns:
        Shape [...].

    Raises:
        DataError: P(i > j) + P(j > i) is not 1.
        ConfigError: beta is negative, or above 0 without a reference.
    """
    _check(beta)
    if ((preference + preference.mT - 1).abs() > 1e-5).any():
        raise DataError("a preference game is constant-sum", expected="P(i > j) + P(j > i) = 1 for all i, j")
    against = win_rates(preference, policy)
    if beta == 0:
        # The game is symmetric, so that the opponent's best is 1 minus ours.
        return 2 * against.amax(-1) - 1
    if ref is None:
        raise ConfigError("a regularised game needs its reference", where="duality_gap", found=f"beta={beta}")
    kl = (policy.exp() * _zero_where_impossible(policy - ref, policy)).sum(-1)
    return 2 * (beta * torch.logsumexp(ref + against / beta, -1) + beta * kl) - 1


def exploitability(policy: Tensor, preference: Tensor) -> Tensor:
    """max_q P(q > policy) - 1/2: by how much the best opponent beats the policy, shape [...]."""
    return win_rates(preference, policy).amax(-1) - 0.5


def regularised_equilibrium(
    preference: Tensor, ref: Tensor, beta: float, *, tolerance: float = 1e-10
) -> Tensor:
    """The equilibrium pi(y) ~ ref(y) exp(P(y > pi) / beta), by Newton's method from large beta down to `beta`.

    None of the learning rules of `objectives` is used, so that it can be held against them.

    Args:
        preference: shape [..., R, R], constant-sum.
        ref: log-probabilities, shape [..., R].
        beta: above 0.
        tolerance: largest duality gap of the result, at this very beta.

    Returns:
        Log-probabilities in float64, shape [..., R].

    Raises:
        DataError: it was not reached to this tolerance.
    """
    _check(beta, positive=True)
    preference, ref = preference.double(), ref.double().log_softmax(-1)
    policy, price = ref, max(4.0, beta)
    while True:
        policy = _newton(policy, preference, ref, price)
        if price == beta:
            break
        price = max(beta, 0.7 * price)
    gap = duality_gap(policy, preference, ref, beta).max().item()
    if not gap <= tolerance:
        raise DataError(
            "the equilibrium was not reached", found=f"duality gap {gap:.1e}", expected=f"<= {tolerance:.0e}"
        )
    return policy


def nash_equilibrium(preference: Tensor) -> Tensor:
    """A policy that no opponent beats (the von Neumann winner), by linear programming.

    Args:
        preference: shape [..., R, R], constant-sum.

    Returns:
        *Probabilities* (some are 0) in float64, shape [..., R].
    """
    size = preference.shape[-1]
    rows = []
    for table in preference.double().reshape(-1, size, size):
        # Maximise v with sum_i p_i P(i > j) >= v for every opponent j.
        bounds = [(0, None)] * size + [(None, None)]
        solved = linprog(
            [0.0] * size + [-1.0],
            A_ub=torch.cat([-table.mT, torch.ones(size, 1, dtype=table.dtype)], 1).numpy(),
            b_ub=[0.0] * size,
            A_eq=[[1.0] * size + [0.0]],
            b_eq=[1.0],
            bounds=bounds,
        )
        if not solved.success:
            raise DataError("no equilibrium was found", found=solved.message)
        rows.append(torch.as_tensor(solved.x[:size]).clamp(min=0))
    winners = torch.stack(rows).view(*preference.shape[:-2], size)
    return winners / winners.sum(-1, keepdim=True)


def _newton(policy: Tensor, preference: Tensor, ref: Tensor, beta: float, steps: int = 60) -> Tensor:
    """Solve logits = ref + P softmax(logits) / beta, by steps that are halved until they bring it closer."""
    logits, identity = policy, torch.eye(policy.shape[-1], dtype=policy.dtype)

    def residual(logits: Tensor) -> Tensor:
        return logits - ref - win_rates(preference, logits.log_softmax(-1)) / beta

    for _ in range(steps):
        probs = logits.softmax(-1)
        softmax_slope = torch.diag_embed(probs) - probs[..., :, None] * probs[..., None, :]
        error = residual(logits)
        size = error.norm(dim=-1, keepdim=True)
        if size.max() < 1e-13 / beta:
            break
        step = torch.linalg.solve(identity - preference @ softmax_slope / beta, error)
        scale = torch.ones_like(size)
        for _ in range(30):
            worse = residual(logits - scale * step).norm(dim=-1, keepdim=True) > size
            if not worse.any():
                break
            scale = torch.where(worse, scale / 2, scale)
        logits = logits - scale * step
    return logits.log_softmax(-1)


def _zero_where_impossible(values: Tensor, log_probs: Tensor) -> Tensor:
    """0 instead of infinity times 0 where a policy never goes."""
    return torch.where(log_probs == -math.inf, 0.0, values)


def _check(beta: float, positive: bool = False) -> None:
    if not (beta > 0 if positive else beta >= 0):
        raise ConfigError(
            "the price of the KL", where="beta", found=beta, expected="> 0" if positive else ">= 0"
        )
