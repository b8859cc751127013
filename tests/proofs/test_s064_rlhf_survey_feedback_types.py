"""Proof of S064: kinds of feedback together tell more than one, asked well they tell it sooner, skill is found.

A linear reward in R^8 that is known; people choose softly by it.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import spearmanr

from accordance.feedback.queries import select, worth
from accordance.feedback.rational import (
    Choice,
    comparison,
    correction,
    demonstration,
    epic_distance,
    fit,
    fit_skilled,
    reliability,
)

D, SHARP, SEEDS = 8, 2.0, range(10)


def truth(g: np.random.Generator, sharp: float = SHARP) -> np.ndarray:
    w = g.normal(size=D)
    return sharp * w / np.linalg.norm(w)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1)))


def compared(w: np.ndarray, g: np.random.Generator, a: np.ndarray | None = None) -> Choice:
    x, y = g.normal(size=(2, D)) if a is None else (a, np.zeros(D))
    return comparison(x, y) if g.random() < expit(w @ (x - y)) else comparison(y, x)


def shown(w: np.ndarray, g: np.random.Generator) -> Choice:
    possible = g.normal(size=(20, D))
    return demonstration(int(g.choice(20, p=softmax(possible @ w))), possible)


def corrected(w: np.ndarray, g: np.random.Generator) -> Choice:
    near = g.normal(size=(5, D))
    chosen = int(g.choice(5, p=softmax(near @ w)))
    return correction(near[0], near[1:], None if chosen == 0 else chosen - 1)


def test_kinds_of_feedback_together_beat_as_many_comparisons() -> None:
    mixed, alone = [], []
    for seed in range(40):
        g = np.random.default_rng(seed)
        w = truth(g, 1.0)
        many = [compared(w, g) for _ in range(50)] + [shown(w, g) for _ in range(20)]
        many += [corrected(w, g) for _ in range(20)]
        mixed.append(angle(fit(many).mean, w))
        alone.append(angle(fit([compared(w, g) for _ in range(90)]).mean, w))
    assert np.mean(mixed) <= 0.75 * np.mean(alone), (np.mean(mixed), np.mean(alone))


def questions(w: np.ndarray, how: str | None, seed: int, goal: float = 0.2, most: int = 400) -> int:
    """How many answers it takes until the reward is known to within `goal` rad."""
    g = np.random.default_rng(seed)
    pool = g.normal(size=(2000, D)) - g.normal(size=(2000, D))
    said: list[Choice] = []
    posterior = None
    for n in range(1, most):
        if how is None or posterior is None:
            i = int(g.integers(len(pool)))
        else:
            i = int(select(pool, posterior.draws(40, seed=n), 1, how=how)[0])
        said.append(compared(w, g, pool[i]))
        posterior = fit(said, steps=15)
        if n > D and angle(posterior.mean, w) <= goal:
            return n
    return most


def test_informative_questions_get_there_with_fewer() -> None:
    worlds = [truth(np.random.default_rng(100 + seed)) for seed in SEEDS]
    chosen = np.mean([questions(w, "information", seed) for seed, w in zip(SEEDS, worlds)])
    random = np.mean([questions(w, None, seed) for seed, w in zip(SEEDS, worlds)])
    assert chosen <= 0.6 * random, (chosen, random)


def chooses(person: int, skill: np.ndarray, w: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """P(first) for a person; the first six look at one feature only (the length, say), whatever it is about."""
    return expit(3 * gap[..., 0]) if person < 6 else expit(skill[person] * gap @ w)


def test_skill_is_found_and_careless_people_do_no_harm() -> None:
    gains, ranks = [], []
    for seed in range(5):
        g = np.random.default_rng(seed)
        w = truth(g)
        w[0] = 0.0
        skill = np.exp(g.normal(scale=0.6, size=20))
        said = []
        for person in range(20):
            for x, y in g.normal(size=(25, 2, D)):
                first = g.random() < chooses(person, skill, w, x - y)
                said.append(comparison(*((x, y) if first else (y, x)), person))
        gaps = np.subtract(*g.normal(size=(2, 4000, D)))
        better = gaps @ w > 0
        known = fit_skilled(said)
        hit = [np.mean((gaps @ m > 0) == better) for m in (known.mean, fit(said).mean)]
        gains.append(hit[0] - hit[1])
        true = [np.where(better, p, 1 - p).mean() for p in (chooses(n, skill, w, gaps) for n in range(20))]
        found = reliability(known, gaps)
        ranks.append(spearmanr([found[n] for n in range(20)], true).statistic)
    assert np.mean(gains) >= 0.05, gains
    assert np.mean(ranks) >= 0.8, ranks


def test_epic_sees_through_shaping_and_scale_only() -> None:
    g = np.random.default_rng(0)
    reward, potential = g.normal(size=(6, 3, 6)), g.normal(size=6) * 5
    shaped = 4 * (reward + 0.9 * potential[None, None, :] - potential[:, None, None])
    assert epic_distance(reward, shaped, 0.9) < 0.01
    assert epic_distance(reward, g.normal(size=(6, 3, 6)), 0.9) > 0.5
    assert epic_distance(reward, -reward, 0.9) == pytest.approx(1)
    assert epic_distance(reward, shaped, 0.5) > 0.1, "another discount, another shaping"


def test_the_gap_between_proxy_and_truth_grows_with_the_pull_on_the_proxy() -> None:
    g = np.random.default_rng(1)
    w = truth(g)
    proxy = fit([compared(w, g) for _ in range(25)]).mean
    answers = g.normal(size=(3000, D))
    gaps, distance = [], []
    for pull in (0.5, 1, 2, 4, 8):
        p = softmax(pull * answers @ proxy / np.linalg.norm(proxy))
        distance.append(float((p * np.log(np.maximum(p * len(p), 1e-300))).sum()))
        gold = p @ answers @ w / np.linalg.norm(w)
        gaps.append(float(p @ answers @ proxy / np.linalg.norm(proxy) - gold))
    assert np.all(np.diff(distance) > 0) and np.all(np.diff(gaps) > 0), (distance, gaps)
    assert gaps[-1] > 3 * gaps[0]


def test_noise_teaches_nothing_although_it_is_uncertain() -> None:
    draws = np.array([[5.0, 0.0], [-5.0, 0.0]])
    known, torn = np.array([[0.0, 1.0]]), np.array([[1.0, 0.0]])
    assert worth(known, draws)[0] == pytest.approx(0) and worth(torn, draws)[0] > 0.9


def test_a_careless_person_and_a_person_of_little_skill_are_told_apart() -> None:
    g = np.random.default_rng(3)
    w = truth(g)
    manner = {"good": (1.0, 0.0), "careless": (1.0, 0.5), "weak": (0.3, 0.0)}  # skill, share not looked at
    said = []
    for person, (skill, lapse) in manner.items():
        for x, y in 2 * g.normal(size=(500, 2, D)):
            p = lapse / 2 + (1 - lapse) * expit(skill * w @ (x - y))
            said.append(comparison(*((x, y) if g.random() < p else (y, x)), person))
    found = fit_skilled(said)
    assert abs(found.lapse["careless"] - 0.5) < 0.12, found.lapse
    assert max(found.lapse["good"], found.lapse["weak"]) < 0.15, found.lapse
    assert 0.2 < found.skill["weak"] / found.skill["good"] < 0.45, found.skill
    assert found.skill["careless"] / found.skill["good"] > 0.6, found.skill


def test_the_posterior_is_as_wide_as_the_likelihood_is_flat() -> None:
    g = np.random.default_rng(4)
    w = truth(g)
    said = [compared(w, g) for _ in range(40)] + [shown(w, g) for _ in range(5)]
    found = fit(said, prior=0.7)

    def loss(v: np.ndarray) -> float:
        return 0.35 * v @ v - sum(np.log(softmax(c.options @ v)[c.chosen]) for c in said)

    step = 1e-3 * np.eye(D)
    slope = np.array([(loss(found.mean + e) - loss(found.mean - e)) / 2e-3 for e in step])
    curve = (
        np.array(
            [
                [
                    loss(found.mean + a + b)
                    - loss(found.mean + a - b)
                    - loss(found.mean - a + b)
                    + loss(found.mean - a - b)
                    for b in step
                ]
                for a in step
            ]
        )
        / 4e-6
    )
    assert np.abs(slope).max() < 1e-4
    assert found.covariance == pytest.approx(np.linalg.inv(curve), rel=1e-2, abs=1e-4)
    assert np.cov(found.draws(20_000).T) == pytest.approx(found.covariance, rel=0.2, abs=0.02)


def test_equal_skills_without_lapses_are_the_plain_likelihood() -> None:
    g = np.random.default_rng(5)
    w = truth(g)
    said = [compared(w, g) for _ in range(60)]
    assert fit_skilled(said, lapse=1e-9, spread=1e-6).mean == pytest.approx(fit(said).mean, abs=1e-4)
