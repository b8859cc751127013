"""Proof of S069, Community Alignment: what candidate sets never contain can't be learnt from choices among them;
candidates that are written to differ can teach it.

A policy over five value positions, -2 to 2, that nearly always stands a little to one side, is trained by DPO on
choices of its own candidates: drawn independently, at a higher temperature, or negatively correlated.
"""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest
import torch

from accordance.core.record import Account, Record, Records, user
from accordance.feedback.candidates import (
    CandidateSampler,
    DiverseSampler,
    IndependentSampler,
    JointSampler,
    coverage,
    diverse_subset,
    independent_coverage,
)
from accordance.feedback.synthesis import SampleAndRank
from accordance.lab import world
from accordance.lab.assistants import LabWriter
from accordance.lab.tabular import TabularPolicy, descend
from accordance.objectives import get_objective

P, K, SEEDS, RATE = 60, 4, 5, 120.0
POSITIONS = torch.arange(-2, 3)
DEFAULT = torch.tensor([0.001, 0.009, 0.06, 0.85, 0.08], dtype=torch.float64)
RARE = slice(0, 2)


def independent(g: torch.Generator, temperature: float = 1.0) -> torch.Tensor:
    """Candidate sets of independent draws, shape [P, K]."""
    probs = (DEFAULT.log() / temperature).softmax(-1)
    return torch.multinomial(probs.expand(P, -1), K, replacement=True, generator=g)


def apart(g: torch.Generator) -> torch.Tensor:
    """Negatively correlated sets: three that differ most, of twelve draws at a high temperature, and a default one."""
    pool = torch.multinomial((DEFAULT.log() / 4).softmax(-1).expand(P, -1), 12, replacement=True, generator=g)
    default = torch.multinomial(DEFAULT.expand(P, -1), 1, replacement=True, generator=g)
    rows = []
    for row in pool:
        near = np.exp(-np.abs(row[:, None] - row[None, :]).numpy() / 2.0)
        rows.append(row[diverse_subset(near, np.zeros(12), K - 1, 1.0)])
    return torch.cat([torch.stack(rows), default], 1)


def learnt(sets: torch.Tensor, direction: int, seed: int) -> float:
    """How often the trained policy's answer is further in a direction than the start's (ties half)."""
    policy = TabularPolicy(DEFAULT.log().expand(P, -1).clone())
    start = policy.frozen()
    value = POSITIONS[sets] * direction
    best = value.argmax(1, keepdim=True)
    chosen, rejected = (
        sets.gather(1, best).expand(-1, K).flatten(),
        sets.flatten(),
    )  # the choice against each other one
    useful = chosen != rejected
    prompt = torch.arange(P).repeat_interleave(K)[useful]
    chosen, rejected = chosen[useful], rejected[useful]
    objective = get_objective("dpo", beta=0.1)
    if len(chosen):
        descend(
            policy,
            lambda: objective(policy.pairs(prompt, chosen, rejected, ref=start)).sum() / (P * K),
            steps=100,
            learning_rate=RATE,
            method="gradient",
        )
    order = torch.sign((POSITIONS[:, None] - POSITIONS[None, :]) * direction).double() * 0.5 + 0.5
    return policy.win_rate(start, order).mean().item()


@cache
def rates(kind: str, direction: int) -> float:
    draw = {"independent": independent, "apart": apart, "warm": lambda g: independent(g, 1.5)}[kind]
    return float(np.mean([learnt(draw(torch.Generator().manual_seed(s)), direction, s) for s in range(SEEDS)]))


def covered(sets: torch.Tensor) -> float:
    return float((sets < 2).any(1).double().mean())


def test_coverage_of_independent_sets_is_as_the_formula_says():
    g = torch.Generator().manual_seed(0)
    drawn = torch.cat([independent(g) for _ in range(300)])
    formula = independent_coverage(float(DEFAULT[RARE].sum()), K)
    assert covered(drawn) == pytest.approx(formula, abs=0.02) and formula < 0.05


def test_candidates_that_differ_teach_the_disfavoured_side_and_lose_nothing_on_the_other():
    assert rates("apart", -1) >= 0.70 and rates("apart", -1) >= rates("independent", -1) + 0.08
    assert rates("apart", 1) >= rates("independent", 1)


def test_temperature_covers_little_and_closes_less_than_60_percent_of_the_gap():
    g = torch.Generator().manual_seed(0)
    warm = covered(torch.cat([independent(g, 1.5) for _ in range(100)]))
    assert 0.08 < warm < 0.2 and covered(apart(g)) > 0.8
    closed = (rates("warm", -1) - rates("independent", -1)) / (rates("apart", -1) - rates("independent", -1))
    assert closed < 0.6


def taste_prompts(n: int = 60) -> Records:
    rng = random.Random(0)
    asked = list(dict.fromkeys(world.sample_prompt(rng, "taste") for _ in range(4 * n)))[:n]
    return Records.of([Record(user(p), id=str(i)) for i, p in enumerate(asked)])


def sets(sampler: CandidateSampler) -> Records:
    method = SampleAndRank(sampler, None)
    drafts = method.drafts(taste_prompts(), Account())
    sampler.fill(drafts, Account())
    assert all(draft.dropped is None for draft in drafts)
    return Records.of([draft.record() for draft in drafts])


def stance(prompt: str, text: str) -> dict[str, float]:
    axis = world.parse(prompt).point
    return {"pole": world.attributes(prompt, text)[axis]}


def test_jointly_written_answers_cover_the_side_that_a_one_sided_writer_never_takes_and_a_disguise_does_not():
    """The writer takes the calm and the old side by itself; asked to write several, it can show others."""
    one_sided = LabWriter(manner={"calm": 1.0, "old": 1.0})
    alone = coverage(sets(IndependentSampler(one_sided, 4)), stance).values
    joint = coverage(sets(JointSampler(one_sided, 3, 1)), stance).values
    assert alone["coverage_pole_low"] < 0.3 and joint["coverage_pole_low"] > 0.8
    assert joint["coverage_pole_high"] > 0.8 and joint["similarity"] < alone["similarity"]
    disguised = JointSampler(LabWriter(manner={"calm": 1.0, "old": 1.0}, obedience=0.0), 3, 1)
    assert coverage(sets(disguised), stance).values["coverage_pole_low"] < 0.3


def test_a_diverse_choice_from_a_mixed_writer_covers_more_than_independent_draws():
    mixed = LabWriter()
    four = coverage(sets(IndependentSampler(mixed, 4)), stance).values
    chosen = coverage(sets(DiverseSampler(IndependentSampler(mixed, 12), 4)), stance).values
    assert chosen["similarity"] < four["similarity"]
    assert min(chosen["coverage_pole_low"], chosen["coverage_pole_high"]) >= min(
        four["coverage_pole_low"], four["coverage_pole_high"]
    )
    assert four["independent_pole_low"] == pytest.approx(four["coverage_pole_low"], abs=0.12)
