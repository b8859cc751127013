"""Proof of S117, LifeAlign: consolidated updates forget less, and the focal weight leaves alone what is right already.

Forgetting: a matrix learns four linear tasks one after the other by gradient descent; the inputs of the later ones
overlap those of the first. The consolidation is the one that the loop `lifelong` applies to every matrix of a model.
Focus: in the tabular lab a fifth of the pairs is still wrong; every update is of the same length.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from accordance.core.objective import Objective, PairLogps
from accordance.lab.tabular import TabularPolicy
from accordance.models.weights import LowRank, consolidated
from accordance.objectives import get_objective
from accordance.training.loops.lifelong import transfer

SIZE, INPUTS, TASKS, SEEDS = 30, 4, 4, range(6)


def linear_tasks(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Inputs [30, 4] and targets [30, 4] of each task; half of each later input lies along the first's."""
    g = torch.Generator().manual_seed(seed)
    first = torch.randn(SIZE, INPUTS, generator=g, dtype=torch.float64) / math.sqrt(SIZE)
    inputs = [first]
    for _ in range(1, TASKS):
        own = torch.randn(SIZE, INPUTS, generator=g, dtype=torch.float64) / math.sqrt(SIZE)
        inputs.append((own + first) / math.sqrt(2))
    return [(u, torch.randn(SIZE, INPUTS, generator=g, dtype=torch.float64)) for u in inputs]


def loss(weights: Tensor, task: tuple[Tensor, Tensor]) -> float:
    """Squared error relative to that of a matrix of zeros."""
    inputs, targets = task
    return float(((weights @ inputs - targets) ** 2).sum() / (targets**2).sum())


@cache
def sequence(
    seed: int, energy: float = 1.0, keep: float = 1.0, consolidate: bool = True
) -> tuple[list, Tensor]:
    """Losses of all tasks after each, and the weights at the end."""
    tasks, g = linear_tasks(seed), torch.Generator().manual_seed(100 + seed)
    weights, memory, table = torch.zeros(SIZE, SIZE, dtype=torch.float64), [], []
    for inputs, targets in tasks:
        before = weights
        for _ in range(300):
            weights = weights - 0.4 * (weights @ inputs - targets) @ inputs.mT
        change = weights - before
        change = change + 0.02 * change.norm() / SIZE * torch.randn(
            SIZE, SIZE, generator=g, dtype=torch.float64
        )
        weights = before + change
        if consolidate:
            written = consolidated(LowRank.of(change), memory, energy, keep).written
            weights = before + written.dense
            memory.append(written)
        table.append({str(n): loss(weights, task) for n, task in enumerate(tasks)})
    return table, weights


def told(**how: float) -> tuple[float, float, float]:
    """Forgetting (rise of the loss on tasks 1 to 3), mean final loss, loss on the last task; means over seeds."""
    found = [transfer(sequence(seed, **how)[0]) for seed in SEEDS]
    return tuple(float(np.mean([f[k] for f in found])) for k in ("backward_transfer", "mean_final", "last"))  # type: ignore[return-value]


def test_consolidation_forgets_less_and_ends_better_on_average():
    plain, ours = told(consolidate=False), told(energy=0.9, keep=0.5)
    print(f"forgetting, mean, last: plain {plain}, consolidated {ours}")
    assert ours[0] < 0.9 * plain[0]
    assert ours[1] < plain[1] - 0.02
    assert ours[2] < 0.25, "the new task is still learned"


def test_both_the_projection_and_the_truncation_do_their_part():
    without_projection, without_truncation, ours = told(energy=0.9), told(keep=0.5), told(energy=0.9, keep=0.5)
    print(f"without truncation {without_truncation}, without projection {without_projection}")
    assert ours[0] < without_projection[0] - 0.05
    assert ours[0] < without_truncation[0] - 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_neutral_values_are_plain_sequential_training(seed):
    plain, neutral = sequence(seed, consolidate=False)[1], sequence(seed, energy=1.0, keep=1.0)[1]
    assert (plain - neutral).abs().max() < 1e-6


# The focal weight.


def slope(objective: Objective[PairLogps], p: float) -> float:
    """The size of the gradient of a pair's loss with respect to its log-ratio margin, at belief p."""
    margin = torch.tensor([math.log(p / (1 - p)) / 0.1], dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1)
    losses = objective(PairLogps(margin, zero, one, one, zero, zero))
    return abs(float(torch.autograd.grad(losses.sum(), margin)[0]))


def test_a_pair_that_is_right_hardly_counts():
    focal, dpo = (get_objective(name, beta=0.1) for name in ("focal(dpo)", "dpo"))
    assert slope(dpo, 0.9) / slope(dpo, 0.5) == pytest.approx(0.2)
    assert slope(focal, 0.9) / slope(focal, 0.5) < 0.05
    # By the formula, the weight not detached: d/dp of -(1 - p)^2 log p, times dp/dmargin.
    p = 0.7
    expected = 0.1 * p * (1 - p) * ((1 - p) ** 2 / p - 2 * (1 - p) * math.log(p))
    assert slope(focal, p) == pytest.approx(expected)


def focus(name: str) -> tuple[int, float]:
    """Steps until the wrong fifth is right, and how far the policy drifted on the rest by then."""
    beta, prompts = 0.5, 50
    objective, prompt = get_objective(name, beta=beta), torch.arange(prompts)
    solved = prompt >= prompts // 5
    belief = torch.where(solved, 0.8, 0.3).double()
    ref = TabularPolicy(torch.zeros(prompts, 4, dtype=torch.float64)).frozen()
    logits = torch.zeros(prompts, 4, dtype=torch.float64)
    logits[:, 0] = belief.logit() / beta
    policy, start = TabularPolicy(logits), TabularPolicy(logits).frozen()
    chosen, rejected = torch.zeros(prompts, dtype=torch.long), torch.ones(prompts, dtype=torch.long)
    for step in range(1, 2000):
        losses = objective(policy.pairs(prompt, chosen, rejected, ref=ref))
        (gradient,) = torch.autograd.grad(losses.mean(), policy.logits)
        with torch.no_grad():
            policy.logits -= 0.1 * gradient / gradient.norm()
            pairs = policy.pairs(prompt, chosen, rejected, ref=ref)
            now = (beta * (pairs.chosen_ratio - pairs.rejected_ratio)).sigmoid()
        if (now[~solved] > 0.7).all():
            return step, float(policy.kl(start).detach()[solved].mean())
    raise AssertionError("never right")


def test_what_is_wrong_is_learned_no_slower_and_what_is_right_is_left_alone():
    (ours, drift), (dpo, dpo_drift) = focus("focal(dpo)"), focus("dpo")
    print(f"steps {ours} against {dpo}; drift {drift:.4f} against {dpo_drift:.4f}")
    assert ours <= dpo
    assert drift <= 0.5 * dpo_drift
