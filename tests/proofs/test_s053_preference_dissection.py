"""Proof of S053: planted weights of two groups of judges come back, likeness of judges too, and they can be played.

Two groups, 8 properties rated 0 to 3, 4500 comparisons per judge, position bias of one log-odd.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from accordance.analysis import Differences, Given, PairTable
from accordance.analysis.dissect import Dissection, clearly_longer, dissect

WEIGHTS = {
    "crowd": np.array([1.6, 0.9, 0.5, 0.2, 0.0, 0.0, -0.6, -1.2]),
    "model": np.array([0.2, 1.4, -0.7, 0.9, 0.0, 0.0, 0.8, -0.3]),
}
NAMES = tuple(f"property {i}" for i in range(8))
SEEDS = range(3)


@cache
def world(seed: int, n: int = 4500, bias: float = 1.0) -> tuple[Dissection, np.ndarray]:
    """Two judges of each group."""
    g = np.random.default_rng(seed)
    judges = [f"{group} {k}" for group in WEIGHTS for k in (1, 2)]
    x = np.sign(g.integers(0, 4, (4 * n, 8)) - g.integers(0, 4, (4 * n, 8))).astype(float)
    weights = np.repeat([WEIGHTS[j.split()[0]] for j in judges], n, axis=0)
    label = g.random(4 * n) < 1 / (1 + np.exp(-((x * weights).sum(1) + bias)))
    table = PairTable.of(
        ["p"] * 4 * n, ["a"] * 4 * n, ["b"] * 4 * n, label.astype(float), group=list(np.repeat(judges, n))
    )
    return dissect(table, [Given(Differences(NAMES, x))]), x


@pytest.mark.parametrize("seed", SEEDS)
def test_planted_weights_come_back_and_null_properties_stay_null(seed):
    found, _ = world(seed)
    for judge, weights in zip(found.judges, found.weights[:, 0]):
        truth = WEIGHTS[judge.split()[0]]
        assert np.corrcoef(weights, truth)[0, 1] >= 0.97
        assert np.abs(weights[truth == 0]).max() < 0.1
        assert np.abs(weights - truth).max() < 0.25
    assert np.abs(found.first - 1.0).max() < 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_judges_of_one_group_are_alike_and_groups_as_unlike_as_they_are(seed):
    found, _ = world(seed)
    true = np.corrcoef(WEIGHTS["crowd"], WEIGHTS["model"])[0, 1]
    alike = found.similarity
    for a, one in enumerate(found.judges):
        for b, other in enumerate(found.judges):
            if a != b and one.split()[0] == other.split()[0]:
                assert alike[a, b] >= 0.9
            elif a != b:
                assert abs(alike[a, b] - true) < 0.1


@pytest.mark.parametrize("seed", SEEDS)
def test_selecting_for_liked_properties_raises_the_judges_score_and_for_disliked_lowers_it(seed):
    found, _ = world(seed)
    liked = [NAMES.index(n) for n in found.ranked("crowd 1")]
    null = int(np.argmin(np.abs(found.weights[found.judges.index("crowd 1"), 0])))
    candidates = np.random.default_rng(seed + 9).integers(0, 4, (4000, 8, 8)).astype(float)
    score = candidates @ WEIGHTS["crowd"]
    for properties, low, high in ((liked[:2], 0.3, 9), (liked[-2:], -9, -0.3), ([null], -0.1, 0.1)):
        best = candidates[..., properties].sum(-1).argmax(1)
        change = (score[np.arange(4000), best] - score.mean()).mean() / score.std()
        assert low <= change <= high


def test_length_counts_only_where_one_is_clearly_longer():
    first, second = np.array([10, 100, 100, 400, 30]), np.array([3, 95, 81, 355, 20])
    assert clearly_longer(first, second).tolist() == [0, 0, 0, 1, 1]
    assert clearly_longer(second, first).tolist() == [0, 0, 0, -1, -1]
