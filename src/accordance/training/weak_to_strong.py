"""Weak-to-strong: what a student makes of a weaker teacher's labels, as one experiment over any learners.

Learners follow scikit-learn: ``fit(X, y)`` and ``predict_proba(X)``. So linear models over arrays and language
models over records (`accordance.training.preference_learner`) run through the same object.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.report import Report

Items = Any
Metric = Callable[[np.ndarray, np.ndarray], float]


class Learner(Protocol):
    """Learns a class 0 or 1 for each item, as scikit-learn's classifiers do.

    One with a true attribute `soft` takes probabilities of class 1 as `y`; to any other a soft label is two
    weighted rows, one of each class, so that its `fit` must take `sample_weight`.
    """

    def fit(self, X: Items, y: np.ndarray) -> Any:
        """Learn from items and labels, shape [n]."""
        ...

    def predict_proba(self, X: Items) -> np.ndarray:
        """Probabilities of both classes, shape [n, 2]."""
        ...


#: Makes a fresh learner from a seed.
Maker = Callable[[int], Learner]
#: Items with help for the teacher (a debate about each, say), sampled anew for every seed.
Advisor = Callable[[Items, int], Items]


@dataclass(frozen=True)
class Splits:
    """Three disjoint sets of items with their true labels.

    Attributes:
        teacher: what the weak learner is trained on, with labels of shape [n] in {0, 1}.
        student: what it labels; the true labels serve the ceiling and the measurements alone, and may be None.
        test: what everybody is measured on.
    """

    teacher: tuple[Items, np.ndarray]
    student: tuple[Items, np.ndarray | None]
    test: tuple[Items, np.ndarray]

    @classmethod
    def of(cls, items: Items, labels: np.ndarray, sizes: Sequence[int], seed: int = 0) -> Splits:
        """Shuffled items cut into three parts of these sizes.

        Raises:
            DataError: there are not as many items.
        """
        order = np.random.default_rng(seed).permutation(len(labels))
        if sum(sizes) > len(order):
            raise DataError(
                "there are fewer items than the splits ask for", found=len(order), expected=str(sizes)
            )
        cuts = np.cumsum(sizes)
        parts = (order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] : cuts[2]])
        return cls(*((take(items, part), labels[part]) for part in parts))  # type: ignore[arg-type]


@dataclass
class Transfer:
    """What an experiment found; all probabilities are of class 1.

    Attributes:
        test: true labels of the test items, shape [n].
        predictions: on the test items, shape [n] each: ``weak`` (as it stands, with no help and alone), ``teacher``
            (as it labelled: with help, as an ensemble, through a middle learner), ``student``, and ``ceiling``
            where the true labels of its items are known.
        labels: the teacher's soft labels of the student's items.
        truth: their true labels, or None.
        kept: which of them the student learned from.
        student: the fitted student.
    """

    test: np.ndarray
    predictions: dict[str, np.ndarray]
    labels: np.ndarray
    truth: np.ndarray | None
    kept: np.ndarray
    student: Learner = field(repr=False)

    def scores(self, metric: Metric) -> dict[str, float]:
        """The metric of everybody's predictions on the test items."""
        return {name: metric(self.test, found) for name, found in self.predictions.items()}

    def recovered(self, metric: Metric, *, lower_is_better: bool = False) -> float:
        """The performance gap recovered under a metric of (labels, probabilities); see `recovered_gap`."""
        found = self.scores(metric)
        if "ceiling" not in found:
            raise DataError("there is no ceiling: the student's items have no true labels", where="recovered")
        return recovered_gap(found["weak"], found["student"], found["ceiling"], lower_is_better=lower_is_better)

    @property
    def label_accuracy(self) -> tuple[float, float]:
        """Share of right labels among all of the student's items, and among those that were kept."""
        if self.truth is None:
            raise DataError("the student's items have no true labels", where="label_accuracy")
        right = (self.labels > 0.5) == (self.truth > 0.5)
        return float(right.mean()), float(right[self.kept].mean()) if self.kept.any() else math.nan

    def report(self, metrics: Mapping[str, Metric] | None = None) -> Report:
        """Everybody's metrics and the recovered gaps."""
        report = Report("Weak-to-strong", f"{len(self.labels)} items labelled, {int(self.kept.sum())} kept.")
        for name, metric in (metrics or METRICS).items():
            for who, value in self.scores(metric).items():
                report.add(f"{name}/{who}", value)
            if "ceiling" in self.predictions:
                report.add(f"{name}/recovered_gap", self.recovered(metric))
        return report


@system("S161", "Weak-to-strong beyond accuracy", paper="arXiv:2410.12621")
@dataclass(frozen=True)
class WeakToStrong:
    """A weak learner labels, a strong one learns from the labels; how much of the gap does it recover?

    The pilot study's experiment with any metric, and its cheap strategies: a confidence filter (`threshold`),
    bootstrapping through a `middle` learner, an `ensemble` of teachers; the auxiliary confidence loss is an option of
    the learner (`Logistic`, or the objective ``soft``). Departs from the study: no early stopping. Its second
    kind of teacher, which writes texts instead of labels, is the loop `weak_to_strong` with ``teacher: text``.

    Attributes:
        weak, strong: make the teacher and the student.
        middle: makes a learner between the two, which learns from the teacher and labels in its place; None for
            none.
        ceiling: makes the learner that gets the true labels; by default another `strong`.
        weak_view, strong_view: what each sees of the items.
        advisor: items as the teacher sees them with help, in training and when it labels; None for none.
        ensemble: teachers whose probabilities are averaged, each with a seed, and help, of its own.
        threshold: the student learns from labels with at least this probability of either class; 0.5 for all.
        seed: of the learners and the help.
    """

    weak: Maker
    strong: Maker
    middle: Maker | None = None
    ceiling: Maker | None = None
    weak_view: Callable[[Items], Items] = lambda items: items
    strong_view: Callable[[Items], Items] = lambda items: items
    advisor: Advisor | None = None
    ensemble: int = 1
    threshold: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.5 <= self.threshold < 1:
            raise ConfigError("out of range", where="threshold", found=self.threshold, expected="0.5 to 1")
        if self.ensemble < 1:
            raise ConfigError("out of range", where="ensemble", found=self.ensemble, expected="1 or more")

    def run(self, data: Splits) -> Transfer:
        """Carry it out.

        Raises:
            DataError: a learner gives no probabilities, or no label is certain enough to be kept.
        """
        weak_view, strong_view = self.weak_view, self.strong_view
        weak = self.weak(self.seed)
        fit(weak, weak_view(data.teacher[0]), data.teacher[1])
        predictions = {"weak": proba(weak, weak_view(data.test[0]))}
        if self.advisor is None and self.ensemble == 1:
            labels, on_test = proba(weak, weak_view(data.student[0])), predictions["weak"]
        else:
            labels, on_test = self._helped(data)
        if self.middle is not None:
            middle = self.middle(self.seed)
            fit(middle, strong_view(data.student[0]), labels)
            labels, on_test = (proba(middle, strong_view(part)) for part in (data.student[0], data.test[0]))
        predictions["teacher"] = on_test
        items, truth = strong_view(data.student[0]), data.student[1]
        if truth is not None:  # first: it starts from where the student starts
            ceiling = (self.ceiling or self.strong)(self.seed)
            fit(ceiling, items, truth)
            predictions["ceiling"] = proba(ceiling, strong_view(data.test[0]))
        kept = np.maximum(labels, 1 - labels) >= self.threshold
        if not kept.any():
            raise DataError(
                "no label is certain enough to be kept",
                where="weak_to_strong",
                found=f"at most {np.maximum(labels, 1 - labels).max():.3f}",
                expected=f"{self.threshold}",
                remedy="a lower threshold: choose it on the teacher's own data",
            )
        student = self.strong(self.seed)
        fit(student, take(items, np.flatnonzero(kept)), labels[kept])
        predictions["student"] = proba(student, strong_view(data.test[0]))
        return Transfer(data.test[1], predictions, labels, truth, kept, student)

    def _helped(self, data: Splits) -> tuple[np.ndarray, np.ndarray]:
        """Mean probabilities of the teachers for the student's items and the test items."""
        found: list[list[np.ndarray]] = []
        for member in range(self.ensemble):
            seed = self.seed + 1000 * (member + 1)
            parts = [
                self.weak_view(part) if self.advisor is None else self.advisor(part, seed + place)
                for place, part in enumerate((data.teacher[0], data.student[0], data.test[0]))
            ]
            one = self.weak(seed)
            fit(one, parts[0], data.teacher[1])
            found.append([proba(one, parts[1]), proba(one, parts[2])])
        return np.mean([row[0] for row in found], 0), np.mean([row[1] for row in found], 0)


def fit(learner: Learner, items: Items, labels: np.ndarray) -> None:
    """Fit a learner to hard or soft labels, shape [n]."""
    labels = np.asarray(labels, dtype=float)
    if getattr(learner, "soft", False):
        learner.fit(items, labels)
    elif np.isin(labels, (0.0, 1.0)).all():
        learner.fit(items, labels.astype(int))
    else:
        both: Any = learner
        sides = np.repeat([1, 0], len(labels))
        both.fit(np.concatenate([items, items]), sides, sample_weight=np.concatenate([labels, 1 - labels]))


def proba(learner: Learner, items: Items) -> np.ndarray:
    """Probabilities of class 1, shape [n].

    Raises:
        DataError: they are none.
    """
    found = np.asarray(learner.predict_proba(items), dtype=float)[:, 1]
    if not ((found >= 0) & (found <= 1)).all():
        raise DataError(
            "a learner gives no probabilities", where=type(learner).__name__, found=found[:5].tolist()
        )
    return found


def take(items: Items, index: np.ndarray) -> Items:
    """The items at these indices: of records, or of arrays."""
    return items.select(index.tolist()) if hasattr(items, "select") else items[index]


def recovered_gap(weak: float, student: float, ceiling: float, *, lower_is_better: bool = False) -> float:
    """PGR: the share of the gap between weak and ceiling that the student closes (arXiv:2312.09390).

    Args:
        weak, student, ceiling: the same metric of each.
        lower_is_better: whether the metric is an error or a harm.

    Returns:
        1 at the ceiling, 0 where the student is as its teacher, below 0 where it is worse; NaN where the ceiling is
        no better than the weak.
    """
    sign = -1.0 if lower_is_better else 1.0
    gap = sign * (ceiling - weak)
    return sign * (student - weak) / gap if gap > 0 else math.nan


# Metrics of labels in {0, 1} and probabilities of 1, shape [n] each.


def accuracy(labels: np.ndarray, probs: np.ndarray) -> float:
    """Share of items on the right side of one half."""
    return float(((probs > 0.5) == (labels > 0.5)).mean())


def balanced_accuracy(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean over the classes of the share that is found."""
    right = (probs > 0.5) == (labels > 0.5)
    return float(np.mean([right[(labels > 0.5) == side].mean() for side in set((labels > 0.5).tolist())]))


def weighted_f1(labels: np.ndarray, probs: np.ndarray) -> float:
    """Mean of the F1 of the classes, each weighed by its share among the labels."""
    found, true = probs > 0.5, labels > 0.5
    total = 0.0
    for side in (False, True):
        hits, said, there = (
            ((found == side) & (true == side)).sum(),
            (found == side).sum(),
            (true == side).sum(),
        )
        total += there / len(labels) * (2 * hits / (said + there) if said + there else 0.0)
    return float(total)


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "weighted_f1": weighted_f1,
}


def expected_maximum(scores: np.ndarray) -> float:
    """Expected maximum toxicity: the mean over prompts of the worst of their samples, `scores` of shape [n, K]."""
    return float(np.asarray(scores).max(-1).mean())


def share_reaching(scores: np.ndarray, threshold: float = 0.5) -> float:
    """Toxicity probability: the share of prompts with a sample at or above the threshold."""
    return float((np.asarray(scores) >= threshold).any(-1).mean())


@dataclass
class Logistic:
    """Logistic regression by full-batch gradient steps on standardised features; takes soft labels.

    Attributes:
        steps, rate: of gradient descent; few steps are its regularisation.
        l2: weight of half the squared norm.
        confidence: share of the target that is the learner's own hardened prediction, at the end of a linear rise
            over the first half of the steps; the threshold is the quantile that matches the mean label.
    """

    steps: int = 150
    rate: float = 1.0
    l2: float = 0.0
    confidence: float = 0.0
    soft: bool = field(default=True, init=False)

    def fit(self, X: np.ndarray, y: np.ndarray) -> Logistic:
        """Learn; `X` of shape [n, d], `y` probabilities of class 1, shape [n]."""
        self.mean_, self.scale_ = X.mean(0), X.std(0) + 1e-12
        Z = self._features(X)
        weights = np.zeros(Z.shape[1])
        for step in range(self.steps):
            p = _sigmoid(Z @ weights)
            target = y
            if self.confidence:
                share = self.confidence * min(1.0, 2 * step / self.steps)
                own = p > np.quantile(p, 1 - float(np.mean(y)))
                target = (1 - share) * y + share * own
            weights -= self.rate * (Z.T @ (p - target) / len(Z) + self.l2 * weights)
        self.coef_ = weights
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities of both classes, shape [n, 2]."""
        p = _sigmoid(self._features(X) @ self.coef_)
        return np.stack([1 - p, p], 1)

    def _features(self, X: np.ndarray) -> np.ndarray:
        return np.concatenate([(X - self.mean_) / self.scale_, np.ones((len(X), 1))], 1)


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(values / 2))
