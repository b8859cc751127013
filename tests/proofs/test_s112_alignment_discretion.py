"""Proof of S112, alignment discretion: planted priorities and a planted share of defiance are recovered, an annotator
with the opposite weights is far away, and a reward model trained on the labels takes over the annotator's order.

4,000 comparisons, 8 principles whose verdicts are correlated (a common factor, a threshold below which they abstain).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from accordance.diagnostics import Discretion, discrepancy, discretion

N, M = 4000, 8
WEIGHTS = np.linspace(3.0, 0.2, M)
NAMES = [f"principle {c}" for c in range(M)]
DEFIES = 0.3


@cache
def world() -> tuple[np.ndarray, np.ndarray]:
    """Differences of what the principles look at, shape [n, m], and their verdicts."""
    g = np.random.default_rng(0)
    gap = 0.45 * g.normal(size=(N, 1)) + g.normal(size=(N, M))
    return gap, np.where(np.abs(gap) > 0.6, np.sign(gap), np.nan)


def annotator(weights: np.ndarray, seed: int, defies: float = 0.0) -> np.ndarray:
    g = np.random.default_rng(seed)
    votes = np.nan_to_num(world()[1])
    chosen = np.sign(votes @ weights + 0.25 * g.normal(size=N) * (np.abs(votes).sum(1) > 0))
    united = (votes >= 0).all(1) | (votes <= 0).all(1)
    return np.where(united & (g.random(N) < defies), -chosen, chosen)


def reward(trained: bool, seed: int) -> np.ndarray:
    """Which response a small reward model prefers, before or after it has learnt from the first annotator."""
    gap, chosen = world()[0], annotator(WEIGHTS, 1)
    x, sided = torch.tensor(gap, dtype=torch.float32), torch.tensor(chosen != 0)
    torch.manual_seed(seed)
    # A function of one response's features; the comparison is against a response of average features.
    net = torch.nn.Sequential(torch.nn.Linear(M, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

    def margin() -> torch.Tensor:
        return (net(x / 2) - net(-x / 2))[:, 0]

    if trained:
        optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
        sign = torch.tensor(chosen, dtype=torch.float32)
        for _ in range(150):
            optimizer.zero_grad()
            torch.nn.functional.softplus(-(sign * margin())[sided]).mean().backward()
            optimizer.step()
    return np.sign(margin().detach().numpy())


@cache
def found() -> Discretion:
    annotators = {
        "faithful": annotator(WEIGHTS, 1),
        "again": annotator(WEIGHTS, 2),
        "reversed": annotator(WEIGHTS[::-1], 3),
        "defiant": annotator(WEIGHTS, 4, DEFIES),
        "model": reward(True, 0),
        **{f"untrained {k}": reward(False, k) for k in range(5)},
    }
    return discretion(world()[1], annotators, NAMES, samples=50)


def apart(one: str, other: str) -> float:
    return float(found().discrepancy[found().annotators.index(one), found().annotators.index(other)])


def test_the_set_is_mostly_conflict_with_some_consensus():
    assert 0.2 < found().kinds["consensus"] / N < 0.36 and found().kinds["conflict"] / N > 0.6
    assert sum(found().kinds.values()) == N


def test_the_planted_order_of_principles_is_recovered():
    assert discrepancy(found().priority[0], WEIGHTS) <= 0.11
    # A threshold vote is not Bradley-Terry, but heavier principles lie above lighter ones beyond their intervals.
    assert found().priority_low[0, 0] > found().priority_high[0, 4]


def test_a_second_draw_is_close_and_reversed_weights_are_far():
    assert apart("faithful", "again") <= 0.1 and apart("faithful", "reversed") >= 0.85


def test_arbitrariness_is_none_for_the_faithful_and_the_planted_share_for_the_defiant():
    rate = dict(zip(found().annotators, found().arbitrariness))
    assert rate["faithful"].estimate <= 0.01
    assert abs(rate["defiant"].estimate - DEFIES) <= 0.03
    assert rate["defiant"].low < DEFIES < rate["defiant"].high
    spread = (rate["defiant"].high - rate["defiant"].low) / 3.92
    assert abs(found().errors[3] / spread - 1) < 0.15


def test_supremacies_of_two_principles_add_up_to_one():
    share = found().supremacy
    known = ~np.isnan(share)
    assert known.sum() == len(share) * M * (M - 1)
    assert np.allclose((share + share.transpose(0, 2, 1))[known], 1.0, atol=1e-12)


def test_a_trained_reward_model_takes_over_its_annotators_order_and_an_untrained_one_does_not():
    untrained = np.mean([apart("faithful", f"untrained {k}") for k in range(5)])
    assert apart("faithful", "model") < untrained - 0.2
