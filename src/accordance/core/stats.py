"""Statistics that every room shares: intervals, tests between two conditions, many tests at once.

Everything is a function of plain arrays; randomness comes from an explicit seed; what can't be estimated from
the data given (no data, one cluster) is NaN, never a confident number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats as scipy_stats

from accordance.core.errors import ConfigError, DataError

#: Cells (resamples x clusters) held at once by the bootstrap of a mean: 32 MB of indices.
_CELLS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it.

    Attributes:
        estimate: the number itself.
        low, high: bounds of the interval; NaN where the data can't tell (no data, a single cluster).
        n: how many independent observations it rests on (clusters, where clustered).
        level: the confidence level.
    """

    estimate: float
    low: float
    high: float
    n: int
    level: float = 0.95

    @property
    def bounds(self) -> tuple[float, float]:
        """(low, high)."""
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927).

    Args:
        successes: how many of `n` succeeded; a tie may count as half.
        n: how many trials. 0 gives NaN throughout: no data says nothing.
        level: confidence level.

    Raises:
        ConfigError: successes outside [0, n], or a level outside (0, 1).
    """
    z = _z(level)
    if n < 0 or not 0 <= successes <= n:
        raise ConfigError(
            "a proportion needs 0 <= successes <= n", found=f"successes={successes}, n={n}", where="wilson"
        )
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, level)
    p = successes / n
    denominator = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / denominator
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / denominator
    # At 0 and n one bound is exact; floating point must not put the estimate outside its own interval.
    return Interval(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), round(n), level)


def bootstrap(
    values: Iterable[float],
    statistic: Callable[[np.ndarray], float] | None = None,
    *,
    clusters: Sequence[Hashable] | None = None,
    weights: np.ndarray | None = None,
    seed: int = 0,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap (Efron 1979) of a statistic, by cluster where observations hang together.

    Args:
        values: the observations, shape [n].
        statistic: from an array of observations to a number; the mean (vectorised) by default.
        clusters: one label per observation; whole clusters are drawn, so that answers to one prompt or by one
            person are not counted as independent.
        weights: of each observation in the mean, shape [n]: 2 stands for the observation twice, 0 for its absence.
        seed: of the resampling.
        samples: resamples.
        level: confidence level.

    Returns:
        The statistic of `values` and its interval; bounds are NaN below two clusters. `n` counts clusters.

    Raises:
        DataError: NaN among the values, or clusters of another length.
        ConfigError: weights of a statistic other than the mean.
    """
    _z(level)
    data = np.asarray(list(values), dtype=np.float64)
    if weights is not None:
        if statistic is not None:
            raise ConfigError("weights have no effect on a statistic other than the mean", where="bootstrap")
        data, clusters, weights = _present(data, clusters, weights)
    labels = _codes(clusters, len(data))
    if np.isnan(data).any():
        raise DataError("NaN among the values", where="bootstrap", found=f"{int(np.isnan(data).sum())} NaN")
    if len(data) == 0:
        return Interval(math.nan, math.nan, math.nan, 0, level)
    many = int(labels.max()) + 1
    estimate = float(np.average(data, weights=weights) if statistic is None else statistic(data))
    if many < 2:
        return Interval(estimate, math.nan, math.nan, many, level)
    generator = np.random.default_rng(seed)
    if statistic is None:
        draws = _bootstrap_means(data, labels, many, samples, generator, weights)
    else:
        members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
        draws = np.array(
            [
                statistic(data[np.concatenate([members[c] for c in generator.integers(many, size=many)])])
                for _ in range(samples)
            ]
        )
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), many, level)


def proportion(
    outcomes: Iterable[float],
    *,
    clusters: Sequence[Hashable] | None = None,
    weights: np.ndarray | None = None,
    seed: int = 0,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Interval of a share: Wilson where every observation stands alone, bootstrap by cluster elsewhere.

    Args:
        outcomes: each in [0, 1] (1 success, 0 failure, 0.5 a tie), shape [n].
        clusters: one label per outcome; observations of one cluster are resampled together.
        weights, seed, samples, level: see `bootstrap`; weights that are all 1 change nothing.

    Returns:
        The mean of the outcomes and its interval. Where all clusters agree the bootstrap has no width, so the
        Wilson interval over clusters is given instead.
    """
    data = np.asarray(list(outcomes), dtype=np.float64)
    if len(data) and (np.isnan(data).any() or data.min() < 0 or data.max() > 1):
        raise DataError("outcomes of a share lie in [0, 1]", where="proportion", found=repr(data[:5]))
    if weights is not None:
        data, clusters, weights = _present(data, clusters, weights)
        weights = None if (weights == 1).all() else weights
    labels = _codes(clusters, len(data))
    many = int(labels.max()) + 1 if len(data) else 0
    if many == len(data) and weights is None:
        return wilson(float(data.sum()), len(data), level)
    drawn = bootstrap(data, clusters=labels.tolist(), weights=weights, seed=seed, samples=samples, level=level)
    if many > 1 and drawn.low < drawn.high:
        return drawn
    mean = float(np.average(data, weights=weights))
    around = wilson(mean * many, many, level)
    return Interval(mean, around.low, around.high, many, level)


def paired_difference(
    after: Sequence[float] | np.ndarray,
    before: Sequence[float] | np.ndarray,
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Mean of `after - before` over paired observations, with a bootstrap interval.

    Raises:
        DataError: the two are of different lengths.
    """
    if len(after) != len(before):
        raise DataError("paired observations come in equal numbers", found=f"{len(after)} and {len(before)}")
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return bootstrap(difference, clusters=clusters, seed=seed, samples=samples, level=level)


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p-value of McNemar's test on paired yes-no outcomes.

    Args:
        b: pairs in which only the first succeeded.
        c: pairs in which only the second succeeded.

    Returns:
        Probability of a split at least this uneven were both equally good; 1 where `b + c` is 0.
    """
    if b < 0 or c < 0:
        raise ConfigError("counts can't be negative", where="mcnemar", found=f"b={b}, c={c}")
    return 1.0 if b + c == 0 else float(scipy_stats.binomtest(min(b, c), b + c, 0.5).pvalue)


def permutation_test(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    *,
    paired: bool = False,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
    samples: int = 9999,
    seed: int = 0,
) -> float:
    """p-value of a difference in means between `a` and `b`, by permutation; exact where there are few.

    Args:
        a, b: observations; of equal length and order where `paired`.
        paired: exchange within pairs rather than between the samples.
        alternative: ``"greater"`` asks whether the mean of `a` is larger.
        samples: permutations drawn; all of them are taken where there are no more than these.
        seed: of the draw.

    Raises:
        DataError: fewer than two observations in a sample (unpaired) or pairs of unequal length.
    """
    if paired and len(a) != len(b):
        raise DataError(
            "paired observations come in equal numbers",
            where="permutation_test",
            found=f"{len(a)} and {len(b)}",
        )
    if min(len(a), len(b)) < 2:
        raise DataError(
            "a test of two samples needs two observations in each",
            where="permutation_test",
            found=f"{len(a)} and {len(b)}",
        )
    result = scipy_stats.permutation_test(
        (np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        n_resamples=samples,
        alternative=alternative,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def fdr(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted for the false discovery rate (Benjamini and Hochberg 1995), in the order given.

    Rejecting where the adjusted value is at most q keeps the expected share of false rejections at or below q.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if len(values) == 0:
        return values
    return np.asarray(scipy_stats.false_discovery_control(values, method="bh"))


def _bootstrap_means(
    data: np.ndarray,
    labels: np.ndarray,
    many: int,
    samples: int,
    generator: np.random.Generator,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Means of `samples` resamples of whole clusters, in blocks so that memory stays bounded."""
    sums = np.bincount(labels, weights=data if weights is None else data * weights, minlength=many)
    counts = np.bincount(labels, weights=weights, minlength=many)
    block = max(1, _CELLS // many)
    means = []
    for start in range(0, samples, block):
        drawn = generator.integers(many, size=(min(block, samples - start), many))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def _present(
    data: np.ndarray, clusters: Sequence[Hashable] | None, weights: np.ndarray
) -> tuple[np.ndarray, Sequence[Hashable] | None, np.ndarray]:
    """The observations that count at all."""
    if len(weights) != len(data):
        raise DataError("one weight per observation", found=f"{len(weights)} and {len(data)}")
    kept = np.flatnonzero(weights > 0)
    return data[kept], None if clusters is None else [clusters[i] for i in kept.tolist()], weights[kept]


def _codes(clusters: Sequence[Hashable] | None, n: int) -> np.ndarray:
    """Cluster labels as 0 .. m - 1 in order of first appearance; every observation its own without labels."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise DataError("one cluster label per observation", found=f"{len(clusters)} labels, {n} observations")
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(label, len(seen)) for label in clusters], dtype=np.int64)


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ConfigError("a confidence level lies between 0 and 1", found=level)
    return float(scipy_stats.norm.ppf((1 + level) / 2))
