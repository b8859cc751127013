"""Feature makers: each turns comparisons into signed differences, first less second, one column per feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from accordance.analysis.table import PEOPLE, PairTable
from accordance.core.errors import ConfigError, DataError, unknown
from accordance.core.scorer import Scorer

#: The feature that is 1 in every comparison: the response that was shown first.
FIRST = "shown first"


@dataclass(frozen=True)
class Differences:
    """Signed differences of features per comparison.

    Attributes:
        names: m of them, each a short phrase that says what there is more of ("refuses", "longer").
        values: first response less second, shape [n, m]; finite.
        notes: what a name means, where the name does not say it all.
        missing: per feature, how many comparisons had no value; they count as no difference.
    """

    names: tuple[str, ...]
    values: np.ndarray
    notes: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names):
            raise DataError(
                "one column per feature", found=f"shape {self.values.shape}", expected=f"[n, {len(self.names)}]"
            )
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})
            raise ConfigError("features of the same name", found=twice)
        if not np.isfinite(self.values).all():
            raise DataError(
                "a feature that is not finite",
                found=self.names[int(np.argwhere(~np.isfinite(self.values))[0][1])],
            )

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> np.ndarray:
        """The values of one feature, shape [n].

        Raises:
            ConfigError: there is no such feature.
        """
        return self.values[:, self._place(name)]

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise unknown("feature", name, self.names)
        return self.names.index(name)

    def select(self, places: Any) -> Differences:
        """The same features of the comparisons at these indices, or where this mask is true."""
        return replace(self, values=self.values[places])

    def keep(self, names: Sequence[str]) -> Differences:
        """Only these features, in this order."""
        return replace(self, names=tuple(names), values=self.values[:, [self._place(n) for n in names]])

    @classmethod
    def join(cls, parts: Sequence[Differences]) -> Differences:
        """Features side by side."""
        return cls(
            tuple(name for part in parts for name in part.names),
            np.concatenate([part.values for part in parts], axis=1),
            {k: v for part in parts for k, v in part.notes.items()},
            {k: v for part in parts for k, v in part.missing.items()},
        )


@runtime_checkable
class FeatureMaker(Protocol):
    """Turns comparisons into signed differences. It must not look at the labels."""

    def differences(self, table: PairTable) -> Differences:
        """First less second, one row per comparison of `table`."""
        ...


@dataclass(frozen=True)
class ByResponse:
    """Features of single responses, from functions of (prompt, text); each response is looked at once.

    Attributes:
        functions: feature -> function; a larger number means more of it.
        ordinal: take the sign of the difference rather than its size, as preference dissection does.
    """

    functions: Mapping[str, Callable[[str, str], float]]
    ordinal: bool = False

    def differences(self, table: PairTable) -> Differences:
        """See `FeatureMaker.differences`."""
        texts = table.texts.to_pylist()
        prompts = table.prompts.to_pylist()
        asked = [prompts[i] for i in table.text_prompt]
        columns = [[float(f(p, t)) for p, t in zip(asked, texts)] for f in self.functions.values()]
        return subtract(table, tuple(self.functions), np.array(columns).T, ordinal=self.ordinal)


@dataclass(frozen=True)
class JudgeRatings:
    """What scorers say of single responses: a judge per property, a reward model, a log-probability.

    Attributes:
        scorers: feature -> scorer. None as a score means "does not apply": no difference, and counted.
        ordinal: take the sign of the difference rather than its size.
    """

    scorers: Mapping[str, Scorer]
    ordinal: bool = False

    def differences(self, table: PairTable) -> Differences:
        """See `FeatureMaker.differences`."""
        texts = table.texts.to_pylist()
        prompts = table.prompts.to_pylist()
        asked = [prompts[i] for i in table.text_prompt]
        columns = []
        for name, scorer in self.scorers.items():
            scores = scorer.score(asked, texts)
            if len(scores) != len(texts):
                raise DataError(
                    "one score per response", where=name, found=len(scores), expected=str(len(texts))
                )
            columns.append([np.nan if s is None else float(s) for s in scores])
        return subtract(table, tuple(self.scorers), np.array(columns).T, ordinal=self.ordinal)


@dataclass(frozen=True)
class Given:
    """Features that are known per comparison already, such as votes on principles."""

    made: Differences

    def differences(self, table: PairTable) -> Differences:
        """See `FeatureMaker.differences`."""
        if len(self.made) != len(table):
            raise DataError("one row per comparison", found=len(self.made), expected=str(len(table)))
        return self.made


def subtract(
    table: PairTable,
    names: Sequence[str],
    values: np.ndarray,
    *,
    notes: Mapping[str, str] | None = None,
    ordinal: bool = False,
) -> Differences:
    """Differences from a value per response.

    Args:
        table: the comparisons.
        names: the features, m of them.
        values: one row per response of `table.texts`, shape [t, m]; NaN where a feature does not apply.
        notes: what the names mean.
        ordinal: the sign of the difference rather than its size.
    """
    gap = values[table.first] - values[table.second]
    absent = np.isnan(gap)
    missing = {name: int(count) for name, count in zip(names, absent.sum(0)) if count}
    gap = np.where(absent, 0.0, gap)
    return Differences(tuple(names), np.sign(gap) if ordinal else gap, dict(notes or {}), missing)


def everything(
    table: PairTable, makers: Sequence[FeatureMaker], least: int = 20
) -> tuple[Differences, dict[str, int]]:
    """All makers' features side by side, without those too rare to say anything about.

    Args:
        table: the comparisons.
        makers: of features.
        least: in at least so many prompts a feature must differ; where intervals are over people (see
            `PairTable.clusters`), for so many of them, or half of them where that is fewer, ten at the least.

    Returns:
        The differences, and the features left out with the number of prompts or people in which they differ.
    """
    made = Differences.join([maker.differences(table) for maker in makers])
    (code, unit), counts = table.clusters, table.weight > 0
    if unit == "people":
        least = min(least, max(PEOPLE, len(np.unique(code)) // 2))
    some = {
        name: len(np.unique(code[(column != 0) & counts])) for name, column in zip(made.names, made.values.T)
    }
    return made.keep([n for n in made.names if some[n] >= least]), {n: c for n, c in some.items() if c < least}
