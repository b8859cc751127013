"""Proof of S056, LCPO: it finds out who labels carelessly, and learns what DPO would have from clean labels.

8 prompts x 10 responses, 6000 pairs, two annotators whose labels are right with probability 0.95 and 0.60 (right
means: as a Bradley-Terry judge of the true reward would say). DPO against LCPO around DPO, 600 full-batch steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from accordance.lab.tabular import TabularPolicy, descend
from accordance.objectives import dpo, label_confidence, lcpo

PLANTED = torch.tensor([0.95, 0.60])
SEEDS = range(3)


@dataclass
class Outcome:
    """What one method learned."""

    calibration: float
    reward: float
    reliability: Tensor
    clean: float
    flipped: float


@cache
def outcome(seed: int, wrapped: bool) -> Outcome:
    g = torch.Generator().manual_seed(seed)
    reward = 1.5 * torch.randn(8, 10, generator=g, dtype=torch.float64)
    prompt = torch.randint(8, (6000,), generator=g)
    first = torch.randint(10, (6000,), generator=g)
    second = (first + torch.randint(1, 10, (6000,), generator=g)) % 10
    better = torch.rand(6000, generator=g) < (reward[prompt, first] - reward[prompt, second]).sigmoid()
    who = torch.arange(6000) % 2
    flipped = torch.rand(6000, generator=g) > PLANTED[who]
    says_first = better ^ flipped
    chosen, rejected = torch.where(says_first, first, second), torch.where(says_first, second, first)

    policy, base = TabularPolicy(torch.zeros(8, 10, dtype=torch.float64)), dpo(beta=0.5)
    ref, objective = policy.frozen(), lcpo(base, memory=0.0) if wrapped else base

    def pairs(a: Tensor, b: Tensor, prompt: Tensor = prompt):
        return policy.pairs(prompt, a, b, ref=ref)

    def loss() -> Tensor:
        return objective(replace(pairs(chosen, rejected), extras={"annotator": who})).mean()

    descend(policy, loss, steps=600, learning_rate=0.02)
    with torch.no_grad():
        p, i, j = torch.cartesian_prod(torch.arange(8), torch.arange(10), torch.arange(10)).T
        believed = torch.sub(*base.rewards(pairs(i, j, p))).sigmoid()
        eta = objective.state["reliability"][:2] if wrapped else torch.full((2,), 0.75)
        confidence = label_confidence(base, pairs(chosen, rejected), eta[who])
        return Outcome(
            (believed - (reward[p, i] - reward[p, j]).sigmoid()).abs().mean().item(),
            policy.expected(reward).mean().item(),
            eta.clone(),
            confidence[~flipped].mean().item(),
            confidence[flipped].mean().item(),
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_planted_reliabilities_are_recovered_within_five_points(seed):
    assert (outcome(seed, True).reliability - PLANTED).abs().max() < 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_what_the_policy_believes_is_less_than_half_as_far_from_the_truth(seed):
    assert outcome(seed, True).calibration < 0.5 * outcome(seed, False).calibration


@pytest.mark.parametrize("seed", SEEDS)
def test_the_policy_earns_more_true_reward(seed):
    assert outcome(seed, True).reward > outcome(seed, False).reward + 0.4


@pytest.mark.parametrize("seed", SEEDS)
def test_flipped_labels_are_told_from_clean_ones(seed):
    assert outcome(seed, True).clean > outcome(seed, True).flipped + 0.3


@pytest.mark.parametrize("eta", [0.6, 0.75, 0.95])
def test_a_step_follows_the_likelihood_of_labels_that_are_wrong_at_a_known_rate(eta):
    """Expectation maximisation: both orientations, weighted, have the gradient of -log(eta p + (1 - eta)(1 - p))."""
    g = torch.Generator().manual_seed(0)
    policy = TabularPolicy(torch.randn(8, 10, generator=g, dtype=torch.float64))
    ref = TabularPolicy(torch.randn(8, 10, generator=g, dtype=torch.float64))
    prompt, chosen, rejected = (torch.randint(k, (400,), generator=g) for k in (8, 10, 10))
    pairs, base = policy.pairs(prompt, chosen, rejected, ref=ref), dpo(beta=1.0)
    belief = torch.sub(*base.rewards(pairs)).sigmoid()
    likelihood = -(eta * belief + (1 - eta) * (1 - belief)).log()
    ours, true, plain = (
        torch.autograd.grad(losses.mean(), policy.logits, retain_graph=True)[0]
        for losses in (lcpo(base, initial=eta)(pairs), likelihood, base(pairs))
    )
    torch.testing.assert_close(ours, true, rtol=1e-9, atol=1e-12)
    assert (ours - plain).abs().max() > 0.01 * plain.abs().max()
