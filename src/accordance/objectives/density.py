"""Density-ratio weights: make one part of the data follow the distribution of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accordance.core.errors import ConfigError, DataError, MissingExtra


def density_ratio_weights(
    embeddings: ArrayLike,
    target: ArrayLike,
    *,
    low: float = 0.5,
    high: float = 10.0,
    fit_on: int | None = 1024,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Weights under which the rows outside the target follow the distribution of the rows inside.

    BCO's underlying-distribution matching (arXiv:2404.04656): a class-balanced logistic regression on prompt
    embeddings estimates p(target | x), and rows outside the target get its odds, clipped. Balanced, as
    otherwise the odds carry the ratio of the two row counts. Use them as the `weight` of a bundle, for any
    loss.

    Args:
        embeddings: one vector per row, shape [n, d].
        target: True for rows of the distribution to be followed (for BCO, prompts of thumbs up), shape [n].
        low: smallest weight.
        high: largest weight.
        fit_on: at most so many rows of each side are sampled to fit the classifier; None for all.
        seed: of that sample.

    Returns:
        Shape [n]; 1 for rows of the target.

    Raises:
        DataError: shapes do not match, a value is not finite, or one side is empty.
        ConfigError: the clip range is empty or does not hold 1.
        MissingExtra: scikit-learn is not installed.
    """
    x, inside = np.asarray(embeddings, dtype=np.float64), np.asarray(target, dtype=bool)
    _check(x, inside, low, high)
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtra("scikit-learn", "sklearn", "density_ratio_weights") from error

    generator = np.random.default_rng(seed)
    sides = [np.flatnonzero(inside), np.flatnonzero(~inside)]
    if fit_on is not None:
        sides = [generator.permutation(side)[:fit_on] for side in sides]
    rows = np.concatenate(sides)
    classifier = LogisticRegression(class_weight="balanced", max_iter=1000).fit(x[rows], inside[rows])
    # The logit is the log odds: exact where p / (1 - p) would divide by 0.
    odds = np.exp(np.clip(classifier.decision_function(x), np.log(low), np.log(high)))
    return np.where(inside, 1.0, odds)


def _check(x: NDArray[np.float64], inside: NDArray[np.bool_], low: float, high: float) -> None:
    if x.ndim != 2 or inside.shape != (len(x),):
        raise DataError(
            "embeddings and target do not match",
            found=f"shapes {x.shape} and {inside.shape}",
            expected="[n, d] and [n]",
        )
    if not np.isfinite(x).all():
        raise DataError("an embedding is not finite", where=f"row {int(np.argmin(np.isfinite(x).all(1)))}")
    if inside.all() or not inside.any():
        raise DataError(
            "there is nothing to match: all rows are on one side",
            found=f"{int(inside.sum())} of {len(inside)} rows in the target",
        )
    if not 0 < low <= 1 <= high:
        raise ConfigError("the clip range must hold 1", found=(low, high), expected="0 < low <= 1 <= high")
