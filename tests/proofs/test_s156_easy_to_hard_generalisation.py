"""Proof of S156: an evaluator trained on easy problems ranks and teaches hard ones, where the generator fails.

A solution is a row of steps, each right with its own six noisy features; easy problems have three steps, hard ones
seven (re-ranking) or six (learning) and features that are a little shifted. Wrong solutions mostly arrive at one
and the same wrong answer. The process reward model is a logistic regression on single steps of easy problems, the
outcome reward model one on the means of the steps so far, trained on whether the end is right.

Learning: a step is of one of eight kinds with four choices each; easy problems have the first four kinds only. The
policy is a table over kinds, so that imitation of easy solutions teaches nothing about the other kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from accordance.core.objective import ListLogps
from accordance.core.selection import best_of, solution_score, vote
from accordance.objectives import rloo
from accordance.training.process_rewards import process_rewards
from accordance.training.weak_to_strong import Logistic

SEEDS = range(3)
SIGNAL, SHIFT = 1.7, 0.3


def features(right: np.ndarray, g: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """Six features of each step; `right` of any shape."""
    direction = np.ones(6) * SIGNAL
    return np.where(right[..., None], 1.0, -1.0) * direction / 2 + g.normal(size=(*right.shape, 6)) + shift


def evaluate(model: Logistic, steps: np.ndarray) -> np.ndarray:
    """Probabilities of the steps, in the shape of `steps` without its last dimension."""
    return model.predict_proba(steps.reshape(-1, 6))[:, 1].reshape(steps.shape[:-1])


def so_far(steps: np.ndarray) -> np.ndarray:
    """Mean of the features up to each step."""
    return steps.cumsum(-2) / np.arange(1, steps.shape[-2] + 1)[:, None]


@dataclass(frozen=True)
class Evaluators:
    process: Logistic
    outcome: Logistic


def trained(g: np.random.Generator) -> Evaluators:
    """On 300 easy problems with four solutions each."""
    right = g.random((1200, 3)) < 0.8
    seen = features(right, g)
    process = Logistic(steps=300).fit(seen.reshape(-1, 6), right.ravel().astype(float))
    ends = np.repeat(right.all(1), 3).astype(float)
    return Evaluators(process, Logistic(steps=300).fit(so_far(seen).reshape(-1, 6), ends))


@cache
def hard_accuracy(seed: int, n: int = 32) -> dict[str, float]:
    """Share of 300 hard problems that each way to choose among n samples gets right."""
    g = np.random.default_rng(seed)
    judges = trained(g)
    right = g.random((300, n, 7)) < 0.8
    seen = features(right, g, SHIFT)
    solved = right.all(-1)
    answers = np.where(solved, 0, np.where(g.random(solved.shape) < 0.9, 1, 2 + g.integers(0, 5, solved.shape)))
    process = evaluate(judges.process, seen)
    outcome = evaluate(judges.outcome, so_far(seen))[..., -1]
    rows = []
    for steps, ends, given in zip(process, outcome, answers):
        scores = {how: [solution_score(s, how) for s in steps.tolist()] for how in ("product", "min")}
        rows.append(
            {
                "pass@1": float((given == 0).mean()),
                "majority": float(vote(given.tolist()) == 0),
                "process best of n": float(given[best_of(scores["product"])] == 0),
                "process vote": float(vote(given.tolist(), scores["product"]) == 0),
                "process vote by min": float(vote(given.tolist(), scores["min"]) == 0),
                "outcome best of n": float(given[best_of(ends.tolist())] == 0),
                "outcome vote": float(vote(given.tolist(), ends.tolist()) == 0),
            }
        )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def mean(name: str) -> float:
    return float(np.mean([hard_accuracy(seed)[name] for seed in SEEDS]))


def test_the_process_model_of_easy_problems_chooses_best_among_solutions_of_hard_ones():
    assert mean("process vote") >= mean("outcome best of n") + 0.05
    assert mean("outcome best of n") >= mean("pass@1") + 0.30
    assert mean("process best of n") >= mean("outcome best of n")


def test_where_wrong_answers_agree_a_majority_is_wrong_and_weights_put_it_right():
    assert mean("majority") < mean("pass@1")
    assert mean("process vote") > mean("outcome vote") + 0.3


@pytest.mark.parametrize("probs", [[0.9, 0.8], [0.9, 0.2, 0.7, 0.1], [0.6, 0.5, 0.4]])
def test_process_rewards_add_up_to_the_worst_step(probs):
    assert sum(process_rewards(probs)) == pytest.approx(min(0.5, *probs) - 0.5 + 0.25)
    product = float(np.prod(probs))
    assert sum(process_rewards(probs, "prod")) == pytest.approx(min(0.5, product) - 0.5 + 0.25)


# Learning on hard problems

KINDS, CHOICES, EASY, HARD = 8, 4, 3, 6


class Steps(nn.Module):
    """Choices of each kind of step; choice 0 is right."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(KINDS, CHOICES))

    def logp(self, kinds: Tensor, chosen: Tensor) -> Tensor:
        """Of whole solutions, in the shape of `chosen` without its last dimension."""
        return self.logits.log_softmax(-1)[kinds, chosen].sum(-1)

    def solve(self, kinds: Tensor, n: int, g: torch.Generator) -> Tensor:
        probs = self.logits.detach().softmax(-1)[kinds]
        return (
            torch.multinomial(probs.flatten(0, 1), n, True, generator=g).view(*kinds.shape, n).transpose(1, 2)
        )

    def hard_accuracy(self) -> float:
        """Probability that six steps of random kinds are all right, exact."""
        return float(self.logits.detach().softmax(-1)[:, 0].mean() ** HARD)


def imitated(g: torch.Generator) -> Steps:
    """From 30 right solutions of easy problems."""
    policy, kinds = Steps(), torch.randint(0, KINDS // 2, (30, EASY), generator=g)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (-policy.logp(kinds, torch.zeros_like(kinds)).mean()).backward()
        optimizer.step()
    return policy


@cache
def reinforced(seed: int, how: str) -> tuple[float, float]:
    """Hard accuracy before and after 150 steps of RLOO."""
    g, noise = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    judge, policy = trained(noise).process, imitated(g)
    before, objective = policy.hard_accuracy(), rloo(beta=0.0)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    for _ in range(150):
        many, length = (KINDS, HARD) if how != "easy outcomes" else (KINDS // 2, EASY)
        kinds = torch.randint(0, many, (16, length), generator=g)
        chosen = policy.solve(kinds, 8, g)
        right = (chosen == 0).numpy()
        if how == "easy outcomes":
            reward = right.all(-1).astype(float)
        else:
            probs = evaluate(judge, features(right, noise, SHIFT))
            if how == "reward turned over":
                probs = 1 - probs
            reward = np.array([[sum(process_rewards(p)) for p in row] for row in probs.tolist()])
        logp = policy.logp(kinds[:, None].expand_as(chosen), chosen)
        lists = ListLogps(
            logp,
            torch.full(logp.shape, length),
            torch.ones(logp.shape, dtype=torch.bool),
            torch.tensor(reward, dtype=logp.dtype),
            old=logp.detach(),
        )
        optimizer.zero_grad()
        objective(lists).mean().backward()
        optimizer.step()
    return before, policy.hard_accuracy()


def test_process_rewards_teach_hard_problems_and_neither_imitation_nor_easy_outcomes_do():
    taught = np.array([reinforced(seed, "process") for seed in SEEDS])
    outcomes = np.array([reinforced(seed, "easy outcomes") for seed in SEEDS])
    assert taught[:, 1].mean() > taught[:, 0].mean() + 0.10
    assert taught[:, 1].mean() > outcomes[:, 1].mean() + 0.10


def test_an_evaluator_that_prefers_wrong_steps_teaches_the_wrong_thing():
    found = [reinforced(seed, "reward turned over") for seed in SEEDS]
    assert np.mean([after for _, after in found]) < np.mean([before for before, _ in found])
