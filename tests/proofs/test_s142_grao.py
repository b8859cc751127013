"""Proof of S142, GRAO: imitate while the policy is bad, then go beyond the answer that was imitated.

16 prompts x 20 responses, a base policy that leans to what is bad, the reference answer the fifth best, plain
gradient steps of one size. After 100 steps GRAO leads; after 300 it is above the reference answer, where SFT can't
get. What the spec does not say: in the long run imitation holds it back; without it the policy starts slower and,
if the base is not too bad, ends higher (1.1 after 300 steps). And how high it gets in 60 steps with 200 responses
depends on the base: here from -0.7 to 0.3, which GRPO does not begin to do.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from accordance.core.objective import ListLogps
from accordance.lab.tabular import TabularPolicy
from accordance.objectives import get_objective

PROMPTS, GROUP = 16, 8
SEEDS = range(3)


@cache
def learn(name: str, seed: int, *options: tuple[str, float], responses: int = 20, steps: int = 300) -> dict:
    """Expected reward after the steps, and that of the reference answer."""
    g = torch.Generator().manual_seed(seed)
    reward, noise = torch.randn(2, PROMPTS, responses, generator=g, dtype=torch.float64)
    policy = TabularPolicy(0.7 * (noise - reward))
    answer = reward.argsort(-1, descending=True)[:, 4:5]
    objective, prompt = get_objective(name, **dict(options)), torch.arange(PROMPTS)
    optimizer, found = torch.optim.SGD(policy.parameters(), lr=0.1), {}
    found["answer"] = reward.gather(1, answer).mean().item()
    for step in range(steps + 1):
        found[step] = policy.expected(reward).mean().item()
        if name == "sft":
            loss = objective(policy.single(prompt, answer[:, 0]))
        else:
            drawn = policy.sample(prompt, GROUP, generator=g)
            drawn = torch.cat([answer, drawn], 1) if name == "grao" else drawn
            lists = policy.lists(prompt, drawn, reward.gather(1, drawn), old=policy)
            loss = objective(replace(lists, extras={"answer": torch.zeros(PROMPTS)}))
        optimizer.zero_grad()
        loss.sum().backward()  # the same step for each prompt
        optimizer.step()
    return found


def test_after_100_steps_it_leads_imitation_and_exploration():
    grao, sft, grpo = (torch.tensor([learn(n, seed)[100] for seed in SEEDS]) for n in ("grao", "sft", "grpo"))
    print(f"GRAO {grao.mean():.2f}, SFT {sft.mean():.2f}, GRPO {grpo.mean():.2f}")
    assert (grao >= grpo + 0.5).all()
    assert (grao - sft).mean() >= 0.1 and (grao >= sft + 0.05).all()


def test_after_300_steps_it_is_above_the_reference_answer_where_sft_cannot_get():
    found = {name: [learn(name, seed) for seed in SEEDS] for name in ("grao", "sft")}
    beyond = [run[300] - run["answer"] for run in found["grao"]]
    print([f"{run[300]:.2f} against {run['answer']:.2f}" for run in found["grao"]])
    assert sum(beyond) / len(beyond) >= 0.05
    assert all(value <= run["answer"] for run in found["sft"] for value in run.values())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("term", ["explore", "imitate", "contrast"])
def test_each_term_is_needed_for_the_first_100_steps(term, seed):
    assert learn("grao", seed)[100] > learn("grao", seed, (term, 0.0))[100] + 0.05


def test_where_good_samples_are_rare_exploration_alone_stands_still():
    grao, grpo = (learn(name, 0, responses=200, steps=60) for name in ("grao", "grpo"))
    print(f"60 steps with 200 responses: GRAO {grao[0]:.2f} -> {grao[60]:.2f}, GRPO {grpo[60]:.2f}")
    assert grpo[60] < grpo[0] + 0.25
    assert grao[60] > grao[0] + 0.8


def bundle() -> tuple[ListLogps, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    leaf = (-torch.rand(2, 4, generator=g, dtype=torch.float64) * 5).requires_grad_()
    length, scores = (
        torch.tensor([[1, 2, 3, 4], [2, 2, 5, 1]]),
        torch.randn(2, 4, generator=g, dtype=torch.float64),
    )
    extras = {"answer": torch.tensor([0, 2])}
    return ListLogps(leaf, length, torch.ones(2, 4).bool(), scores, old=leaf.detach(), extras=extras), leaf


def test_without_imitation_and_contrast_it_is_reinforce_with_the_groups_baseline_over_the_samples():
    lists, leaf = bundle()
    (ours,) = torch.autograd.grad(get_objective("grao", imitate=0.0, contrast=0.0)(lists).sum(), leaf)
    advantage = (lists.scores - lists.scores.mean(-1, keepdim=True)) / (
        lists.scores.std(-1, keepdim=True) + 1e-4
    )
    samples = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 1]])
    torch.testing.assert_close(ours, -advantage * samples / lists.length / 3)


def test_imitation_alone_is_sft_on_the_answer_times_its_advantage():
    lists, leaf = bundle()
    (ours,) = torch.autograd.grad(
        get_objective("grao", explore=0.0, contrast=0.0, imitate=1.0)(lists).sum(), leaf
    )
    advantage = (lists.scores - lists.scores.mean(-1, keepdim=True)) / (
        lists.scores.std(-1, keepdim=True) + 1e-4
    )
    answer = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 0]])
    torch.testing.assert_close(ours, -advantage * answer / lists.length)
