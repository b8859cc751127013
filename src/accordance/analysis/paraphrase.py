"""AdParaphrase: which wording makes a text attractive, told from pairs that mean the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as _compute
from scipy import stats as scipy_stats

from accordance.analysis.features import Differences
from accordance.analysis.regression import Effects, joint
from accordance.analysis.table import PairTable
from accordance.analysis.text import COUNTS, LENGTH, RULES
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.report import Report

pc: Any = _compute  # its functions are made when it is imported, where no type checker sees them


@dataclass(frozen=True)
class Votes:
    """Counted votes on pairs of texts, one entry per pair.

    Attributes:
        first, second: the two texts.
        for_first, for_second, skipped: how many preferred the one, the other, neither; shape [n].
        same, different: how many said that the two mean the same, or don't; shape [n].
    """

    first: Sequence[str]
    second: Sequence[str]
    for_first: np.ndarray
    for_second: np.ndarray
    skipped: np.ndarray
    same: np.ndarray
    different: np.ndarray


@dataclass(frozen=True)
class Wording:
    """What wording does to preference.

    Attributes:
        names: the features, m of them.
        share: among pairs that differ in a feature, how often the preferred text has more of it, shape [m].
        pairs: how many those are, shape [m].
        p: of a binomial test that the share is a half, adjusted by Holm over the features, shape [m].
        phi: effect size, (2 share - 1), which is chi / sqrt(n), shape [m].
        together: all features at once, weighed by the margin of votes.
        used: indices of the pairs that were used: paraphrases with a clear preference.
        not_paraphrases, unclear: how many pairs were left out, and why.
    """

    names: tuple[str, ...]
    share: np.ndarray
    pairs: np.ndarray
    p: np.ndarray
    phi: np.ndarray
    together: Effects | None
    used: np.ndarray
    not_paraphrases: int
    unclear: int

    def significant(self, level: float = 0.05) -> tuple[str, ...]:
        """Features whose effect survives, strongest first."""
        return tuple(self.names[j] for j in np.argsort(-np.abs(self.phi)) if self.p[j] <= level)

    def instructions(self, level: float = 0.05) -> str:
        """What to tell whoever rewrites a text; empty where nothing is known."""
        told = [
            f"{'more' if self.phi[self.names.index(n)] > 0 else 'less'} of: {n}"
            for n in self.significant(level)
        ]
        return "Keep the meaning, and give " + "; ".join(told) + "." if told else ""


@system("S060", "AdParaphrase", paper="arXiv:2502.04674")
def wording(
    votes: Votes,
    features: Callable[[str], Sequence[float]],
    names: Sequence[str],
    *,
    margin: float = 0.7,
    meaning: float = 0.6,
    seed: int = 0,
) -> Wording:
    """Test each feature of wording among pairs that mean the same, then all of them together.

    The margin and the joint regression are our reading of the paper, which shares data and chi-square tests.

    Args:
        votes: on preference and on meaning.
        features: a text's features, m numbers; each text is looked at by itself.
        names: of the features.
        margin: share of all preference votes, skips among them, that the preferred text must have.
        meaning: share of the votes on meaning that must say "the same"; 0 switches the filter off.
        seed: of the bootstrap.

    Raises:
        ConfigError: margin not above a half.
        DataError: no pair is left.
    """
    if not 0.5 <= margin <= 1 or not 0 <= meaning <= 1:
        raise ConfigError("0.5 <= margin <= 1 and 0 <= meaning <= 1", found=f"{margin}, {meaning}")
    asked = votes.same + votes.different
    paraphrase = votes.same >= meaning * asked if meaning else np.ones(len(asked), dtype=bool)
    total = votes.for_first + votes.for_second + votes.skipped
    most = np.maximum(votes.for_first, votes.for_second)
    clear = (total > 0) & (most >= margin * total) & (votes.for_first != votes.for_second)
    used = np.flatnonzero(paraphrase & clear)
    if not len(used):
        raise DataError("no pair of paraphrases with a clear preference", found=f"{len(asked)} pairs")
    values = np.array(
        [[features(votes.first[i]), features(votes.second[i])] for i in used.tolist()], dtype=np.float64
    )
    gap = values[:, 0] - values[:, 1]
    sign = np.where(votes.for_first > votes.for_second, 1.0, -1.0)[used]
    more = (gap * sign[:, None] > 0).sum(0)
    differ = (gap != 0).sum(0)
    p = np.array(
        [scipy_stats.binomtest(int(k), int(n), 0.5).pvalue if n else 1.0 for k, n in zip(more, differ)]
    )
    share = np.divide(more, differ, out=np.full(len(differ), np.nan), where=differ > 0)
    varies = [name for name, n in zip(names, differ) if n]
    together = None
    if varies:
        made = Differences(tuple(names), gap).keep(varies)
        weight = (most / total)[used]
        together = joint(made, (1 + sign) / 2, np.arange(len(used)), "pairs", weight=weight, seed=seed)
    return Wording(
        tuple(names), share, differ, holm(p), np.nan_to_num(2 * share - 1), together, used,
        int((~paraphrase).sum()), int((paraphrase & ~clear).sum()),
    )  # fmt: skip


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted so that the chance of any false rejection stays below the level (Holm 1979)."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    back = np.empty(len(p))
    back[order] = np.minimum(adjusted, 1.0)
    return back


def rerank(
    source: str,
    rewrites: Sequence[str],
    found: Wording,
    features: Callable[[str], Sequence[float]],
    same_meaning: Callable[[str, str], bool],
    *,
    level: float = 0.05,
) -> str:
    """The rewrite that the fitted weights like best among those that keep the meaning; the source where none is better.

    Args:
        source: the text to be rewritten.
        rewrites: candidates.
        found: fitted weights; only significant features count.
        features: as in `wording`.
        same_meaning: whether a rewrite (second) means what the source (first) does.
        level: of significance.
    """
    if found.together is None:
        return source
    weight = np.zeros(len(found.names))
    for name in set(found.significant(level)) & set(found.together.names):
        place = found.together.names.index(name)
        weight[found.names.index(name)] = found.together.weight[place] / found.together.scale[place]
    allowed = [source, *(text for text in rewrites if same_meaning(source, text))]
    return max(allowed, key=lambda text: float(np.asarray(features(text)) @ weight))


def comparisons(votes: Votes, found: Wording) -> PairTable:
    """The pairs that were used as a table, for `explain`."""
    chosen = [int(i) for i in found.used]
    return PairTable.of(
        [""] * len(chosen),
        [votes.first[i] for i in chosen],
        [votes.second[i] for i in chosen],
        (votes.for_first > votes.for_second)[found.used].astype(float),
    )


def votes_of(table: PairTable) -> Votes:
    """The comparisons of a table as counted votes on pairs of texts; ties are skips, nobody was asked about meaning."""
    code = table.texts.dictionary_encode()
    of = code.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    first, second = of[table.first], of[table.second]
    low, high = np.minimum(first, second), np.maximum(first, second)
    pairs, place = np.unique(np.stack([table.prompt, low, high], axis=1), axis=0, return_inverse=True)
    sign = table.sign * np.where(first == low, 1, -1)
    ahead, behind, skipped = (np.bincount(place.ravel(), sign == value, len(pairs)) for value in (1, -1, 0))
    nobody, texts = np.zeros(len(pairs)), code.dictionary
    one, other = (texts.take(pa.array(column)).to_pylist() for column in (pairs[:, 1], pairs[:, 2]))
    return Votes(one, other, ahead, behind, skipped, nobody, nobody)


def surface(texts: Sequence[str]) -> tuple[tuple[str, ...], Callable[[str], Sequence[float]]]:
    """Names of the rules and counts of `TextFeatures`, and a function that gives them for each of some texts."""
    given = list(dict.fromkeys(texts))
    column = pa.array(given, pa.string())
    patterns = (r"[^\s]+", *COUNTS.values())
    values = [np.log1p(np.asarray(pc.count_substring_regex(column, pattern))) for pattern in patterns]
    for pattern in RULES.values():
        values.append(np.asarray(pc.match_substring_regex(column, pattern, ignore_case=True)).astype(float))
    known = dict(zip(given, np.stack(values, axis=1)))
    return (LENGTH, *COUNTS, *RULES), known.__getitem__


def wording_report(found: Wording, source: str, level: float = 0.05) -> Report:
    """Which wording is preferred among pairs that mean the same, as a report."""
    told = found.significant(level)
    report = Report(
        f"Wording that is preferred in {source}", found.instructions(level) or "No feature stands out."
    )
    report.add("pairs", len(found.used), label="Pairs with a clear preference", headline=True)
    report.add("unclear", found.unclear, label="Pairs without one, left out")
    report.add("not_paraphrases", found.not_paraphrases, label="Pairs that mean something else, left out")
    report.add("significant", len(told), label="Features with an effect", note=f"at {level:g}, after Holm")
    order = [j for j in np.lexsort((-np.abs(found.phi), found.p)).tolist() if found.pairs[j]]
    rows = [
        [found.names[j], int(found.pairs[j]), float(found.share[j]), float(found.phi[j]), float(found.p[j])]
        for j in order
    ]
    note = "How often the preferred text has more of it, among pairs that differ in it; p after Holm."
    report.table("Features", ["feature", "pairs that differ", "preferred has more", "phi", "p"], rows, note)
    return report.data("instructions", found.instructions(level))
