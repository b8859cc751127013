"""PROFILE: how strongly each factor drives a source of preferences, and where two sources part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats as scipy_stats

from accordance.analysis.features import Differences
from accordance.analysis.regression import Effects, each
from accordance.analysis.table import PairTable
from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.stats import Interval, bootstrap


@dataclass(frozen=True)
class Profile:
    """How strongly each factor drives a source of preferences.

    Attributes:
        names: the factors, m of them.
        tau: per factor (concordant - discordant) / all comparisons, in [-1, 1], with its interval over prompts.
        conditional: the same among comparisons that differ in the factor; NaN where none do, shape [m].
        held: the regression with the controls held fixed; None without controls.
    """

    names: tuple[str, ...]
    tau: tuple[Interval, ...]
    conditional: np.ndarray
    held: Effects | None

    @property
    def scores(self) -> np.ndarray:
        """tau as numbers, shape [m]."""
        return np.array([t.estimate for t in self.tau])


@dataclass(frozen=True)
class Alignment:
    """How alike two profiles are.

    Attributes:
        kendall: tau-b between the rankings of the factors.
        spearman: of the rankings.
        pearson: of the scores.
        gaps: factor -> its score in the first less in the second, largest first.
    """

    kendall: float
    spearman: float
    pearson: float
    gaps: dict[str, float]

    def advice(self, many: int = 3) -> str:
        """What to tell the first source, to bring it nearer to the second."""
        lines = [
            f"{'less' if gap > 0 else 'more'} “{name}” ({gap:+.2f})"
            for name, gap in list(self.gaps.items())[:many]
        ]
        return "Give " + ", ".join(lines) + "."


@system("S057", "PROFILE", paper="arXiv:2410.06965")
def profile(
    table: PairTable,
    made: Differences,
    *,
    controls: Sequence[str] = (),
    samples: int = 1000,
    seed: int = 0,
) -> Profile:
    """Kendall-type scores of factors over a source's preferences.

    Ties in the label are left out; ties in the factor stay in the denominator, so rare factors score low
    (`Profile.conditional` is without them). That form of tau is our reading of the paper, whose code is not public.

    Args:
        table: the source's comparisons; `levels` makes them from texts written at levels of quality.
        made: signed differences of the factors, one row per comparison.
        controls: factors held fixed in `Profile.held`.
        samples, seed: of the bootstrap over prompts.

    Raises:
        DataError: nothing but ties, or rows that don't match.
    """
    if len(made) != len(table):
        raise DataError("one row per comparison", found=f"{len(made)} and {len(table)}")
    some = table.label != 0.5
    if not some.any():
        raise DataError("there are only ties", found=f"{len(table)} comparisons")
    agree = np.sign(made.values[some]) * np.sign(table.sign[some])[:, None]
    clusters = table.prompt[some].tolist()
    differ = (agree != 0).sum(0)
    part = made.select(some).keep([n for n, d in zip(made.names, differ) if d])
    held = None
    if controls:
        held = each(part, table.label[some], table.prompt[some], controls=controls, samples=samples, seed=seed)
    return Profile(
        made.names,
        tuple(bootstrap(column, clusters=clusters, seed=seed, samples=samples) for column in agree.T),
        np.divide(agree.sum(0), differ, out=np.full(len(differ), np.nan), where=differ > 0),
        held,
    )


def align_profiles(first: Profile, second: Profile) -> Alignment:
    """How alike two sources weigh factors.

    Raises:
        DataError: they are profiles of different factors.
    """
    if first.names != second.names:
        raise DataError("profiles of different factors", found=f"{first.names} and {second.names}")
    a, b = first.scores, second.scores
    gaps = sorted(zip(first.names, (a - b).tolist()), key=lambda item: -abs(item[1]))
    return Alignment(
        float(scipy_stats.kendalltau(a, b)[0]),  # type: ignore[arg-type]
        float(scipy_stats.spearmanr(a, b)[0]),  # type: ignore[arg-type]
        float(np.corrcoef(a, b)[0, 1]),
        dict(gaps),
    )


def levels(prompts: Sequence[str], texts: Sequence[Sequence[str]]) -> PairTable:
    """What a model prefers as a writer: texts it wrote at levels of quality, the higher level preferred.

    Args:
        prompts: one per row of `texts`.
        texts: per prompt one text per level, lowest first.
    """
    asked, low, high = [], [], []
    for prompt, row in zip(prompts, texts, strict=True):
        for a, b in combinations(row, 2):
            asked.append(prompt)
            low.append(a)
            high.append(b)
    return PairTable.of(asked, high, low, np.ones(len(asked)))
