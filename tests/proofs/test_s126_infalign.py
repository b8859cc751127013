"""Proof of S126, InfAlign: whoever picks the best of N later should not train on the reward as it is.

Exact, on a grid of shares; then by simulated duels of tabular policies whose rewards have heavy tails and differ in
scale between prompts; at equal KL throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from accordance.lab.tabular import TabularPolicy, descend
from accordance.rewards import Procedure, calibrated, for_procedure, optimal_transform, tilted

N = 4
PROMPTS, RESPONSES = 12, 100


def bent(procedure: Procedure, sharpness: float = 10.0) -> Callable[[np.ndarray], np.ndarray]:
    return lambda share: for_procedure(share, procedure, sharpness)


PLAIN = bent("one")


@pytest.mark.parametrize("procedure", ["best_of_n", "worst_of_n"])
def test_a_reward_bent_for_the_procedure_wins_after_it_at_equal_kl(procedure: Procedure) -> None:
    plain, made = (tilted(phi, kl=1.0).win_rate(procedure, N) for phi in (PLAIN, bent(procedure)))
    assert made >= plain + (0.05 if procedure == "best_of_n" else 0.015)
    other: Procedure = "worst_of_n" if procedure == "best_of_n" else "best_of_n"
    assert tilted(bent(other), kl=1.0).win_rate(procedure, N) < plain - 0.05, "bent the other way it is worse"


def test_where_one_answer_is_shown_the_calibrated_reward_is_best() -> None:
    plain = tilted(PLAIN, kl=1.0).win_rate()
    for procedure in ("best_of_n", "worst_of_n"):
        for sharpness in (2.0, 5.0, 10.0):
            assert tilted(bent(procedure, sharpness), kl=1.0).win_rate() < plain


@pytest.mark.parametrize("procedure", ["best_of_n", "worst_of_n"])
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_no_fixed_transform_beats_the_fixed_point_and_ten_comes_close(
    procedure: Procedure, beta: float
) -> None:
    best = tilted(optimal_transform(procedure, N, beta), beta=beta)
    others = {t: tilted(bent(procedure, t), kl=best.kl).win_rate(procedure, N) for t in (2.0, 5.0, 10.0, 20.0)}
    plain = tilted(PLAIN, kl=best.kl).win_rate(procedure, N)
    assert best.win_rate(procedure, N) >= max(others.values()) - 1e-3
    assert best.win_rate(procedure, N) - others[10.0] < 0.005
    assert others[10.0] > plain + 0.04


# Tabular policies, trained by descent on the expected reward less the price of the KL.


def true_rewards(draw: np.random.Generator) -> np.ndarray:
    """Heavy tails, and scales that differ by a hundred between prompts; shape [prompts, responses]."""
    scales = np.logspace(-1, 1, PROMPTS)[:, None]
    return scales * draw.standard_t(2.0, (PROMPTS, RESPONSES)) + 5 * draw.normal(size=(PROMPTS, 1))


def trained(reward: np.ndarray, kl: float) -> TabularPolicy:
    """The table that descent leads to, at the price of the KL that is found by halving."""
    values = torch.as_tensor(reward, dtype=torch.float64)
    reference = TabularPolicy(torch.zeros(PROMPTS, RESPONSES, dtype=torch.float64)).frozen()
    # The optimum in closed form finds the price; the policy itself is trained.
    low, high = 1e-5, 1e5
    for _ in range(80):
        beta = (low * high) ** 0.5
        exact = TabularPolicy(values / beta)
        low, high = (beta, high) if exact.kl(reference).mean().item() > kl else (low, beta)
    policy = TabularPolicy(torch.zeros(PROMPTS, RESPONSES, dtype=torch.float64))

    def loss() -> Any:
        return (policy.kl(reference) - policy.expected(values / high)).mean()

    descend(policy, loss, steps=1500, learning_rate=0.05)
    return policy


def duel(policy: TabularPolicy, truth: np.ndarray, draw: np.random.Generator, many: int = 20_000) -> Any:
    """Wins of the best of N of the policy against the best of N of the reference, one by one."""
    prompts = draw.integers(PROMPTS, size=many)
    probs = policy.probs.detach().numpy().cumsum(1)
    ours = np.array([np.searchsorted(probs[p], draw.random(N)).clip(max=RESPONSES - 1) for p in prompts])
    theirs = draw.integers(RESPONSES, size=(many, N))
    a, b = (truth[prompts[:, None], some].max(1) for some in (ours, theirs))
    return (a > b) + 0.5 * (a == b)


def expected(policy: TabularPolicy, truth: np.ndarray) -> float:
    """The same exactly: the best of N on both sides, response by response."""
    found = []
    for probs, worth in zip(policy.probs.detach().numpy(), truth):
        ranked = np.argsort(worth)
        ours, theirs = (
            np.diff(np.cumsum(p[ranked]) ** N, prepend=0) for p in (probs, np.full_like(probs, 1 / len(probs)))
        )
        found.append((ours * (np.cumsum(theirs) - theirs / 2)).sum())
    return float(np.mean(found))


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return true_rewards(np.random.default_rng(0))


def test_trained_tables_win_duels_as_the_formula_says(truth: np.ndarray) -> None:
    share = calibrated(truth, truth)
    plain, made = (trained(for_procedure(share, p), kl=0.5) for p in ("one", "best_of_n"))
    assert expected(made, truth) > expected(plain, truth) + 0.05
    foreseen = tilted(bent("best_of_n"), kl=0.5).win_rate("best_of_n", N)
    wins = duel(made, truth, np.random.default_rng(1))
    assert wins.mean() == pytest.approx(expected(made, truth), abs=3 * wins.std() / len(wins) ** 0.5)
    assert expected(made, truth) == pytest.approx(foreseen, abs=0.01), "a grid of shares is all there is to it"


def test_64_samples_of_the_reference_are_enough(truth: np.ndarray) -> None:
    draw = np.random.default_rng(2)
    samples = np.take_along_axis(truth, draw.integers(RESPONSES, size=(PROMPTS, 64)), axis=1)
    known, estimated = (
        trained(for_procedure(calibrated(truth, reference), "best_of_n"), kl=0.5)
        for reference in (truth, samples)
    )
    assert expected(known, truth) - expected(estimated, truth) < 0.01


def test_shares_of_the_same_prompt_beat_raw_rewards_and_shares_of_all_prompts(truth: np.ndarray) -> None:
    """Heavy tails and unequal scales spend the KL on few prompts and few answers."""

    def wins(reward: np.ndarray) -> float:
        policy = trained(reward, kl=0.5).probs.detach().numpy()
        order = truth.argsort(1).argsort(1) + 0.5
        return float((policy * order / RESPONSES).sum(1).mean())

    everything = np.tile(truth.reshape(1, -1), (PROMPTS, 1))
    assert wins(calibrated(truth, truth)) > wins(truth) + 0.05
    assert wins(calibrated(truth, truth)) > wins(calibrated(truth, everything)) + 0.02
