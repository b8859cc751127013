"""Ways to choose k of n items, from a number or a vector for each: the baselines that a selection has to beat."""

from __future__ import annotations

import numpy as np

from accordance.core.errors import ConfigError


def at_random(n: int, k: int, seed: int = 0) -> np.ndarray:
    """k of n items at random, ascending."""
    return np.sort(np.random.default_rng(seed).choice(n, k, replace=False))


def in_proportion(weights: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """k items drawn without replacement, each time in proportion to the weights of those left; ascending.

    By the largest of log weight + Gumbel noise (Efraimidis and Spirakis 2006); items of weight 0 come last.
    """
    noise = np.random.default_rng(seed).gumbel(size=len(weights))
    with np.errstate(divide="ignore"):
        keys = np.log(weights) + noise
    return np.sort(np.argsort(-keys, kind="stable")[:k])


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """The k items of the largest values, ascending; NaN comes last."""
    return np.sort(np.argsort(-values, kind="stable")[:k])


def middle(values: np.ndarray, k: int) -> np.ndarray:
    """The k items whose values are nearest to the median, ascending; NaN comes last."""
    return np.sort(np.argsort(np.abs(values - np.nanmedian(values)), kind="stable")[:k])


def k_center(vectors: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """k items such that no item is far from all of them: always the farthest one next (Gonzalez 1985); ascending.

    Args:
        vectors: shape [n, e].
        k: how many.
        seed: of the first one.
    """
    if k == 0:
        return np.zeros(0, dtype=np.int64)
    chosen = [int(np.random.default_rng(seed).integers(len(vectors)))]
    distance = np.full(len(vectors), np.inf)
    while len(chosen) < k:
        distance = np.minimum(distance, ((vectors - vectors[chosen[-1]]) ** 2).sum(1))
        distance[chosen[-1]] = -1.0
        chosen.append(int(distance.argmax()))
    return np.sort(np.array(chosen))


def budget(share_or_count: float, n: int) -> int:
    """How many of n items a budget is: a share up to 1, else a count.

    Raises:
        ConfigError: it is not above 0, or a count that is no whole number or more than there are.
    """
    value = share_or_count
    if value <= 0 or (value > 1 and value != int(value)) or (value > 1 and value > n):
        raise ConfigError(
            "a budget is a share up to 1, or a whole number of records that there are",
            where="budget",
            found=f"{value} of {n}",
        )
    return max(round(value * n), min(n, 1)) if value <= 1 else int(value)
