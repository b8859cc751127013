"""Who weighs what differently: slopes per group, and slopes that vary from person to person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats as scipy_stats
from scipy.optimize import minimize_scalar
from scipy.special import expit

from accordance.analysis.features import Differences
from accordance.analysis.regression import each, logit
from accordance.analysis.table import PairTable
from accordance.core.errors import DataError
from accordance.core.stats import fdr

#: Nodes and weights of the quadrature over a person's slope.
_NODES, _MASS = np.polynomial.hermite_e.hermegauss(9)


@dataclass(frozen=True)
class GroupEffects:
    """Weights per group, NaN where a group has too little to say.

    Attributes:
        groups: g of them, those with enough comparisons.
        names: the features, m of them.
        weight, low, high, se: per group and feature, per standard deviation over everybody, shape [g, m].
        comparisons: of each group, shape [g].
        spread: standard deviation of the true weights between groups (DerSimonian and Laird 1986), shape [m].
        q: false-discovery-adjusted p-value that all groups weigh a feature alike (Cochran's Q), shape [m].
        apart_q: the same for one group against the others together, shape [g, m].
    """

    groups: tuple[str, ...]
    names: tuple[str, ...]
    weight: np.ndarray
    low: np.ndarray
    high: np.ndarray
    se: np.ndarray
    comparisons: np.ndarray
    spread: np.ndarray
    q: np.ndarray
    apart_q: np.ndarray

    def disputed(self, level: float = 0.05) -> tuple[str, ...]:
        """Features that groups weigh differently, the most spread first."""
        order = np.argsort(-np.nan_to_num(self.spread))
        return tuple(self.names[j] for j in order if self.q[j] <= level)


def by_group(
    made: Differences,
    table: PairTable,
    controls: Sequence[str] = (),
    *,
    codes: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    least: int = 50,
    samples: int = 300,
    seed: int = 0,
) -> GroupEffects | None:
    """One regression per group and feature, controls held fixed, on the scale of everybody's differences.

    Args:
        made: signed differences over all comparisons.
        table: the comparisons.
        controls: features in every regression.
        codes, names: another grouping than the annotators' group (-1: in none), such as topics.
        least: comparisons that a group must have, and of which a fifth must differ in a feature.
        samples: resamples for the intervals.
        seed: of the resampling.

    Returns:
        None where fewer than two groups have enough comparisons.
    """
    code = table.group if codes is None else codes
    called = table.groups if names is None else names
    counts = np.bincount(code[code >= 0], minlength=len(called))
    groups = [g for g in range(len(called)) if counts[g] >= least]
    if len(groups) < 2:
        return None
    scaled = Differences(
        made.names, made.values / np.sqrt(np.average(made.values**2, axis=0, weights=table.weight))
    )
    cells = np.full((4, len(groups), len(made.names)), np.nan)
    for row, g in enumerate(groups):
        inside = code == g
        part, rows = scaled.select(inside), table.select(inside)
        enough = [n for n, c in zip(part.names, (part.values != 0).sum(0)) if c >= least / 5]
        if not enough:
            continue
        clusters, unit = rows.clusters
        held = [c for c in controls if c in enough]
        found = each(
            part.keep(enough), rows.label, clusters, unit,
            controls=held, weight=rows.weight, samples=samples, seed=seed, standardise=False,
        )  # fmt: skip
        places = [part.names.index(n) for n in enough]
        cells[:, row, places] = found.weight, found.low, found.high, found.se
    weight, low, high, se = cells
    spread, p, apart = _heterogeneity(weight, se)
    return GroupEffects(
        tuple(str(called[g]) for g in groups), made.names, weight, low, high, se, counts[groups], spread,
        fdr(p), fdr(apart.ravel()).reshape(apart.shape),
    )  # fmt: skip


def _heterogeneity(weight: np.ndarray, se: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spread between groups, p of none, p of each group against the rest; groups in rows."""
    known = np.isfinite(weight) & (se > 0)
    v = np.where(known, 1 / np.where(known, se, 1) ** 2, 0.0)
    w = np.where(known, weight, 0.0)
    total = v.sum(0)
    mean = np.divide((v * w).sum(0), total, out=np.zeros(len(total)), where=total > 0)
    statistic = (v * (w - mean) ** 2).sum(0)
    free = known.sum(0) - 1
    p = np.where(free > 0, scipy_stats.chi2.sf(statistic, np.maximum(free, 1)), 1.0)
    slack = total - np.divide((v**2).sum(0), total, out=np.zeros(len(total)), where=total > 0)
    spread = np.sqrt(
        np.maximum(np.divide(statistic - free, slack, out=np.zeros(len(total)), where=slack > 0), 0)
    )
    others = total - v
    rest = np.divide((v * w).sum(0) - v * w, others, out=np.zeros_like(v), where=others > 0)
    both = known & (others > 0)
    z = np.abs(w - rest) / np.sqrt(1 / np.where(both, v, 1) + 1 / np.where(both, others, 1))
    return spread, p, np.where(both, 2 * scipy_stats.norm.sf(z), 1.0)


@dataclass(frozen=True)
class Slopes:
    """How much one feature's weight varies between people.

    Attributes:
        name: the feature.
        weight: everybody's weight, per standard deviation of the difference.
        tau: standard deviation of people's weights around it: how subjective the feature is.
        p: p-value of tau 0 (likelihood ratio, half a chi-squared).
        people: the people, as codes of the table.
        person_weight: most probable weight of each of them, drawn towards everybody's where they said little.
    """

    name: str
    weight: float
    tau: float
    p: float
    people: np.ndarray
    person_weight: np.ndarray


def random_slopes(made: Differences, table: PairTable, name: str, controls: Sequence[str] = ()) -> Slopes:
    """One feature's weight as a normal distribution over people, fitted by maximum likelihood.

    Controls have one weight for everybody. Each person's likelihood is integrated by adaptive Gauss-Hermite
    quadrature; time is linear in the comparisons.

    Raises:
        DataError: fewer than two named people.
    """
    named = table.person >= 0
    people, person = np.unique(table.person[named], return_inverse=True)
    if len(people) < 2:
        raise DataError("slopes that vary between people need people", found=f"{len(people)} named annotators")
    part = made.keep([name, *(c for c in controls if c != name)]).select(named)
    x = part.values / np.maximum(np.sqrt((part.values**2).mean(0)), 1e-300)
    y, w = table.label[named], table.weight[named]
    fixed = logit(x, y, w)
    offset, z = x[:, 1:] @ fixed[1:], x[:, 0]

    def likelihood(mean: float, tau: float) -> float:
        return _marginal(mean, tau, z, y, w, offset, person, len(people))[0]

    grid = np.array([0.05, 0.1, 0.2, 0.3, 0.45, 0.65, 0.9, 1.3, 2.0])
    mean = float(fixed[0])
    none = likelihood(mean, 1e-6)
    best = int(np.argmax([likelihood(mean, tau) for tau in grid]))
    low, high = grid[best - 1] if best else 1e-3, grid[min(best + 1, len(grid) - 1)]
    tau = float(grid[best])
    for _ in range(2):
        # Everybody's weight anew at each spread: people's weights are larger than the one they seem to share.
        mean = _maximum(lambda b: likelihood(b, tau), mean - 1 - tau, mean + 1 + tau)  # noqa: B023
        tau = _maximum(lambda t: likelihood(mean, t), low, high)  # noqa: B023
    top, slopes = _marginal(mean, tau, z, y, w, offset, person, len(people))
    gain = max(2 * (top - none), 0.0)
    if gain == 0:
        tau, mean, slopes = 0.0, float(fixed[0]), np.full(len(people), fixed[0])
    return Slopes(name, mean, tau, float(scipy_stats.chi2.sf(gain, 1) / 2) if gain else 1.0, people, slopes)


def _maximum(function: Callable[[float], float], low: float, high: float) -> float:
    found: Any = minimize_scalar(
        lambda x: -function(x), bounds=(low, high), method="bounded", options={"xatol": 1e-3}
    )
    return float(found.x)


def _marginal(
    mean: float, tau: float, z: np.ndarray, y: np.ndarray, w: np.ndarray, offset: np.ndarray,
    person: np.ndarray, many: int,
) -> tuple[float, np.ndarray]:  # fmt: skip
    """Log-likelihood with the slopes integrated out, and each person's most probable slope."""

    def per_person(values: np.ndarray) -> np.ndarray:
        return np.bincount(person, weights=w * values, minlength=many)

    slope = np.full(many, mean)
    curve = np.full(many, 1 / tau**2)
    for _ in range(8):
        p = expit(z * slope[person] + offset)
        curve = per_person(z * z * p * (1 - p)) + 1 / tau**2
        step = (per_person(z * (y - p)) - (slope - mean) / tau**2) / curve
        slope = slope + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-6:
            break
    width = 1 / np.sqrt(curve)
    terms = []
    for node, mass in zip(_NODES, _MASS):
        at = slope + width * node
        eta = z * at[person] + offset
        fit = per_person(y * eta - np.logaddexp(0, eta))
        terms.append(np.log(mass) + node**2 / 2 + fit - (at - mean) ** 2 / (2 * tau**2))
    log = np.logaddexp.reduce(np.stack(terms), axis=0) + np.log(width) - np.log(tau * np.sqrt(2 * np.pi))
    return float(log.sum()), slope
