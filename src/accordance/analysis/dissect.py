"""Preference dissection: what each judge rewards, property by property, and which judges are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from accordance.analysis.features import FeatureMaker, everything
from accordance.analysis.regression import lasso
from accordance.analysis.table import PairTable
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Records
from accordance.core.report import Report


@dataclass(frozen=True)
class Dissection:
    """What each judge rewards.

    Attributes:
        judges: j of them.
        names: the properties, m of them.
        scenarios: s of them; one where none are told apart.
        weights: log-odds when one response has the property more, shape [j, s, m]; NaN where a judge has too few
            comparisons in a scenario.
        first: what being shown first adds, in log-odds, shape [j, s]; 0 where the order says nothing.
        comparisons: shape [j, s].
    """

    judges: tuple[str, ...]
    names: tuple[str, ...]
    scenarios: tuple[str, ...]
    weights: np.ndarray
    first: np.ndarray
    comparisons: np.ndarray

    @property
    def probability(self) -> np.ndarray:
        """Chance that the response with more of one property is preferred, all else equal, [j, s, m]; 0.5 is none."""
        return expit(self.weights)

    @property
    def similarity(self) -> np.ndarray:
        """Pearson correlation of two judges' weights, averaged over the scenarios that both know, shape [j, j]."""
        j = len(self.judges)
        alike = np.full((j, j), np.nan)
        for a in range(j):
            for b in range(j):
                both = ~np.isnan(self.weights[a, :, 0]) & ~np.isnan(self.weights[b, :, 0])
                pairs = [(self.weights[a, s], self.weights[b, s]) for s in np.flatnonzero(both)]
                found = [np.corrcoef(x, y)[0, 1] for x, y in pairs if x.std() > 0 and y.std() > 0]
                alike[a, b] = float(np.mean(found)) if found else np.nan
        return alike

    def ranked(self, judge: str) -> tuple[str, ...]:
        """Properties from the best-liked of a judge to the least, over scenarios."""
        mean = np.nanmean(self.weights[self.judges.index(judge)], axis=0)
        return tuple(self.names[i] for i in np.argsort(-mean))

    def report(self) -> Report:
        """Preference probabilities per judge, and who judges alike."""
        made = Report("What each judge rewards", f"{len(self.judges)} judges, {len(self.names)} properties.")
        mean = np.nanmean(self.probability, axis=1)
        far = np.nanmax(np.abs(mean - 0.5), axis=0)
        order = [i for i in np.argsort(-far, kind="stable").tolist() if far[i] >= 0.0005]
        rows = [[self.names[i], *map(float, mean[:, i])] for i in order]
        note = "Chance that the response with more of it is preferred, all else equal; 0.5 is indifferent. "
        note += f"The other {len(self.names) - len(order)} properties leave everybody so."
        made.table("Preference probability", ["property", *self.judges], rows, note)
        made.data("probability", {j: dict(zip(self.names, map(float, p))) for j, p in zip(self.judges, mean)})
        if len(self.judges) > 1:
            alike = self.similarity
            rows = [[name, *map(float, row)] for name, row in zip(self.judges, alike)]
            made.table("Who judges alike", ["judge", *self.judges], rows, "Correlation of weights.")
        return made


@system("S053", "Preference dissection", paper="arXiv:2402.11296")
def dissect(
    records: Records | PairTable,
    features: Sequence[FeatureMaker],
    *,
    by: Literal["group", "person"] = "group",
    scenario: Sequence[str] | None = None,
    scale: float = 0.1,
    ordinal: bool = True,
    least: int = 50,
) -> Dissection:
    """Per judge and scenario the weight of each property, as the mode under a Laplace prior, without an intercept.

    Departs from the paper: the most probable weights instead of the mean of sampled ones; and where both sides are
    preferred now and then, being shown first is a property of its own without a prior, so that position bias
    does not leak into the others.

    Args:
        records: comparisons; each group (or person) is a judge.
        features: the properties, such as `JudgeRatings` of 0 to 3.
        by: what a judge is.
        scenario: a tag per comparison of the table, shape [n].
        scale: of the Laplace prior of each weight.
        ordinal: only which response has more of a property counts (-1, 0, 1), as in the paper.
        least: comparisons that a judge must have in a scenario.

    Raises:
        ConfigError: a scale that is not positive.
        DataError: no judge has enough comparisons.
    """
    if scale <= 0:
        raise ConfigError("the scale of the prior is above 0", found=scale)
    table = records if isinstance(records, PairTable) else PairTable.from_records(records)
    made, _ = everything(table, features, least=1)
    x = np.sign(made.values) if ordinal else made.values
    code, called = (table.group, table.groups) if by == "group" else (table.person, table.people)
    tags = (
        np.zeros(len(table), int)
        if scenario is None
        else np.unique(np.asarray(scenario), return_inverse=True)[1]
    )
    scenarios = ("all",) if scenario is None else tuple(str(s) for s in np.unique(np.asarray(scenario)))
    judges = np.unique(code[code >= 0])
    weights = np.full((len(judges), len(scenarios), len(made.names)), np.nan)
    first, counts = np.zeros(weights.shape[:2]), np.zeros(weights.shape[:2], dtype=int)
    penalty = np.append(np.full(len(made.names), 1 / scale), 0.0)
    for j, judge in enumerate(judges):
        for s in range(len(scenarios)):
            rows = (code == judge) & (tags == s)
            counts[j, s] = rows.sum()
            if counts[j, s] < least:
                continue
            part = table.select(rows)
            order = np.ones((len(part), 1)) if part.ordered else np.zeros((len(part), 1))
            found = lasso(np.hstack([x[rows], order]), part.label, penalty, part.weight)
            weights[j, s], first[j, s] = found[:-1], found[-1] if part.ordered else 0.0
    known = np.asarray((~np.isnan(weights)).any(axis=(1, 2)))
    if not known.any():
        raise DataError(
            f"no {by} has {least} comparisons", found=f"{len(judges)} of them, {len(table)} comparisons"
        )
    kept: Any = known
    names = tuple(str(called[j]) for j, ok in zip(judges, kept) if ok)
    return Dissection(names, made.names, scenarios, weights[known], first[known], counts[known])


def clearly_longer(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The paper's property of length: 1 or -1 where one text is clearly longer, else 0.

    Args:
        first, second: words of the two texts, shape [n].
    """
    short, gap = np.minimum(first, second) / np.maximum(np.maximum(first, second), 1), np.abs(first - second)
    clear = ((short <= 0.7) & (gap >= 10)) | ((short <= 0.8) & (gap >= 20)) | ((short <= 0.9) & (gap >= 40))
    return np.where(clear, np.sign(first - second), 0)


__all__ = ["Dissection", "clearly_longer", "dissect"]
