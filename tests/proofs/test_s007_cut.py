"""Proof of S007, CUT: critiques tell which tokens were wrong, and those tokens alone become rare.

A token table: 2 questions, answers of 12 tokens. At three places a fact stands, and the base policy errs there half
the time; elsewhere it chooses freely between two synonyms. A scripted judge names the places that are wrong (one
prompt row per question and set of places). The policy first learns the judge's language from criticised answers,
then is trained with CUT on the same 4000 answers.

The spec's comparison with likelihood on good answers alone is not made: in a table, every answer that has no error
teaches the facts outright. Compared is likelihood of all answers, which needs no judge either.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from accordance.core.objective import PairLogps, Tokens
from accordance.lab.tabular import TokenTable, descend
from accordance.objectives import cut, flagged_tokens, get_objective

QUESTIONS, STEPS, ANSWERS = 2, 12, 4000
FACTS = torch.tensor([2, 6, 9])
RIGHT, WRONG, SYNONYMS, END = 0, 1, (2, 3), 4
SEEDS = range(2)


@dataclass
class World:
    """Answers of the base policy, what the judge says of them, and the policy once it knows that language."""

    policy: TokenTable
    question: Tensor
    judged: Tensor
    answer: Tensor

    @property
    def wrong(self) -> Tensor:
        """Which tokens are wrong, [answers, steps]."""
        wrong = torch.zeros_like(self.answer, dtype=torch.bool)
        wrong[:, FACTS] = self.answer[:, FACTS] == WRONG
        return wrong


def base_policy() -> TokenTable:
    """Rows 8 q + s: question q with the judgment that the places in set s are wrong; s = 0 is no judgment."""
    logits = torch.full((8 * QUESTIONS, STEPS, 6, 5), -8.0, dtype=torch.float64)
    logits[..., SYNONYMS] = 0.0
    for place in FACTS:
        logits[:, place] = -8.0
        logits[:, place, :, [RIGHT, WRONG]] = 0.0
    logits[:, STEPS - 1] = -8.0
    logits[:, STEPS - 1, :, END] = 0.0
    return TokenTable(logits)


def bundle(policy: TokenTable, question: Tensor, judged: Tensor, answer: Tensor) -> PairLogps:
    """Each answer with its critique in front of it and without."""
    rows = torch.stack([judged, 8 * question], 1).flatten()
    both = answer.repeat_interleave(2, 0)
    values = policy.token_logps(rows, both)
    kept = both >= 0
    sums, lengths = values.sum(-1).view(-1, 2), kept.sum(-1).view(-1, 2)
    row = torch.arange(len(both))[:, None].expand_as(both)[kept]
    good = (judged % 8 == 0).double()
    return PairLogps(*sums.T, *lengths.T, tokens=Tokens(values[kept], row), extras={"satisfactory": good})


@cache
def world(seed: int, shuffled: bool = False) -> World:
    g = torch.Generator().manual_seed(seed)
    policy = base_policy()
    question = torch.randint(QUESTIONS, (ANSWERS,), generator=g)
    answer = policy.sample(8 * question, generator=g)
    says = ((answer[:, FACTS] == WRONG) * torch.tensor([1, 2, 4])).sum(-1)
    if shuffled:
        says = says[torch.randperm(ANSWERS, generator=g)]
    made = World(policy, question, 8 * question + says, answer)
    sft = get_objective("sft")
    descend(policy, lambda: sft(policy.single(made.judged, answer)).mean(), steps=150, learning_rate=0.1)
    return made


def error_rate(policy: TokenTable) -> float:
    """Probability of a wrong token where a fact stands, without any judgment."""
    plain = torch.arange(0, 8 * QUESTIONS, 8)
    visits = policy.visits()[plain][:, FACTS]
    return (visits * policy.log_probs.exp()[plain][:, FACTS][..., WRONG]).sum(-1).mean().item()


def surprise(policy: TokenTable) -> float:
    """Perplexity per token of its answers under the base policy."""
    g, rows = torch.Generator().manual_seed(0), torch.arange(0, 8 * QUESTIONS, 8).repeat(40)
    answer = policy.sample(rows, generator=g)
    ref = base_policy()
    return (-ref.logp(rows, answer).sum() / ref.length(rows, answer).sum()).exp().item()


@cache
def trained(seed: int, how: str) -> TokenTable:
    made = world(seed, shuffled=how == "shuffled")
    policy = TokenTable(made.policy.logits)
    if how == "likelihood":
        sft = get_objective("sft")
        loss = lambda: sft(policy.single(8 * made.question, made.answer)).mean()  # noqa: E731
    else:
        objective = cut(threshold=1e-9) if how == "everything" else cut()
        loss = lambda: objective(bundle(policy, made.question, made.judged, made.answer)).mean()  # noqa: E731
    descend(policy, loss, steps=100, learning_rate=0.05)
    return policy


@cache
def untaught(seed: int) -> TokenTable:
    """CUT from a policy that does not know the judge's language yet."""
    made, policy = world(seed), base_policy()
    objective = cut()
    loss = lambda: objective(bundle(policy, made.question, made.judged, made.answer)).mean()  # noqa: E731
    descend(policy, loss, steps=100, learning_rate=0.1)
    return policy


def f1(flags: Tensor, truth: Tensor) -> float:
    return (2 * (flags & truth).sum() / (flags.sum() + truth.sum())).item()


@pytest.mark.parametrize("seed", SEEDS)
def test_flags_fall_on_the_wrong_tokens(seed):
    made = world(seed)
    bad = made.judged % 8 > 0
    pairs = bundle(made.policy, made.question[bad], made.judged[bad], made.answer[bad])
    flags, truth = flagged_tokens(pairs), made.wrong[bad][made.answer[bad] >= 0]
    order = torch.randperm(len(flags), generator=torch.Generator().manual_seed(seed))
    assert f1(flags, truth) >= 0.6
    assert f1(flags[order], truth) <= 0.25


@pytest.mark.parametrize("seed", SEEDS)
def test_wrong_facts_become_half_as_frequent_and_without_the_judge_they_do_not(seed):
    before = error_rate(base_policy())
    assert error_rate(trained(seed, "cut")) < 0.5 * before
    assert error_rate(trained(seed, "likelihood")) > 0.9 * before


@pytest.mark.parametrize("seed", SEEDS)
def test_with_critiques_of_other_answers_the_gain_vanishes(seed):
    before = error_rate(base_policy())
    assert error_rate(trained(seed, "shuffled")) > 0.7 * before


@pytest.mark.parametrize("seed", SEEDS)
def test_unlikelihood_of_the_whole_answer_costs_fluency(seed):
    assert surprise(trained(seed, "everything")) > 1.2 * surprise(trained(seed, "cut"))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_judges_language_is_learned_on_the_way_from_answers_under_their_critiques(seed):
    """A policy to which critiques say nothing comes to expect the errors that they name, and those alone."""
    made = world(seed)
    bad = made.judged % 8 > 0
    named, facts = made.wrong[bad][:, FACTS], torch.zeros_like(made.wrong[bad])
    facts[:, FACTS] = True
    for policy, errs, keeps in ((base_policy(), 0.5, 0.5), (untaught(seed), 0.9, 0.9)):
        likely = policy.token_logps(made.judged[bad], made.answer[bad]).exp()[facts].view(named.shape)
        assert likely[named].mean().item() == pytest.approx(errs, abs=0.1)
        assert likely[~named].mean().item() == pytest.approx(keeps, abs=0.1)
