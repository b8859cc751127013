"""Optima of tables: what is called best is what independent solvers find, and nothing nearby is better."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from accordance.core.errors import ConfigError, DataError
from accordance.lab.optima import (
    constrained_optimum,
    kl_optimum,
    max_min_optimum,
    mean_kl,
    optimum_at_kl,
    pareto_front,
)

P, R = 3, 4


def table(seed: int, *shape: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*(shape or (P, R)), generator=g, dtype=torch.float64)


REF = table(0).log_softmax(-1)


def means(policy: Tensor, values: Tensor) -> Tensor:
    return torch.einsum("pr,prk->k", policy.exp(), values) / len(policy)


def by_slsqp(value, limits=None) -> float:
    """The largest value of a function of probabilities [P, R], by a solver that knows nothing of duals."""
    held = [{"type": "eq", "fun": lambda p: p.reshape(P, R).sum(1) - 1}]
    held += [{"type": "ineq", "fun": limits}] if limits is not None else []
    start = np.full(P * R, 1 / R)
    options = {"ftol": 1e-13, "maxiter": 2000}
    bounds = [(1e-12, 1)] * (P * R)
    done = minimize(
        lambda p: -value(p), start, bounds=bounds, constraints=held, method="SLSQP", options=options
    )
    return -done.fun


def price(p: np.ndarray, beta: float) -> float:
    p = p.reshape(P, R)
    return beta * (p * (np.log(p) - REF.numpy())).sum() / P


def test_the_closed_form_has_no_slope_left() -> None:
    reward, beta = table(1), 0.3
    best = kl_optimum(REF, reward, beta)
    # At the optimum, reward less beta times the log-ratio is the same for all responses to a prompt.
    rest = reward - beta * (best - REF)
    assert (rest - rest[:, :1]).abs().max() < 1e-12
    assert mean_kl(REF, REF) == pytest.approx(0, abs=1e-15)
    with pytest.raises(ConfigError, match="beta"):
        kl_optimum(REF, reward, 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_the_constrained_optimum_is_that_of_a_general_solver(seed: int) -> None:
    reward, costs, beta = table(10 + seed), table(20 + seed, P, R, 2), 0.4
    free = means(kl_optimum(REF, reward, beta), costs)
    least = costs[..., 0].amin(1).mean()
    limits = torch.stack([(free[0] + least) / 2, free[1] + 0.5])
    found = constrained_optimum(REF, reward, costs, limits, beta)
    at = means(found.policy, costs)
    assert at[0] == pytest.approx(limits[0].item(), abs=1e-8) and at[1] <= limits[1] + 1e-8
    assert found.multipliers[0] > 0 and abs(found.gap) < 1e-8
    other = by_slsqp(
        lambda p: (p * reward.numpy().ravel()).sum() / P - price(p, beta),
        lambda p: limits.numpy() - (p[:, None] * costs.numpy().reshape(P * R, 2)).sum(0) / P,
    )
    assert found.value == pytest.approx(other, abs=1e-6)


def test_limits_that_do_not_bind_cost_nothing_and_change_nothing() -> None:
    reward, costs = table(1), table(2, P, R, 2)
    free = kl_optimum(REF, reward, 0.5)
    found = constrained_optimum(REF, reward, costs, means(free, costs) + 0.1, 0.5)
    torch.testing.assert_close(found.policy, free)
    assert found.multipliers.abs().max() == 0


def test_a_multiplier_is_what_a_unit_of_its_limit_is_worth() -> None:
    reward, costs = table(3), table(4, P, R, 1)
    limit = means(kl_optimum(REF, reward, 0.5), costs) - 0.4
    values = [constrained_optimum(REF, reward, costs, limit + e, 0.5).value for e in (-1e-4, 1e-4)]
    worth = constrained_optimum(REF, reward, costs, limit, 0.5).multipliers[0].item()
    assert (values[1] - values[0]) / 2e-4 == pytest.approx(worth, rel=1e-4)


def test_limits_that_nobody_can_meet_are_refused_with_what_is_missing() -> None:
    costs = table(5, P, R, 1)
    least = costs.amin(1).mean().item()
    with pytest.raises(DataError, match="by 0.25"):
        constrained_optimum(REF, table(1), costs, torch.tensor([least - 0.25]), 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_max_min_is_that_of_a_general_solver_and_lifts_the_worst_group(seed: int) -> None:
    rewards, beta = table(30 + seed, P, R, 3), 0.3
    found = max_min_optimum(REF, rewards, beta)
    levels = means(found.policy, rewards)
    used = found.multipliers > 1e-6
    assert (levels[used] - levels.amin()).abs().max() < 1e-7, "all groups that count are equally well off"
    assert found.multipliers.sum() == pytest.approx(1) and abs(found.gap) < 1e-8
    flat = rewards.numpy().reshape(P * R, 3)

    def value(p: np.ndarray) -> float:  # smooth enough for SLSQP, and never above the minimum
        each = (p[:, None] * flat).sum(0) / P
        return float(each.min() - np.log(np.exp(-(each - each.min()) * 2000).sum()) / 2000 - price(p, beta))

    assert by_slsqp(value) == pytest.approx(found.value, abs=2e-3)
    assert by_slsqp(value) <= found.value + 1e-9
    plain = means(kl_optimum(REF, rewards.mean(-1), beta), rewards)
    assert plain.amin() < levels.amin()


def test_the_optimum_at_a_budget_of_kl_spends_it_and_beats_others_that_do() -> None:
    reward = table(6)
    best, beta = optimum_at_kl(REF, reward, 0.2)
    assert mean_kl(best, REF) == pytest.approx(0.2, abs=1e-10) and beta > 0
    reached = means(best, reward[..., None])
    for seed in range(40):
        other, _ = optimum_at_kl(REF, reward + table(100 + seed), 0.2)
        assert means(other, reward[..., None]) < reached
    with pytest.raises(DataError, match="bind"):
        optimum_at_kl(REF, reward, 50.0)


def test_no_point_of_the_front_is_beaten_by_another() -> None:
    rewards = table(7, P, R, 2)
    share = torch.linspace(0, 1, 9, dtype=torch.float64)
    weights = torch.stack([share, 1 - share], -1)
    front = pareto_front(REF, rewards, weights, 0.4)
    assert (front[:, 0].diff() > 0).all() and (front[:, 1].diff() < 0).all()
    torch.testing.assert_close(front[-1], means(kl_optimum(REF, rewards[..., 0], 0.4), rewards))
    with pytest.raises(ConfigError, match="at least 0"):
        pareto_front(REF, rewards, -weights, 0.4)


@pytest.mark.skipif(find_spec("cvxpy") is None, reason="cvxpy is not installed")
def test_both_are_what_cvxpy_finds() -> None:
    import cvxpy as cp

    reward, costs, rewards, beta = table(8), table(9, P, R, 1), table(40, P, R, 3), 0.4
    limit = means(kl_optimum(REF, reward, beta), costs) - 0.3
    p = cp.Variable((P, R))
    kl = cp.sum(cp.rel_entr(p, REF.exp().numpy())) / P
    simplex = [cp.sum(p, axis=1) == 1]

    def mean(values: Tensor) -> cp.Expression:
        return cp.sum(cp.multiply(p, values.numpy())) / P

    one = cp.Problem(
        cp.Maximize(mean(reward) - beta * kl), [*simplex, mean(costs[..., 0]) <= limit.item()]
    ).solve()
    assert constrained_optimum(REF, reward, costs, limit, beta).value == pytest.approx(one, abs=1e-5)
    worst = cp.minimum(*(mean(rewards[..., g]) for g in range(3)))
    two = cp.Problem(cp.Maximize(worst - beta * kl), simplex).solve()
    assert max_min_optimum(REF, rewards, beta).value == pytest.approx(two, abs=1e-5)
