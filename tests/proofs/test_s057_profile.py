"""Proof of S057, PROFILE: scores rank planted weights, and a model writes further from people than it judges.

The writer is a table: five levels of quality x 300 texts with eight ternary factors. It writes "better" texts mostly
by making them longer; as a judge it follows the people's weights.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from accordance.analysis import Differences, PairTable, shuffled
from accordance.analysis.profile import Alignment, Profile, align_profiles, profile
from accordance.lab.tabular import TabularPolicy, descend
from accordance.objectives import get_objective

PEOPLE = np.array([1.6, 0.9, 0.5, 0.2, 0.0, 0.0, -0.6, -1.2])
WRITER = np.array([0.2, -0.2, 0.1, 0.4, 0.3, 1.8, 0.2, -0.3])
NAMES = ("intent", "facts", "fluent", "formal", "null a", "length", "off topic", "made up")
TEXTS, LEVELS = 300, 5


def table(label: np.ndarray) -> PairTable:
    n = len(label)
    return PairTable.of([f"p{i}" for i in range(n)], ["a"] * n, ["b"] * n, label.astype(float))


def judged(x: np.ndarray, weights: np.ndarray, g: np.random.Generator) -> PairTable:
    return table(g.random(len(x)) < 1 / (1 + np.exp(-(x @ weights))))


def profiled(comparisons: PairTable, x: np.ndarray) -> Profile:
    return profile(comparisons, Differences(NAMES, x), samples=50)


@pytest.mark.parametrize("seed", range(3))
def test_scores_rank_planted_weights_and_null_factors_score_nothing(seed):
    g = np.random.default_rng(seed)
    x = (g.integers(-1, 2, (3000, 8)) - g.integers(-1, 2, (3000, 8))).astype(float)
    comparisons = judged(x, PEOPLE, g)
    tau = profiled(comparisons, x).scores
    strong = [i for i in range(8) if PEOPLE[i] != 0]
    assert np.argsort(tau[strong]).tolist() == np.argsort(PEOPLE[strong]).tolist()
    assert np.abs(tau[PEOPLE == 0]).max() < 0.05 < tau[0]
    assert np.abs(profiled(shuffled(comparisons, seed), x).scores).max() < 0.06


@cache
def lab(seed: int) -> tuple[Alignment, Alignment, Alignment]:
    """Likeness to people of the judge, of the writer, and of the writer after DPO on what the judge picked."""
    g, torch_g = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    factors = g.integers(-1, 2, (TEXTS, 8)).astype(float)
    a, b = g.integers(TEXTS, size=(2, 4000))
    human = profiled(judged(factors[a] - factors[b], PEOPLE, g), factors[a] - factors[b])
    judge = profiled(judged(factors[a] - factors[b], PEOPLE, g), factors[a] - factors[b])
    want = torch.arange(LEVELS, dtype=torch.float64) - (LEVELS - 1) / 2
    writer = TabularPolicy(0.5 * want[:, None] * torch.from_numpy(factors @ WRITER)[None, :])

    def writes(policy: TabularPolicy, many: int) -> Tensor:
        return torch.multinomial(policy.log_probs.exp(), many, replacement=True, generator=torch_g)

    def generates(policy: TabularPolicy) -> Profile:
        texts = writes(policy, 400).numpy()
        high, low = np.triu_indices(LEVELS, 1)[::-1]
        x = (factors[texts[high]] - factors[texts[low]]).reshape(-1, 8)
        return profiled(table(np.ones(len(x))), x)

    before = generates(writer)
    reference = writer.frozen()
    one, other = writes(writer, 3000), writes(writer, 3000)
    better = torch.from_numpy(factors @ PEOPLE)
    # At a low level the judge picks the text that is worse in its own eyes.
    first = torch.rand(one.shape, generator=torch_g) < (want[:, None] * (better[one] - better[other])).sigmoid()
    chosen, rejected = torch.where(first, one, other).ravel(), torch.where(first, other, one).ravel()
    level = torch.arange(LEVELS)[:, None].expand(one.shape).ravel()
    objective = get_objective("dpo", beta=0.3)
    descend(
        writer,
        lambda: objective(writer.pairs(level, chosen, rejected, ref=reference)).mean(),
        steps=400,
        learning_rate=0.2,
    )
    return tuple(align_profiles(p, human) for p in (judge, before, generates(writer)))


@pytest.mark.parametrize("seed", range(2))
def test_the_model_judges_more_like_people_than_it_writes_and_length_parts_them_most(seed):
    judge, before, _ = lab(seed)
    assert judge.kendall - before.kendall >= 0.3
    assert next(iter(before.gaps)) == "length" and before.gaps["length"] > 0
    assert "less “length”" in before.advice()


@pytest.mark.parametrize("seed", range(2))
def test_training_on_its_own_judgments_brings_the_writer_nearer_and_halves_the_gap_in_length(seed):
    _, before, after = lab(seed)
    assert after.kendall - before.kendall >= 0.2
    assert abs(after.gaps["length"]) <= before.gaps["length"] / 2
