"""Proof of S144, MORA: prompts that earn one reward are found; training on rewrites that earn two earns more of both.

Answers have a level of help and of care from 0 to 4; a prompt shows which of them it calls for. What it does not call
for hardly varies, and what does vary runs against the other (a risky how-to: the more help, the less care). Half of
the prompts call for one thing only. A policy with one softmax for all prompts is trained on the sum of normalised
rewards, the same number of steps on the prompts as they are, as expanded, and as rewritten without a further call.
It is the speed that differs: this world's best answer is the same for all, so with many steps the lead melts away.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch

from accordance.core.policy import Completion
from accordance.core.scorer import FunctionScorer
from accordance.curation.mora import Expansion, Scale, diagnose, expand
from accordance.lab.tabular import TabularPolicy, descend

SEEDS = range(3)
PROMPTS, LEVELS = 120, 5
CALLS = {"help": "[help]", "care": "[care]"}
LEVEL = torch.cartesian_prod(
    torch.arange(LEVELS), torch.arange(LEVELS)
).double()  # help and care of each answer


def reward(name: str, prompt: str, help: float, care: float) -> float:
    """What is called for is paid; what is not, is average, and falls a little with what is."""
    own, other = (help, care) if name == "help" else (care, help)
    return own if CALLS[name] in prompt else 2.0 - 0.1 * other


def scorer(name: str) -> FunctionScorer:
    def score(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        levels = [tuple(map(float, re.findall(r"\d", text))) for text in completions]
        return [reward(name, prompt, *both) for prompt, both in zip(prompts, levels)]

    return FunctionScorer(score, name)


class Writer:
    """Writes answers of random levels."""

    name = "writer"

    def generate(self, prompts, *, n=1, max_new_tokens=256, temperature=1.0, top_p=1.0, seed=0):
        g = np.random.default_rng(seed)
        return [[Completion(f"help {a} care {b}") for a, b in g.integers(LEVELS, size=(n, 2))] for _ in prompts]


class Rewriter:
    """Adds what is missing; or, as a control, only words."""

    def __init__(self, adds: bool = True) -> None:
        self.adds = adds

    def rewrite(self, prompts: Sequence[str], missing: Sequence[Sequence[str]], attempt: int) -> list[str]:
        return [f"{p} {CALLS[m[0]] if self.adds else 'please'}" for p, m in zip(prompts, missing)]


@cache
def world(seed: int) -> tuple[list[str], np.ndarray]:
    """Prompts, and which of them call for one thing only: three in four of those for help."""
    g = np.random.default_rng(seed)
    single = g.permutation(PROMPTS) < PROMPTS // 2
    calls = [f"{CALLS['help' if g.random() < 0.75 else 'care']}" if one else "[help] [care]" for one in single]
    return [f"how would I do the thing called number {i} today {c}" for i, c in enumerate(calls)], single


@cache
def expanded(seed: int, adds: bool = True) -> Expansion:
    scorers = {name: scorer(name) for name in CALLS}
    return expand(world(seed)[0], Writer(), scorers, Rewriter(adds), samples=16, seed=seed)


def table(prompts: Sequence[str]) -> np.ndarray:
    """Rewards of every answer to every prompt, shape [prompts, answers, 2]."""
    return np.array([[[reward(n, p, *both) for n in CALLS] for both in LEVEL.tolist()] for p in prompts])


def trained(seed: int, prompts: Sequence[str]) -> float:
    """The lesser of the two rewards on other prompts (each where it is called for), after training on these ones."""
    scale = Scale.of(table(world(seed)[0]))
    worth = torch.tensor(scale(table(prompts)).sum(2).mean(0))[None]
    policy = TabularPolicy(torch.zeros(1, LEVELS**2, dtype=torch.float64))
    descend(policy, lambda: -policy.expected(worth).mean(), steps=25, learning_rate=0.5, method="gradient")
    test, _ = world(seed + 100)
    earned = (table(test) * policy.probs.detach()[0].numpy()[None, :, None]).sum(1)
    return min(
        float(np.mean([e[k] for p, e in zip(test, earned) if CALLS[n] in p])) for k, n in enumerate(CALLS)
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_prompts_that_earn_one_reward_are_found(seed):
    found, planted = expanded(seed).before.single, world(seed)[1]
    f1 = 2 * (found & planted).sum() / (found.sum() + planted.sum())
    assert f1 > 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_rewritten_prompts_earn_both_and_the_rewards_stop_running_against_each_other(seed):
    e = expanded(seed)
    assert np.mean([r.kept for r in e.rewrites]) > 0.9 and e.after.single.mean() < 0.1
    rewritten = [r.index for r in e.rewrites if r.kept]
    conflict = np.nanmean(e.after.conflict[rewritten]) - np.nanmean(e.before.conflict[rewritten])
    assert conflict > 0.2
    assert e.after.diversity[rewritten].mean() > e.before.diversity[rewritten].mean() + 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_training_on_expanded_prompts_earns_more_of_the_lesser_reward_and_mere_rewording_does_not(seed):
    before, after = trained(seed, world(seed)[0]), trained(seed, expanded(seed).prompts)
    reworded = [p if p == q else f"{p} please" for p, q in zip(world(seed)[0], expanded(seed).prompts)]
    assert after > 1.1 * before
    assert abs(trained(seed, reworded) - before) < 0.02 * before


@pytest.mark.parametrize("seed", SEEDS)
def test_rewording_is_not_taken_for_a_rewrite(seed):
    e = expanded(seed, False)
    assert np.mean([r.kept for r in e.rewrites]) < 0.1
    assert {r.reason for r in e.rewrites if not r.kept} <= {
        "no further dimension became active",
        "a dimension's top fell",
    }


def test_conflict_is_within_prompts_not_across_them():
    g = np.random.default_rng(0)
    offset = g.normal(size=(40, 1, 1)) * [5.0, -5.0]  # across prompts the two run against each other
    quality = g.normal(size=(40, 16, 1)) * [1.0, 1.0]  # within one they go together
    assert np.nanmean(diagnose(offset + quality).conflict) > 0.9


def test_a_dimension_that_varies_only_below_average_is_not_one_to_earn():
    g = np.random.default_rng(0)
    rewards = g.normal(size=(40, 64, 2))
    rewards[:20, :, 1] -= 4.0
    active = diagnose(rewards).active
    assert active[:20, 0].all() and not active[:20, 1].any() and active[20:].all()


@pytest.mark.parametrize("seed", SEEDS)
def test_pairs_and_the_sequence_use_prompts_on_which_both_are_active(seed):
    e = expanded(seed)
    pairs = e.training_pairs()
    assert len(pairs) == (~e.after.single).sum()
    for record in pairs:
        value = record.judgments[0].values
        assert value[0] != value[1] and len(record.extras["active"]) == 2
    first, second = e.protecting(["help", "care"])
    assert set(second) <= set(first) and all(e.after.active[i].all() for i in second)
