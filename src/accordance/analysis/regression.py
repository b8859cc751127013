"""The controlled regression: which differences make a response preferred, with others held fixed.

Logistic, without an intercept (the two sides are exchangeable; where the order in which they were shown is known,
it enters as a feature of its own), standard errors robust to clusters, intervals by bootstrap over people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy import stats as scipy_stats
from scipy.special import expit

from accordance.analysis.features import Differences
from accordance.core.errors import ConfigError, DataError
from accordance.core.stats import Interval, fdr

#: Log-odds per standard deviation beyond which a weight means "always": what the weak prior below allows.
RIDGE = 1e-2
#: Numbers held for the bootstrap's Hessians, 160 MB; more clusters than fit are drawn in bundles.
_CELLS = 20_000_000


def logit(
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    ridge: float | np.ndarray = RIDGE,
    offset: np.ndarray | float = 0.0,
    start: np.ndarray | None = None,
    steps: int = 60,
) -> np.ndarray:
    """Logistic regression without an intercept, by Newton's method.

    Args:
        x: features, shape [n, m].
        y: outcomes in [0, 1], shape [n].
        weight: of each row, shape [n].
        ridge: precision of a normal prior on each weight; keeps them finite where the classes are separable.
        offset: added to the log-odds, shape [n].
        start: of the weights.
        steps: at most so many Newton steps.

    Returns:
        Weights in log-odds, shape [m].

    Raises:
        DataError: it does not converge.
    """
    m = x.shape[1]
    w = np.ones(len(y)) if weight is None else weight
    penalty = np.broadcast_to(np.asarray(ridge, dtype=np.float64), (m,))
    beta = np.zeros(m) if start is None else start.copy()

    def loss(b: np.ndarray) -> float:
        eta = x @ b + offset
        return float((w * (np.logaddexp(0, eta) - y * eta)).sum() + (penalty * b * b).sum() / 2)

    value = loss(beta)
    for _ in range(steps):
        p = expit(x @ beta + offset)
        gradient = x.T @ (w * (p - y)) + penalty * beta
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        step = -_solve(hessian, gradient)
        size = 1.0
        while (new := loss(beta + size * step)) > value + 1e-10 * (1 + abs(value)) and size > 1e-8:
            size /= 2
        beta, value = beta + size * step, new
        if np.abs(step).max(initial=0.0) < 1e-7:
            return beta
    raise DataError("the regression does not converge", found=f"{len(y)} comparisons, {m} features")


def lasso(
    x: np.ndarray,
    y: np.ndarray,
    penalty: float | np.ndarray,
    weight: np.ndarray | None = None,
    steps: int = 200,
) -> np.ndarray:
    """Logistic regression without an intercept under a Laplace prior: the most probable weights, many exactly 0.

    Args:
        x, y, weight: see `logit`.
        penalty: 1 / scale of the Laplace prior, one or one per feature; 0 leaves a feature unpenalised.
        steps: at most so many quadratic approximations, each solved by coordinate descent.
    """
    m = x.shape[1]
    w = np.ones(len(y)) if weight is None else weight
    cost = np.broadcast_to(np.asarray(penalty, dtype=np.float64), (m,))
    beta = np.zeros(m)

    def loss(b: np.ndarray) -> float:
        eta = x @ b
        return float((w * (np.logaddexp(0, eta) - y * eta)).sum() + (cost * np.abs(b)).sum())

    value = loss(beta)
    for _ in range(steps):
        p = expit(x @ beta)
        gradient = x.T @ (w * (p - y))
        hessian = (x * (w * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ x + 1e-9 * np.eye(m)
        new = beta.copy()
        for _ in range(100):
            before = new.copy()
            for j in range(m):
                slope = gradient[j] + hessian[j] @ (new - beta) - hessian[j, j] * new[j]
                new[j] = -np.sign(slope) * max(abs(slope) - cost[j], 0.0) / hessian[j, j]
            if np.abs(new - before).max(initial=0.0) < 1e-9:
                break
        size = 1.0
        while (after := loss(beta + size * (new - beta))) > value + 1e-12 * (1 + abs(value)) and size > 1e-6:
            size /= 2
        change = np.abs(size * (new - beta)).max(initial=0.0)
        beta, value = beta + size * (new - beta), after
        if change < 1e-7:
            break
    return beta


def select(
    x: np.ndarray, y: np.ndarray, many: int, free: Sequence[int] = (), weight: np.ndarray | None = None
) -> np.ndarray:
    """Indices of at most `many` features that a Laplace prior keeps; those in `free` are controls, always in.

    The penalty is found by bisection (arXiv:2510.26202); columns should be of one scale.
    """
    cost = np.ones(x.shape[1])
    cost[list(free)] = 0.0
    high = float(np.abs(x.T @ ((np.ones(len(y)) if weight is None else weight) * (y - 0.5))).max()) + 1e-9
    low, best = 0.0, np.zeros(0, dtype=np.int64)
    for _ in range(30):
        middle = (low + high) / 2
        kept = np.flatnonzero((lasso(x, y, middle * cost, weight) != 0) & (cost > 0))
        if len(kept) > many:
            low = middle
        else:
            high, best = middle, kept
            if len(kept) == many:
                break
    return best


#: How often `Effects.detectable` asks an effect to be found.
POWER = 0.8


@dataclass(frozen=True)
class Effects:
    """What a controlled regression found, one entry per feature.

    Attributes:
        names: the features, m of them.
        weight: log-odds of being preferred per standard deviation of the difference, shape [m].
        low, high: interval from the bootstrap over clusters.
        se: standard error robust to clusters.
        p: two-sided p-value of weight 0 (t with clusters - 1 degrees of freedom).
        q: `p` adjusted for the false discovery rate over these features.
        scale: the standard deviation (root mean square about 0) of each difference.
        shift: how much likelier the response with more of it is preferred than the other, others held fixed:
            mean of 2 sigmoid(weight |z|) - 1 over comparisons that differ in it, in [-1, 1].
        shift_low, shift_high: its interval.
        differ: share of comparisons that differ in it.
        n: comparisons.
        clusters, unit: how many independent units there are, and what they are (people, prompts).
        controls: features held fixed throughout.
    """

    names: tuple[str, ...]
    weight: np.ndarray
    low: np.ndarray
    high: np.ndarray
    se: np.ndarray
    p: np.ndarray
    q: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    shift_low: np.ndarray
    shift_high: np.ndarray
    differ: np.ndarray
    n: int
    clusters: int
    unit: str
    controls: tuple[str, ...] = ()

    def interval(self, name: str) -> Interval:
        """The weight of one feature with its interval."""
        i = self.names.index(name)
        return Interval(float(self.weight[i]), float(self.low[i]), float(self.high[i]), self.clusters)

    def shifted(self, name: str) -> Interval:
        """The win-rate shift of one feature with its interval."""
        i = self.names.index(name)
        return Interval(
            float(self.shift[i]), float(self.shift_low[i]), float(self.shift_high[i]), self.clusters
        )

    def detectable(self, level: float = 0.05) -> np.ndarray:
        """The size of weight that would have survived in four cases of five (`POWER`), shape [m].

        An effect that is not found is no larger than this, or was missed by bad luck. The p-value that survives is
        the largest that control of the false discovery rate admits beside those that did.
        """
        alpha = level * max(len(self.survivors(level)), 1) / len(self.names)
        free = max(self.clusters - 1, 1)
        return (scipy_stats.t.isf(alpha / 2, free) + scipy_stats.norm.isf(1 - POWER)) * self.se

    def survivors(self, level: float = 0.05) -> tuple[str, ...]:
        """Features whose effect survives control of the false discovery rate, strongest first."""
        order = np.argsort(-np.abs(self.weight))
        return tuple(self.names[i] for i in order if self.q[i] <= level)


def joint(
    made: Differences,
    label: np.ndarray,
    clusters: np.ndarray,
    unit: str = "prompts",
    *,
    weight: np.ndarray | None = None,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    ridge: float = RIDGE,
    standardise: bool = True,
) -> Effects:
    """All features in one regression: each effect with all others held fixed.

    Args:
        made: signed differences, n rows.
        label: 1 the first was preferred, 0 the second, shape [n].
        clusters: codes of what hangs together, shape [n]; whole clusters are drawn in the bootstrap.
        unit: what the clusters are.
        weight: of each comparison, shape [n]: 2 is the comparison twice, 0 its absence.
        samples: resamples; each is one Newton step from the estimate, on the resample's own score and Hessian,
            so that time is linear in the comparisons and does not grow with the resamples. 0 gives no intervals.
        seed: of the resampling.
        level: of the intervals.
        ridge: see `logit`.
        standardise: divide by the standard deviation; otherwise weights are per unit of the difference.

    Raises:
        DataError: nothing to regress on, or lengths that differ.
    """
    if not len(made) == len(label) == len(clusters):
        raise DataError("rows don't match", found=f"{len(made)}, {len(label)}, {len(clusters)}")
    if weight is not None and not weight.all():
        counts = weight > 0
        made, label, clusters, weight = made.select(counts), label[counts], clusters[counts], weight[counts]
    varies = (made.values != 0).any(0) if len(made) else np.zeros(len(made.names), dtype=bool)
    if not varies.all():
        raise DataError("a feature never differs", found=[n for n, some in zip(made.names, varies) if not some])
    w = np.ones(len(label)) if weight is None else weight
    scale = np.sqrt(np.average(made.values**2, axis=0, weights=w)) if standardise else np.ones(len(made.names))
    x = made.values / scale
    beta = logit(x, label, w, ridge=ridge)
    score, hessian, many = _by_cluster(x, label, w, beta, clusters, seed)
    penalty = np.full(len(beta), ridge)
    curve = np.linalg.inv(hessian.sum(0) + np.diag(penalty))
    robust = curve @ (score.T @ score) @ curve * len(score) / max(len(score) - 1, 1)
    se = np.sqrt(np.maximum(np.diag(robust), 0))
    p = 2 * scipy_stats.t.sf(np.abs(beta) / np.maximum(se, 1e-300), max(len(score) - 1, 1))
    p = np.where(se > 0, p, 1.0) if many > 1 else np.ones(len(beta))
    draws = _one_step(beta, score, hessian, penalty, samples if many > 1 else 0, seed)
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(draws, ends, axis=0) if len(draws) else np.full((2, len(beta)), np.nan)
    shift, shift_low, shift_high = (_shift(x, b, w) for b in (beta, low, high))
    return Effects(
        made.names, beta, low, high, se, p, fdr(p), scale, shift, shift_low, shift_high,
        np.average(x != 0, axis=0, weights=w), len(label), many, unit,
    )  # fmt: skip


def each(
    made: Differences,
    label: np.ndarray,
    clusters: np.ndarray,
    unit: str = "prompts",
    *,
    controls: Sequence[str] = (),
    **options: object,
) -> Effects:
    """One feature at a time, with only the controls held fixed; controls themselves stand alone.

    Args:
        made, label, clusters, unit: see `joint`.
        controls: names of features that are in every regression.
        options: see `joint`.

    Raises:
        ConfigError: a control that is no feature.
    """
    for name in controls:
        made.column(name)
    found = []
    for name in made.names:
        part = made.keep([name, *(c for c in controls if c != name)] if name not in controls else [name])
        found.append(joint(part, label, clusters, unit, **options))  # type: ignore[arg-type]
    if not found:
        raise ConfigError("there are no features")
    arrays = ("weight", "low", "high", "se", "p", "scale", "shift", "shift_low", "shift_high", "differ")
    first = {name: np.array([getattr(one, name)[0] for one in found]) for name in arrays}
    return Effects(
        names=made.names,
        q=fdr(first["p"]),
        n=found[0].n,
        clusters=found[0].clusters,
        unit=unit,
        controls=tuple(controls),
        **first,
    )


def cross_validated(
    made: Differences,
    label: np.ndarray,
    groups: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    folds: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Log-odds predicted for each comparison by a regression that has not seen its group, shape [n]."""
    w = np.ones(len(label)) if weight is None else weight
    scale = np.sqrt(np.average(made.values**2, axis=0, weights=w))
    x = made.values / np.where(scale > 0, scale, 1)
    distinct, code = np.unique(groups, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(len(distinct))[code] % folds
    predicted = np.zeros(len(label))
    for k in range(folds):
        out = fold == k
        if out.any() and not out.all():
            predicted[out] = x[out] @ logit(x[~out], label[~out], w[~out])
    return predicted


def _by_cluster(
    x: np.ndarray, y: np.ndarray, w: np.ndarray, beta: np.ndarray, clusters: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Score [C, m] and Hessian [C, m, m] of each cluster (or random bundle of clusters), and how many clusters."""
    distinct, code = np.unique(clusters, return_inverse=True)
    many, m = len(distinct), x.shape[1]
    units = min(many, max(200, _CELLS // (m * m)), 5000)
    if units < many:  # a bundle of whole clusters is a cluster: coarser, and as right
        code = np.random.default_rng(seed).permutation(many)[code] % units
    gather = sparse.csr_array((np.ones(len(y)), (code, np.arange(len(y)))), shape=(units, len(y)))
    p = expit(x @ beta)
    score = gather @ (x * (w * (y - p))[:, None])
    curve = w * p * (1 - p)
    hessian = np.stack([gather @ (x * (curve * x[:, k])[:, None]) for k in range(m)], axis=1)
    return np.asarray(score), hessian, many


def _one_step(
    beta: np.ndarray, score: np.ndarray, hessian: np.ndarray, penalty: np.ndarray, samples: int, seed: int
) -> np.ndarray:
    """Weights under resamples of clusters, one Newton step from `beta` each, shape [samples, m]."""
    units, m = score.shape
    made, flat = [], hessian.reshape(units, m * m)
    for start in range(0, samples, 100):
        times = _resamples(units, samples, seed)[start : start + 100].astype(np.float64)
        curve = (times @ flat).reshape(-1, m, m) + np.diag(penalty)
        slope = times @ score - penalty * beta
        made.append(beta + np.linalg.solve(curve, slope[..., None])[..., 0])
    return np.concatenate(made) if made else np.zeros((0, m))


@lru_cache(maxsize=8)
def _resamples(units: int, samples: int, seed: int) -> np.ndarray:
    """How often each unit is drawn in each resample, shape [samples, units]; kept, as many regressions share it."""
    generator = np.random.default_rng(seed + 1)
    drawn = generator.integers(units, size=(samples, units), dtype=np.int32)
    return np.stack([np.bincount(row, minlength=units) for row in drawn]).astype(np.uint8)


def _shift(x: np.ndarray, beta: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Mean of 2 sigmoid(beta |z|) - 1 over the rows that differ, per feature."""
    shift = np.full(len(beta), np.nan)
    for j, b in enumerate(beta):
        some = x[:, j] != 0
        if some.any() and np.isfinite(b):
            shift[j] = np.average(np.tanh(b * np.abs(x[some, j]) / 2), weights=w[some])
    return shift


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        return np.linalg.lstsq(matrix, right, rcond=None)[0]
