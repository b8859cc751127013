"""Rewards for how a policy is used: the best of N answers is taken, or the worst of N is what an attacker gets.

A reward is first made the share of the reference's answers that are worse (`calibrated`), which is uniform on [0, 1]
under the reference whatever the reward; then bent for the procedure (`for_procedure`); then any objective may learn
from it. As everything depends on that share alone, what comes out can be computed exactly on a grid (`tilted`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError

Procedure = Literal["one", "best_of_n", "worst_of_n"]
PROCEDURES: tuple[str, ...] = get_args(Procedure)


def calibrated(rewards: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The share of the reference's answers to the same prompt that are worse; ties count half.

    Args:
        rewards: of answers, shape [prompts, K].
        reference: of samples of the reference to the same prompts, shape [prompts, M]; M of 32 or more.

    Returns:
        Shape [prompts, K], within [1 / 2M, 1 - 1 / 2M]: nothing is known of what lies beyond the samples.

    Raises:
        DataError: the prompts differ in number, there are no samples, or a number is not finite.
    """
    rewards, reference = np.asarray(rewards, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if rewards.ndim != 2 or reference.ndim != 2 or len(rewards) != len(reference) or not reference.shape[1]:
        raise DataError(
            "rewards are compared with those of the reference, prompt by prompt",
            where="calibrated",
            found=f"shapes {list(rewards.shape)} and {list(reference.shape)}",
            expected="[prompts, K] and [prompts, M]",
        )
    if not (np.isfinite(rewards).all() and np.isfinite(reference).all()):
        raise DataError("a reward is no finite number", where="calibrated")
    ordered = np.sort(reference, axis=1)
    below = np.array([np.searchsorted(row, some, "left") for row, some in zip(ordered, rewards)])
    upto = np.array([np.searchsorted(row, some, "right") for row, some in zip(ordered, rewards)])
    many = reference.shape[1]
    return np.clip((below + upto) / (2 * many), 0.5 / many, 1 - 0.5 / many)


@system("S126", "InfAlign", paper="arXiv:2412.19792")
def for_procedure(share: np.ndarray, procedure: Procedure, sharpness: float = 10.0) -> np.ndarray:
    """Calibrated rewards, bent for how answers are picked once the policy is used (CTRL).

    The policy with the best win rate *after* the best of N is picked is that of ordinary training on another reward:
    one that pays for the top of the range, exp(t c). Where the worst of N counts, it is one that punishes the bottom,
    -exp(-t c). As any objective is free to scale its reward, both are divided by exp(t), respectively by 1, so that
    they lie in [0, 1] and [-1, 0]; the paper does not divide.

    In a recipe: ``reward_calibration`` (samples of the reference to each prompt), ``reward_for`` and
    ``reward_sharpness``, with any objective that learns online.

    Args:
        share: calibrated rewards, see `calibrated`.
        procedure: ``one`` answer is shown; ``best_of_n``; ``worst_of_n``.
        sharpness: t; 10 is close to the best for N = 4.

    Returns:
        In the shape of `share`.

    Raises:
        ConfigError: another procedure, or a sharpness that is not above 0.
    """
    if procedure not in PROCEDURES or sharpness <= 0:
        raise ConfigError(
            "no such way to use a policy",
            where="reward_for",
            found=f"{procedure!r}, sharpness {sharpness}",
            expected=f"one of {', '.join(PROCEDURES)}, and a sharpness above 0",
        )
    if procedure == "best_of_n":
        return np.exp(sharpness * (share - 1))
    return -np.exp(-sharpness * share) if procedure == "worst_of_n" else share


@dataclass(frozen=True)
class Tilted:
    """A policy told by how likely each share of the reference is under it: density on a grid of cells of [0, 1].

    Attributes:
        density: at the middle of each cell, mean 1, shape [cells].
    """

    density: np.ndarray

    @property
    def grid(self) -> np.ndarray:
        """The middles of the cells, shape [cells]."""
        return (np.arange(len(self.density)) + 0.5) / len(self.density)

    @property
    def below(self) -> np.ndarray:
        """Probability of an answer below the middle of each cell, shape [cells]."""
        return (np.cumsum(self.density) - self.density / 2) / len(self.density)

    @property
    def kl(self) -> float:
        """KL from the reference, nats per answer."""
        kept = self.density[self.density > 0]
        return float((kept * np.log(kept)).sum() / len(self.density))

    def win_rate(self, procedure: Procedure = "one", n: int = 4) -> float:
        """Win rate over the reference, both used by the same procedure.

        Args:
            procedure: how answers are picked.
            n: of how many.
        """
        u, cdf = self.grid, self.below
        if procedure == "best_of_n":
            return float(1 - n * (cdf**n * u ** (n - 1)).mean())
        if procedure == "worst_of_n":
            return float(n * ((1 - cdf) ** n * (1 - u) ** (n - 1)).mean())
        return float((self.density * u).mean())


def tilted(
    reward: np.ndarray | Callable[[np.ndarray], np.ndarray],
    *,
    beta: float | None = None,
    kl: float | None = None,
    cells: int = 4000,
) -> Tilted:
    """What KL-regularised training on a function of the calibrated reward leads to: density exp(reward / beta).

    Args:
        reward: of each cell, or a function of their middles.
        beta: price of the KL.
        kl: or the KL to reach, nats; methods are compared where it is equal.
        cells: of the grid, where `reward` is a function.

    Raises:
        ConfigError: not one of `beta` and `kl` is given, or none reaches that KL.
    """
    if (beta is None) == (kl is None):
        raise ConfigError("give beta, or the KL to reach", where="tilted", found=f"beta={beta}, kl={kl}")
    values = reward((np.arange(cells) + 0.5) / cells) if callable(reward) else np.asarray(reward, dtype=float)
    if beta is not None:
        return Tilted(_tilt(values, beta))
    assert kl is not None
    low, high = 1e-6, 1e6  # the KL falls in beta
    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if Tilted(_tilt(values, middle)).kl > kl else (low, middle)
    found = Tilted(_tilt(values, high))
    if abs(found.kl - kl) > 1e-3 * max(1.0, kl):
        raise ConfigError("no price of the KL leads there", where="kl", found=kl, expected="a smaller one")
    return found


def optimal_transform(
    procedure: Procedure, n: int, beta: float, *, cells: int = 4000, rounds: int = 400
) -> np.ndarray:
    """The reward that leads to the best win rate after the procedure, at this price: a fixed point, damped.

    Args:
        procedure: ``best_of_n`` or ``worst_of_n``.
        n: of how many.
        beta: price of the KL.
        cells: of the grid.
        rounds: of the iteration.

    Returns:
        The reward at the middle of each cell, shape [cells], up to a constant.

    Raises:
        ConfigError: for ``one`` the calibrated reward itself is the best.
    """
    if procedure == "one":
        raise ConfigError(
            "where one answer is shown, the calibrated reward is the best", where="optimal_transform"
        )
    density = np.ones(cells)
    u, reward = Tilted(density).grid, np.zeros(cells)
    for _ in range(rounds):
        cdf = Tilted(density).below
        if procedure == "best_of_n":
            slope = (cdf * u) ** (n - 1)
            reward = n**2 * (np.cumsum(slope) - slope / 2) / cells
        else:
            slope = ((1 - cdf) * (1 - u)) ** (n - 1)
            reward = -(n**2) * (np.cumsum(slope[::-1])[::-1] - slope / 2) / cells
        density = 0.9 * density + 0.1 * _tilt(reward, beta)
    return reward


def _tilt(values: np.ndarray, beta: float) -> np.ndarray:
    raised = np.exp((values - values.max()) / beta)
    return raised / raised.mean()
