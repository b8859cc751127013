"""Proof of S037, ADPA (and DCKD): a small student gets more of the teacher's advantage than from pairs alone.

A token lab: 8 tokens, 6 steps, 4 prompts. The teacher's reference is random; the teacher is it plus 1.5 times a random
advantage in every state, normalised: what preference alignment did to it. The student is too small for either: its
logits are a product of rank 3. Pairs are two answers of the teacher's reference, the one of larger advantage chosen.
All methods take the same pairs, steps and learning rate. Measured, exactly: the expected sum of the teacher's
advantages over an answer of the student, at the end of the same number of steps.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from accordance.core.objective import PairLogps
from accordance.lab.tabular import TokenTable, descend
from accordance.objectives import get_objective

PROMPTS, STEPS, TOKENS, PAIRS = 4, 6, 8, 400
SEEDS = range(3)


class LowRank(TokenTable):
    """A token table whose logits are a product of rank 3 over all states and tokens."""

    def __init__(self, seed: int) -> None:
        super().__init__(torch.zeros(PROMPTS, STEPS, TOKENS + 1, TOKENS, dtype=torch.float64))
        del self.logits
        g = torch.Generator().manual_seed(seed)
        self.states = nn.Parameter(torch.randn(PROMPTS, STEPS, TOKENS + 1, 3, generator=g, dtype=torch.float64))
        self.tokens = nn.Parameter(0.3 * torch.randn(3, TOKENS, generator=g, dtype=torch.float64))

    @property
    def log_probs(self) -> Tensor:
        return (self.states @ self.tokens).log_softmax(-1)


class World:
    """Teacher, its reference, its pairs, and the advantage in every state."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        shape = (PROMPTS, STEPS, TOKENS + 1, TOKENS)
        before = torch.randn(shape, generator=g, dtype=torch.float64)
        before[..., -1] = -4  # answers rarely end before the last step
        self.before = TokenTable(before).frozen()
        bonus = 1.5 * torch.randn(shape, generator=g, dtype=torch.float64)
        self.teacher = TokenTable(before + bonus).frozen()
        self.prompt = torch.arange(PROMPTS).repeat(PAIRS // PROMPTS)
        answers = [self.before.sample(self.prompt, generator=g) for _ in range(2)]
        worth = [self.teacher.logp(self.prompt, a) - self.before.logp(self.prompt, a) for a in answers]
        first = (worth[0] >= worth[1])[:, None]
        self.chosen = torch.where(first, *answers)
        self.rejected = torch.where(first, *answers[::-1])

    def advantage(self, student: TokenTable) -> float:
        """Expected sum of the teacher's advantages over an answer of the student."""
        with torch.no_grad():
            gain = (student.log_probs.exp() * (self.teacher.log_probs - self.before.log_probs)).sum(-1)
            return float((student.visits() * gain).sum((-2, -1)).mean())


@cache
def world(seed: int) -> World:
    return World(seed)


def fit(student: TokenTable, objective: Any, pairs: Any, steps: int = 150) -> None:
    descend(student, lambda: objective(pairs()).mean(), steps=steps, learning_rate=0.05)


def bundle(student: TokenTable, made: World, rejected: Tensor | None = None, **tables: Any) -> PairLogps:
    others = tables or {"teacher": made.teacher, "teacher_ref": made.before}
    return student.pairs(made.prompt, made.chosen, made.rejected if rejected is None else rejected, **others)


@cache
def start(seed: int, how: str = "adpa") -> LowRank:
    """A student after likelihood on the chosen answers, and after DCKD where that is named."""
    student = LowRank(seed)
    if how == "dckd":
        student.load_state_dict(start(seed).state_dict())
    objective = get_objective("dckd") if how == "dckd" else get_objective("adpa", gamma=0.0)
    fit(student, objective, lambda: bundle(student, world(seed)))
    return student


@cache
def trained(seed: int, how: str) -> LowRank:
    made, student = world(seed), LowRank(seed)
    before = start(seed, "dckd" if how == "adpa+" else "adpa")
    if how == "dckd":
        return start(seed, "dckd")
    student.load_state_dict(before.state_dict())
    own = before.sample(made.prompt, generator=torch.Generator().manual_seed(100 + seed))
    if how == "dpo":
        fit(student, get_objective("dpo"), lambda: bundle(student, made, ref=before.frozen()))
    elif how == "sft":
        fit(student, get_objective("adpa", gamma=0.0), lambda: bundle(student, made))
    elif how == "shuffled":
        order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(seed))
        gap = made.teacher.log_probs - made.before.log_probs
        wrong = {"teacher": TokenTable(made.before.log_probs + gap[..., order]), "teacher_ref": made.before}
        fit(student, get_objective("adpa"), lambda: bundle(student, made, own, **wrong))
    else:
        fit(student, get_objective("adpa"), lambda: bundle(student, made, own))
    return student


@cache
def advantage(seed: int, how: str) -> float:
    return world(seed).advantage(trained(seed, how))


@pytest.mark.parametrize("seed", SEEDS)
def test_adpa_gains_more_than_imitation_and_than_matching_distributions(seed):
    assert advantage(seed, "adpa") >= advantage(seed, "dckd") + 1.0
    assert advantage(seed, "adpa") >= advantage(seed, "sft") + 1.0
    assert advantage(seed, "dckd") >= advantage(seed, "sft") + 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_starting_from_the_dckd_student_gains_more_still(seed):
    assert advantage(seed, "adpa+") >= advantage(seed, "adpa") + 0.1
    assert advantage(seed, "adpa+") <= world(seed).advantage(world(seed).teacher)


def test_on_average_adpa_gains_more_than_dpo_and_an_advantage_of_other_tokens_gains_nothing():
    def mean(how: str) -> float:
        return sum(advantage(seed, how) for seed in SEEDS) / len(SEEDS)

    assert mean("adpa") >= mean("dpo") + 0.3
    assert mean("shuffled") <= mean("sft") + 0.5


def test_without_an_advantage_it_is_likelihood_to_the_last_bit():
    made, student = world(0), start(0)
    plain = bundle(student, made, teacher=made.before, teacher_ref=made.before)
    expected = get_objective("sft")(student.single(made.prompt, made.chosen)) / student.length(
        made.prompt, made.chosen
    )
    assert torch.equal(get_objective("adpa", gamma=0.7)(plain), expected)


def test_with_the_advantage_on_one_token_the_gradient_is_that_of_reinforce_in_expectation():
    """Sum over tokens v of pi(v) A(v) grad log pi(v), with A one-hot: what samples would give on average."""
    made, student, lucky = world(0), start(0), 3
    bonus = torch.zeros(TOKENS, dtype=torch.float64)
    bonus[lucky] = 2.0
    tables = TokenTable(made.before.log_probs + bonus), made.before
    # log_softmax takes a constant per state off the advantage, which has no gradient in expectation.
    pairs = bundle(student, made, teacher=tables[0], teacher_ref=tables[1])
    tokens = pairs.tokens
    assert tokens is not None and tokens.advantage is not None
    ours = torch.autograd.grad(tokens.advantage.sum(), list(student.parameters()), allow_unused=True)
    both = torch.stack([made.chosen, made.rejected], 1).flatten(0, 1)
    rows = student.distributions(made.prompt.repeat_interleave(2), both)[both >= 0]
    reinforce = (rows.exp().detach() * bonus * rows).sum()
    for a, b in zip(ours, torch.autograd.grad(reinforce, list(student.parameters()), allow_unused=True)):
        torch.testing.assert_close(a, b)
