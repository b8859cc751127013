"""Proof of S141, RACO: between two conflicting objectives it lifts the weaker one at the same weighted loss.

A log-linear policy over 6 prompts x 8 responses with 40 random features and two rewards that are correlated -0.3,
the second held half as strongly. Each objective is DPO on every pair of responses, labelled in both directions
with the probability that people of its reward would give (exact expectations). Equal weights, radius 0.4, plain
gradient steps of 0.3 from the same start; RACO is compared where its weighted loss has fallen as far as that of
plain weighting did in 60 steps.

Measured, falls of the (stronger, weaker) loss, means of 8 seeds: weighted DPO (0.030, 0.004), both fall in 75 % of
the seeds; RACO (0.024, 0.010), both in all: the weaker one falls 2.6 times as far. How much there is to gain is a
matter of the conflict: where both rewards are held equally strongly and labels are certain, it is 1.3 times.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from accordance.balancing import GradientBalancer, GradientSet, clipped_mixture, get_balancer
from accordance.lab.tabular import TablePolicy
from accordance.objectives import get_objective

PROMPTS, RESPONSES, FEATURES, SEEDS, STEPS, RATE = 6, 8, 40, 8, 60, 0.3
EQUAL = torch.tensor([0.5, 0.5], dtype=torch.float64)


class LogLinear(TablePolicy):
    """A policy whose logits are features times a parameter, so that prompts share what is learned."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features, self.logits = (
            features,
            nn.Parameter(torch.zeros(features.shape[-1], dtype=torch.float64)),
        )

    def logp(self, prompt: Tensor, response: Tensor) -> Tensor:
        return (self.features @ self.logits).log_softmax(-1)[prompt, response]

    def length(self, prompt: Tensor, response: Tensor) -> Tensor:
        return torch.ones(prompt.shape, dtype=torch.long)


class World:
    """Features, every pair of responses, and how likely people of either reward prefer the first one."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=g, dtype=torch.float64)

        self.features = 0.3 * draw(PROMPTS, RESPONSES, FEATURES)
        one, other = draw(PROMPTS, RESPONSES), draw(PROMPTS, RESPONSES)
        rewards = (one, 0.5 * (-0.3 * one + 0.91**0.5 * other))
        pairs = [(x, a, b) for x in range(PROMPTS) for a, b in itertools.combinations(range(RESPONSES), 2)]
        self.prompt, self.first, self.second = torch.tensor(pairs).T
        self.prefer = [(r[self.prompt, self.first] - r[self.prompt, self.second]).sigmoid() for r in rewards]
        self.objective = get_objective("dpo", beta=1.0)

    def losses(self, policy: LogLinear, ref: LogLinear) -> Tensor:
        """The expected loss of each objective, shape [2]."""
        pairs = policy.pairs(self.prompt, self.first, self.second, ref=ref)
        one, other = self.objective(pairs), self.objective(pairs.swapped())
        return torch.stack([(p * one + (1 - p) * other).mean() for p in self.prefer])

    def falls(self, balancer: GradientBalancer, weights: Tensor = EQUAL, steps: int = STEPS) -> Tensor:
        """By how much each loss has fallen after every step, shape [steps + 1, 2]."""
        policy = LogLinear(self.features)
        ref = policy.frozen()
        gradients = GradientSet(policy.parameters(), weights)
        seen = []
        for _ in range(steps):
            losses = self.losses(policy, ref)
            seen.append(losses.detach())
            gradients.add(losses)
            gradients.write(balancer)
            with torch.no_grad():
                policy.logits -= RATE * policy.logits.grad
        seen = torch.stack([*seen, self.losses(policy, ref).detach()])
        return seen[0] - seen


def reached(falls: Tensor, weighted: Tensor) -> Tensor:
    """The falls where the weighted loss has fallen as far as `weighted`, between two steps, shape [2]."""
    means = falls.mean(1)
    after = int((means >= weighted).nonzero()[0])
    share = (weighted - means[after - 1]) / (means[after] - means[after - 1])
    return falls[after - 1] + share * (falls[after] - falls[after - 1])


def test_the_weaker_objective_gains_half_as_much_again_at_the_same_weighted_loss(record_property):
    plain, ours = [], []
    for seed in range(SEEDS):
        world = World(seed)
        plain.append(world.falls(get_balancer("sum"))[-1])
        ours.append(reached(world.falls(get_balancer("raco"), steps=2 * STEPS), plain[-1].mean()))
    plain, ours = torch.stack(plain), torch.stack(ours)
    record_property("weighted", [plain.max(1)[0].mean().item(), plain.min(1)[0].mean().item()])
    record_property("raco", [ours.max(1)[0].mean().item(), ours.min(1)[0].mean().item()])
    assert ours.mean() == pytest.approx(plain.mean().item(), rel=1e-6)
    assert ours.min(1)[0].mean() >= 1.5 * plain.min(1)[0].mean() > 0
    assert (ours > 0).all() and (plain.min(1)[0] < 0).any()


def test_clipping_gives_the_numbers_of_the_paper():
    g = torch.tensor([[1.0, -4.0], [-1.0, 1.0]], dtype=torch.float64)
    w = torch.tensor([0.2, 0.8], dtype=torch.float64)
    rough, clipped = clipped_mixture(g @ g.T, w, 0.5)
    assert rough[0] == pytest.approx(0.3561, abs=1e-3)
    assert clipped.tolist() == pytest.approx([0.2, 0.6439], abs=1e-3)
    for p, cosine, factor in ((rough, 0.3458, 0.9335), (clipped, 0.9433, 1.1427)):
        rho = torch.cosine_similarity(p @ g, w @ g, 0)
        assert rho == pytest.approx(cosine, abs=1e-3)
        assert 1 + 0.5 * rho - 0.15 * (1 + 0.25 + rho) == pytest.approx(factor, abs=1e-3)
    direction = get_balancer("raco", radius=0.5).combine(g, w)
    g0, mixed = w @ g, clipped @ g
    torch.testing.assert_close(direction, g0 + 0.5 * g0.norm() * mixed / mixed.norm())
