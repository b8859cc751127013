"""Proof of S054, HyPER: a router learns whose labels are worth what from mixes, and half people beats either alone.

Six types of prompt, six attributes; people judge three types well and three badly, the model the other way round.
The reward model is a linear Bradley-Terry model per type on 1,500 pairs, scored on labels of neither source.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from scipy import stats

from accordance.analysis import logit
from accordance.curation.hyper import HybridRouter, draw_mixes, score_mixes

SEEDS = range(4)
PEOPLE = np.array([0.92, 0.88, 0.85, 0.62, 0.60, 0.62])
LLM = PEOPLE[::-1]


@dataclass
class World:
    """Pairs with both labels, and what a reward model trained on a mix is worth."""

    kind: np.ndarray
    features: np.ndarray
    x: np.ndarray
    human: np.ndarray
    model: np.ndarray
    taste: np.ndarray
    test: np.ndarray

    def score(self, mask: np.ndarray) -> float:
        label, right = np.where(mask, self.human, self.model), []
        for kind in range(6):
            rows = self.kind == kind
            learned = logit(self.x[rows], label[rows], ridge=1.0)
            right.append(((self.test @ learned > 0) == (self.test @ self.taste[kind] > 0)).mean())
        return float(np.mean(right))


@cache
def world(seed: int) -> World:
    g = np.random.default_rng(seed)
    kind, x, taste = g.integers(6, size=1500), g.normal(size=(1500, 6)), g.normal(size=(6, 6))
    truth = (x * taste[kind]).sum(1) > 0
    human, model = (
        np.where(g.random(1500) < right[kind], truth, ~truth).astype(float) for right in (PEOPLE, LLM)
    )
    features = np.concatenate([np.eye(6)[kind], g.random((1500, 4)) < 0.4], axis=1)  # four of them say nothing
    return World(kind, features, x, human, model, taste, g.normal(size=(1500, 6)))


@cache
def mixes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    masks = draw_mixes(world(seed).features, 240, seed=seed)
    return masks, score_mixes(masks, world(seed).score)


@cache
def router(seed: int, kind: str = "linear", shuffle: bool = False) -> HybridRouter:
    masks, scores = mixes(seed)
    scores = np.random.default_rng(seed).permutation(scores[:200]) if shuffle else scores[:200]
    return HybridRouter(kind).fit(world(seed).features, masks[:200], scores)


def half(seed: int, shuffle: bool = False) -> np.ndarray:
    return router(seed, shuffle=shuffle).route(world(seed).features, 0.5, seed=seed)


def random_half(seed: int) -> float:
    w = world(seed)
    return float(np.mean([w.score(np.random.default_rng(s).permutation(1500) < 750) for s in range(6)]))


@pytest.mark.parametrize("kind", ["linear", "quadratic"])
@pytest.mark.parametrize("seed", SEEDS)
def test_mixes_it_has_not_seen_are_ranked_right(seed, kind):
    masks, scores = mixes(seed)
    predicted = router(seed, kind).predict(world(seed).features, masks[200:])
    assert stats.spearmanr(predicted, scores[200:]).statistic >= 0.6
    assert np.sqrt(np.mean((predicted - scores[200:]) ** 2)) < 0.8 * np.std(scores[200:])
    assert router(seed, kind).spearman_ >= 0.6


def test_half_people_half_model_beats_either_alone_and_a_random_half():
    ways = {"human": np.ones(1500, dtype=bool), "model": np.zeros(1500, dtype=bool)}
    lead = {
        name: [world(s).score(half(s)) - world(s).score(mask) for s in SEEDS] for name, mask in ways.items()
    }
    lead["random"] = [world(s).score(half(s)) - random_half(s) for s in SEEDS]
    assert np.mean(lead["human"]) >= 0.04 and np.mean(lead["model"]) >= 0.04 and np.mean(lead["random"]) >= 0.03
    assert min(map(min, lead.values())) >= 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_people_get_what_people_are_good_at(seed):
    gains = router(seed).gains(world(seed).features)
    best = world(seed).kind[np.argsort(-gains)[:600]]
    assert (best < 3).mean() >= 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_simulated_sets_beat_random_ones_and_the_best_budget_is_in_the_middle(seed):
    w = world(seed)
    drawn = router(seed).route(w.features, 0.5, "simulated", seed=seed)
    assert drawn.sum() == 750 and w.score(drawn) > random_half(seed) + 0.015
    curve = router(seed).curve(w.features, [0.02, 0.5, 1.0])
    assert curve[1][1] > max(curve[0][1], curve[2][1]) and curve[1][1] > curve[1][2]


def test_scores_given_to_other_mixes_teach_nothing():
    lead = [world(seed).score(half(seed, shuffle=True)) - random_half(seed) for seed in SEEDS]
    assert np.mean(lead) < 0.02
