"""AdParaphrase: which wording makes a text attractive, told from pairs that mean the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as scipy_stats

from accordance.analysis.features import Differences
from accordance.analysis.regression import Effects, joint
from accordance.analysis.table import PairTable
from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError


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
