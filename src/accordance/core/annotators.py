"""Annotators: how far each can be trusted, from what they said of the same things. No truth needed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from accordance.core.errors import DataError


@dataclass(frozen=True)
class Reliability:
    """What `dawid_skene` found.

    Attributes:
        people: the annotators, m of them.
        items: the things that were judged, k of them.
        classes: the labels, c of them.
        accuracy: probability that each annotator gives the true label, shape [m].
        confusion: P(label given | true label) of each annotator, shape [m, c, c], true label first.
        posterior: P(true label) of each item, shape [k, c].
        prior: share of each true label, shape [c].
        judged: how many labels each annotator gave, shape [m].
        steps: EM steps taken.
    """

    people: tuple[Hashable, ...]
    items: tuple[Hashable, ...]
    classes: tuple[Hashable, ...]
    accuracy: np.ndarray
    confusion: np.ndarray
    posterior: np.ndarray
    prior: np.ndarray
    judged: np.ndarray
    steps: int


def dawid_skene(
    people: Sequence[Hashable] | np.ndarray,
    items: Sequence[Hashable] | np.ndarray,
    labels: Sequence[Hashable] | np.ndarray,
    *,
    smoothing: float = 1.0,
    steps: int = 200,
    tolerance: float = 1e-6,
) -> Reliability:
    """Annotators' confusion matrices and the items' true labels, by EM (Dawid and Skene 1979).

    Starts from the majority, so it finds the solution in which most people are right more often than not: it
    can't tell a crowd that is right from one that is wrong as one. Time and memory are linear in the labels.

    Args:
        people, items, labels: who said what of which, one of each per judgment, shape [n].
        smoothing: imagined labels of each kind per annotator, so that few labels say little.
        steps: at most so many.
        tolerance: largest change of a posterior at which it stops.

    Raises:
        DataError: unequal lengths, fewer than two labels in use, or no item judged twice.
    """
    if not len(people) == len(items) == len(labels):
        raise DataError("judgments come in equal numbers", found=f"{len(people)}, {len(items)}, {len(labels)}")
    who, p = _coded(people)
    things, i = _coded(items)
    classes, y = _coded(labels)
    m, k, c = len(who), len(things), len(classes)
    if c < 2:
        raise DataError("everybody gave the same label, so nothing tells them apart", found=classes)
    if len(np.unique(i * m + p)) == k:
        raise DataError("no item was judged by two people, so nobody can be checked against another")
    said = np.eye(c)[y]
    posterior = _sums(i, said, k)
    posterior /= posterior.sum(1, keepdims=True)
    done = 0
    for done in range(1, steps + 1):  # noqa: B007
        prior = posterior.mean(0)
        counts = np.stack([_sums(p, posterior[i, t][:, None] * said, m) for t in range(c)], axis=1)
        confusion = (counts + smoothing * (np.eye(c) + 1 / c)) / (counts.sum(2, keepdims=True) + 2 * smoothing)
        log = _sums(i, np.log(confusion[p, :, y]), k) + np.log(np.maximum(prior, 1e-12))
        new = np.exp(log - log.max(1, keepdims=True))
        new /= new.sum(1, keepdims=True)
        change = float(np.abs(new - posterior).max())
        posterior = new
        if change < tolerance:
            break
    accuracy = np.einsum("t,mtt->m", prior, confusion)
    judged = np.bincount(p, minlength=m)
    return Reliability(who, things, classes, accuracy, confusion, posterior, prior, judged, done)


def eta_squared(values: Sequence[float] | np.ndarray, groups: Sequence[Hashable] | np.ndarray) -> float:
    """Share of the variance of `values` that lies between groups; NaN where the values do not vary.

    Raises:
        DataError: of unequal lengths.
    """
    data = np.asarray(values, dtype=np.float64)
    if len(data) != len(groups):
        raise DataError("one group per value", found=f"{len(data)} values, {len(groups)} groups")
    names, codes = _coded(groups)
    total = float(((data - data.mean()) ** 2).sum()) if len(data) else 0.0
    if total == 0:
        return float("nan")
    counts = np.bincount(codes, minlength=len(names))
    means = np.bincount(codes, weights=data, minlength=len(names)) / counts
    return float((counts * (means - data.mean()) ** 2).sum() / total)


def _coded(values: Sequence[Hashable] | np.ndarray) -> tuple[tuple[Hashable, ...], np.ndarray]:
    """Names in order of first appearance, and the code of each value."""
    names: dict[Hashable, int] = {}
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    codes = np.fromiter((names.setdefault(v, len(names)) for v in plain), dtype=np.int64, count=len(plain))
    return tuple(names), codes


def _sums(codes: np.ndarray, rows: np.ndarray, many: int) -> np.ndarray:
    """Sums of rows by code, shape [many, columns]."""
    return np.stack([np.bincount(codes, weights=row, minlength=many) for row in rows.T], axis=1)
