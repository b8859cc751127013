"""Proof of S130, eva: prompts that evolve where regret is large cover the plane; given ones, or blind evolution, don't.

Prompts are points, answers are five actions, the reward is a sigmoid of radial features, the policy a linear softmax
on the same features, trained by RLOO on four samples to each of 16 prompts a round. Seeds lie in one corner; a new
prompt is a Gaussian step from an old one. What is compared is the mean regret on the whole plane, at equal updates.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from accordance.core.objective import ListLogps
from accordance.objectives import get_objective
from accordance.training.prompts import PromptPool, choose, informativeness

ROUNDS, SEEDS, PROMPTS, SAMPLES, BATCH = 30, range(8), 64, 4, 16
Point = tuple[float, float]


class Plane:
    """Points in [-3, 3]^2 and how good each action is there."""

    def __init__(self, seed: int) -> None:
        g = np.random.default_rng(seed)
        self.centres, self.weights = g.uniform(-3, 3, (60, 2)), 2 * g.normal(size=(60, 5))

    def features(self, points: np.ndarray) -> np.ndarray:
        return np.exp(-((points[:, None] - self.centres) ** 2).sum(-1) / (2 * 0.8**2))

    def rewards(self, points: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-self.features(points) @ self.weights))


class Solver:
    """A linear softmax on a plane's features."""

    def __init__(self, plane: Plane, seed: int) -> None:
        self.plane, self.generator = plane, torch.Generator().manual_seed(seed)
        self.theta = torch.zeros(60, 5, dtype=torch.float64, requires_grad=True)
        self.objective = get_objective("rloo", beta=0.0, clip=None)

    def log_probs(self, points: np.ndarray) -> Tensor:
        return (torch.tensor(self.plane.features(points)) @ self.theta).log_softmax(-1)

    def sample(self, points: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Log-probabilities and rewards of samples, shape [n, 4] each."""
        logps = self.log_probs(points)
        taken = torch.multinomial(logps.detach().exp(), SAMPLES, replacement=True, generator=self.generator)
        return logps.gather(1, taken), np.take_along_axis(self.plane.rewards(points), taken.numpy(), 1)

    def learn(self, points: np.ndarray, rate: float = 8.0) -> None:
        logps, rewards = self.sample(points)
        ones = torch.ones_like(logps)
        lists = ListLogps(logps, ones, ones.bool(), torch.tensor(rewards), None, logps.detach())
        (gradient,) = torch.autograd.grad(self.objective(lists).mean(), self.theta)
        self.theta.data -= rate * gradient

    def regret(self) -> np.ndarray:
        """On 800 points from everywhere."""
        points = np.random.default_rng(99).uniform(-3, 3, (800, 2))
        rewards = self.plane.rewards(points)
        return rewards.max(1) - (self.log_probs(points).exp().detach().numpy() * rewards).sum(1)


@cache
def trained(seed: int, creator: str) -> tuple[np.ndarray, PromptPool[Point]]:
    """Regret on the plane after all rounds, and the pool of prompts, under one way of choosing parents."""
    solver, g = Solver(Plane(seed), seed), np.random.default_rng(1000 + seed)
    corner = (0.5 * g.normal(size=(PROMPTS, 2)) - 1.5).clip(-3, 3)
    pool: PromptPool[Point] = PromptPool([(float(x), float(y)) for x, y in corner], key=lambda point: point)
    current = list(range(PROMPTS))
    for number in range(ROUNDS):
        if creator != "static":
            information = informativeness(solver.sample(np.array([pool.items[i] for i in current]))[1])
            if creator == "inverse":
                information = 1 / (information + 1e-3)
            parents = choose(
                information, PROMPTS // 4, "uniform" if creator == "uniform" else "proportion", number
            )
            new: list[int] = []
            for parent in (current[i] for i in parents):
                steps = (np.array(pool.items[parent]) + 0.8 * g.normal(size=(4, 2))).clip(-3, 3)
                new += pool.add(parent, [(float(x), float(y)) for x, y in steps])
            current = pool.mixed(new, PROMPTS, 0.2, number)
        solver.learn(np.array([pool.items[i] for i in g.choice(current, BATCH)]))
    return solver.regret(), pool


def mean(creator: str) -> float:
    return float(np.mean([trained(seed, creator)[0].mean() for seed in SEEDS]))


def test_evolved_prompts_leave_less_regret_than_given_ones_and_than_blind_evolution():
    print({creator: round(mean(creator), 3) for creator in ("static", "uniform", "eva", "inverse")})
    assert mean("static") - mean("eva") >= 0.10
    assert mean("uniform") - mean("eva") >= 0.05
    assert all(trained(seed, "eva")[0].mean() < trained(seed, "uniform")[0].mean() for seed in SEEDS)


def test_evolving_where_there_is_least_to_learn_is_no_better_than_blind():
    assert mean("inverse") - mean("eva") >= 0.05
    assert mean("inverse") > mean("uniform") - 0.01


def test_the_worst_places_gain_too():
    tail = {
        c: np.mean([np.quantile(trained(s, c)[0], 0.9) for s in SEEDS]) for c in ("static", "uniform", "eva")
    }
    print({creator: round(float(value), 3) for creator, value in tail.items()})
    assert tail["eva"] < tail["uniform"] - 0.1
    assert tail["uniform"] < tail["static"] - 0.1


@pytest.mark.parametrize("kind", ["min", "avg", "duel"])
def test_what_is_too_hard_or_too_easy_tells_nothing(kind):
    information = informativeness(np.array([[0.0] * 4, [0.9] * 4, [0.1, 0.1, 0.1, 0.8]]), kind)
    assert information[0] == information[1] == 0 < information[2]
    assert set(choose(information, 2).tolist()) == {2}


def test_every_prompt_goes_back_to_a_seed():
    pool = trained(0, "eva")[1]
    lines = [pool.lineage(place) for place in range(len(pool))]
    assert all(line[-1] < PROMPTS for line in lines) and max(map(len, lines)) > 10
    assert all(earlier < later for line in lines for later, earlier in pairwise(line))
