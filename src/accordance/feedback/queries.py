"""What to ask next: the comparisons that are likely to teach the most, given what the answers so far say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from accordance.core.errors import ConfigError, DataError, unknown


def uncertainty(p: np.ndarray) -> np.ndarray:
    """Variance, over draws of the reward, of the probability that the first is preferred."""
    return p.var(axis=1)


def disagreement(p: np.ndarray) -> np.ndarray:
    """Entropy, in bits, of the draws' votes on which is better."""
    return _entropy((p > 0.5).mean(axis=1))


def information(p: np.ndarray) -> np.ndarray:
    """Bits that the answer tells about the reward: H(mean p) - mean H(p); answers that are noise tell nothing."""
    return _entropy(p.mean(axis=1)) - _entropy(p).mean(axis=1)


#: Ways to value a query, from probabilities of shape [queries, draws].
VALUES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "information": information,
    "uncertainty": uncertainty,
    "disagreement": disagreement,
}


def worth(
    gaps: np.ndarray, draws: np.ndarray, how: str = "information", cost: np.ndarray | None = None
) -> np.ndarray:
    """The value of asking each comparison.

    Args:
        gaps: features of the first response less the second, shape [q, d].
        draws: weights of the reward drawn from its posterior, shape [k, d].
        how: a name of `VALUES`.
        cost: of asking each, such as reading time; values are per unit of it, shape [q].

    Returns:
        Shape [q].

    Raises:
        ConfigError: unknown way.
        DataError: shapes that do not fit, or a cost that is not positive.
    """
    if how not in VALUES:
        raise unknown("value of a query", how, VALUES)
    if gaps.ndim != 2 or draws.ndim != 2 or gaps.shape[1] != draws.shape[1]:
        raise DataError("queries and rewards over the same features", found=(gaps.shape, draws.shape))
    if cost is not None and (cost.shape != (len(gaps),) or (cost <= 0).any()):
        raise DataError("one positive cost per query", found=cost)
    value = VALUES[how](expit(gaps @ draws.T))
    return value if cost is None else value / cost


def select(
    gaps: np.ndarray,
    draws: np.ndarray,
    many: int,
    *,
    how: str = "information",
    cost: np.ndarray | None = None,
    seed: int = 0,
) -> np.ndarray:
    """A batch of queries that teach much and do not all teach the same.

    The pool is clustered by direction (k-means on unit vectors, signs folded) into as many clusters as are wanted,
    and the best of each is taken; for one query it is the best of all.

    Args:
        gaps, draws, how, cost: as `worth`.
        many: how many.
        seed: of the clustering.

    Returns:
        Indices of queries, the most valuable first, shape [many].

    Raises:
        ConfigError: more queries than there are, or none.
    """
    if not 1 <= many <= len(gaps):
        raise ConfigError(
            "as many queries as there are, and one at least", found=many, expected=f"1 .. {len(gaps)}"
        )
    value = worth(gaps, draws, how, cost)
    if many == 1:
        return np.array([int(value.argmax())])
    codes = _clusters(gaps, many, seed)
    best = [
        int(inside[value[inside].argmax()]) for c in range(many) if len(inside := np.flatnonzero(codes == c))
    ]
    rest = [int(i) for i in np.argsort(-value) if i not in set(best)]
    chosen = [*best, *rest[: many - len(best)]]
    return np.array(sorted(chosen, key=lambda i: -value[i]))


def _clusters(gaps: np.ndarray, many: int, seed: int, rounds: int = 15) -> np.ndarray:
    """A code per query. A query and its swap are one direction, hence products without their sign."""
    unit = gaps / np.maximum(np.linalg.norm(gaps, axis=1, keepdims=True), 1e-12)
    centres = unit[np.random.default_rng(seed).choice(len(unit), many, replace=False)]
    codes = np.zeros(len(unit), dtype=int)
    for _ in range(rounds):
        product = unit @ centres.T
        codes = np.abs(product).argmax(1)
        signed = unit * np.sign(product[np.arange(len(unit)), codes])[:, None]
        for c in range(many):
            if (codes == c).any():
                mean = signed[codes == c].mean(0)
                centres[c] = mean / max(np.linalg.norm(mean), 1e-12)
    return codes


def _entropy(p: np.ndarray) -> np.ndarray:
    q = np.clip(p, 1e-12, 1 - 1e-12)
    return -(q * np.log2(q) + (1 - q) * np.log2(1 - q))
