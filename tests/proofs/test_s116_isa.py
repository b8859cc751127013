"""Proof of S116, ISA: a twentieth of the data, chosen for quality and information, does what all of it does.

20,000 pairs with 40 features: half are near-duplicates of 20 pairs, a fifth has random labels, the rest is clean
and diverse. Two noisy signals of quality are visible, labels and truth are not. A linear policy is trained by DPO
(from a uniform reference that is logistic regression on feature differences) and brought to one sharpness, so that
policies are compared at about one distance from the reference; what counts is its true reward over a random answer's.
The best by the signals alone do as well here, since signals this clean leave no wrong label among the first 1,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from scipy.special import expit, softmax

from accordance.analysis import logit
from accordance.core.scaling import Curve, fit_curve
from accordance.curation.isa import Sample, information_sample
from accordance.curation.sampling import at_random, k_center, largest

SEEDS = range(3)
N, M, K = 20_000, 40, 1_000
NEAR, RANDOM, CLEAN = range(3)
SIZES = [25, 50, 100, 200, 400, 1600, 6400, 12_800]


@dataclass
class World:
    """Chosen minus rejected features, shape [n, m]; what each pair is; signals, [n, 2]; answers to test on."""

    taste: np.ndarray
    pairs: np.ndarray
    kind: np.ndarray
    signals: np.ndarray
    answers: np.ndarray

    def gain(self, rows: np.ndarray) -> float:
        """True reward of the policy trained on these pairs, over that of a random answer."""
        learned = logit(self.pairs[rows], np.ones(len(rows)), ridge=1.0)
        sharp = 3 * learned / np.linalg.norm(learned)
        reward = self.answers @ self.taste
        return float(((softmax(self.answers @ sharp, axis=1) * reward).sum(1) - reward.mean(1)).mean())


@cache
def world(seed: int) -> World:
    g = np.random.default_rng(seed)
    taste = g.normal(size=M)
    taste *= 3 / np.linalg.norm(taste)
    few = g.normal(size=(20, M))
    near = few[g.integers(20, size=N // 2)] + 0.05 * g.normal(size=(N // 2, M))
    x = np.vstack([near, g.normal(size=(N // 2, M))])
    kind = np.repeat([NEAR, RANDOM, CLEAN], [N // 2, N // 5, N - N // 2 - N // 5])
    first = g.random(N) < np.where(kind == RANDOM, 0.5, expit(3 * x @ taste))
    signals = np.where(kind == RANDOM, -0.9, 0.4)[:, None] + 0.5 * g.normal(size=(N, 2))
    return World(taste, np.where(first, 1, -1)[:, None] * x, kind, signals, g.normal(size=(300, 8, M)))


@cache
def chosen(seed: int) -> Sample:
    w = world(seed)
    return information_sample(w.signals, K, description=w.pairs, seed=seed)


@cache
def everything(seed: int) -> float:
    return world(seed).gain(np.arange(N))


@cache
def by_chance(seed: int) -> float:
    return float(np.mean([world(seed).gain(at_random(N, K, s)) for s in range(5)]))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_twentieth_does_what_all_the_data_do_and_a_random_twentieth_does_not(seed):
    found = world(seed).gain(chosen(seed).chosen)
    assert found >= 0.97 * everything(seed)
    assert found >= by_chance(seed) + 0.03 * everything(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_it_beats_the_widest_cover_and_the_least_certain(seed):
    w, found = world(seed), world(seed).gain(chosen(seed).chosen)
    assert found > w.gain(k_center(w.pairs, K, seed)) + 0.02 * everything(seed)
    assert found > w.gain(largest(-w.signals.sum(1), K)) + 0.5 * everything(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_few_random_labels_and_few_duplicates_are_chosen(seed):
    share = np.bincount(world(seed).kind[chosen(seed).chosen], minlength=3) / K
    assert share[RANDOM] <= 0.1 and share[NEAR] <= 0.25


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_given_to_other_items_have_no_advantage(seed):
    others = np.random.default_rng(seed).permutation(N)[chosen(seed).chosen]
    assert abs(world(seed).gain(others) - by_chance(seed)) < 0.04 * everything(seed)


@cache
def measured(seed: int) -> tuple[Curve, Curve, float]:
    """Plateau, power law, and the range of what was measured at eight sizes of random data."""
    w = world(seed)
    gains = [np.mean([w.gain(at_random(N, n, s)) for s in range(24 if n < 1000 else 4)]) for n in SIZES]
    return fit_curve(SIZES, gains), fit_curve(SIZES, gains, "power"), float(np.ptp(gains))


def test_the_gain_grows_to_a_plateau_which_predicts_what_all_the_data_give():
    found = [measured(seed) for seed in SEEDS]
    assert np.mean([plateau.r2 for plateau, _, _ in found]) >= 0.97
    miss = [abs(plateau.at(N) - everything(s)) / span for s, (plateau, _, span) in enumerate(found)]
    without = [abs(power.at(N) - everything(s)) / span for s, (_, power, span) in enumerate(found)]
    assert max(miss) < 0.05 and min(without) > 3 * max(miss)
    assert all(plateau.enough(0.95) < N / 10 for plateau, _, _ in found)
