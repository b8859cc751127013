"""Proof of S125, SAMI: answers come to follow their principles although nobody labels which answer follows what.

20 queries x 12 responses under a principle and its negation; the base policy heeds an attribute a little:
logits = base +- 0.3 a. The exact mutual information of principle and response, given the query, must at least
double in 60 steps on the policy's own samples. Controls: mismatched principles, and imitation of the same samples.
"""

from __future__ import annotations

import math

import pytest
import torch

from accordance.core.objective import CrossLogps
from accordance.lab.tabular import TabularPolicy
from accordance.objectives import get_objective, mutual_information

QUERIES, RESPONSES, SEEDS = 20, 12, range(3)


class World:
    """Prompt 2 q + c is query q under principle c."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        base, self.a = torch.randn(2, QUERIES, RESPONSES, generator=g, dtype=torch.float64)
        self.generator = g
        self.policy = TabularPolicy(torch.stack([base + 0.3 * self.a, base - 0.3 * self.a], 1).flatten(0, 1))
        self.prompts = torch.arange(2 * QUERIES).view(QUERIES, 2)

    def information(self) -> float:
        return mutual_information(self.policy.log_probs.view(QUERIES, 2, -1)).mean().item()

    def control(self) -> float:
        """(E[a | principle] - E[a | its negation]) / 2."""
        means = (self.policy.probs.view(QUERIES, 2, -1) * self.a[:, None]).sum(-1).mean(0)
        return ((means[0] - means[1]) / 2).item()

    def train(self, kind: str, steps: int = 60, draws: int = 64) -> World:
        objective = get_objective("sft" if kind == "sft" else "sami")
        optimizer = torch.optim.SGD(self.policy.parameters(), lr=0.5)
        prompts = self.prompts.repeat(draws, 1)
        for _ in range(steps):
            answers = self.policy.sample(prompts, generator=self.generator)[..., 0]
            if kind == "sft":
                loss = objective(self.policy.single(prompts.flatten(), answers.flatten()))
            else:
                answers = answers.flip(1) if kind == "mismatched" else answers
                loss = objective(self.policy.cross(prompts, answers))
            optimizer.zero_grad()
            (loss.sum() / draws).backward()  # the same step for each query
            optimizer.step()
        return self


@pytest.mark.parametrize("seed", SEEDS)
def test_mutual_information_doubles_and_the_principle_steers_more(seed):
    before, after = World(seed), World(seed).train("matched")
    print(f"MI {before.information():.3f} -> {after.information():.3f}", end=", ")
    print(f"control {before.control():.2f} -> {after.control():.2f}")
    assert after.information() >= 2 * before.information()
    assert after.control() >= 1.2 * before.control()


@pytest.mark.parametrize("seed", SEEDS)
def test_mismatched_principles_destroy_it_and_imitation_hardly_moves_it(seed):
    """Imitating one's own samples changes nothing on average, but a policy on finite samples drifts a little."""
    before = World(seed).information()
    assert World(seed).train("mismatched").information() < 0.7 * before
    gain = World(seed).train("matched").information() - before
    assert abs(World(seed).train("sft").information() - before) < 0.25 * gain


def cross(logp: torch.Tensor, length: int = 1) -> CrossLogps:
    return CrossLogps(logp, torch.full((len(logp), logp.shape[2]), length))


def test_loss_is_log_n_where_nothing_tells_the_principles_apart_and_0_for_one():
    for n in (1, 2, 5):
        loss = get_objective("sami")(cross(torch.full((3, n, n), -4.0, dtype=torch.float64)))
        torch.testing.assert_close(loss, torch.full((3,), math.log(n), dtype=torch.float64))


def test_both_directions_count_and_each_response_is_weighed_by_its_length():
    """Logits that only tell responses apart (rows alike), and only conditions (columns alike)."""
    apart = torch.tensor([[[0.0, -3.0], [0.0, -3.0]]], dtype=torch.float64)
    loss = get_objective("sami")
    torch.testing.assert_close(loss(cross(apart)), loss(cross(apart.mT)))
    softplus = math.log1p(math.exp(-3.0))
    torch.testing.assert_close(
        loss(cross(apart)), torch.tensor([(softplus + 1.5 + math.log(2)) / 2], dtype=torch.float64)
    )
    torch.testing.assert_close(loss(cross(2 * apart, 2)), loss(cross(apart)))
    summed = get_objective("sami", reduction="sum")
    torch.testing.assert_close(summed(cross(apart, 2)), loss(cross(apart)))


def test_bound_holds_on_average():
    """log C - loss of fresh samples stays below the exact information (up to sampling error)."""
    world = World(0).train("matched")
    prompts = world.prompts.repeat(500, 1)
    answers = world.policy.sample(prompts, generator=world.generator)[..., 0]
    bound = math.log(2) - get_objective("sami")(world.policy.cross(prompts, answers)).mean().item()
    assert 0 < bound < world.information() * 1.05
