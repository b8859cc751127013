"""Null tests that every analysis owes: what does it find where there is nothing to be found?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accordance.analysis.features import Differences
from accordance.analysis.regression import each
from accordance.analysis.table import PairTable

#: Comparisons that a null test looks at; what is wrong with a test shows there as well.
MOST = 50_000


@dataclass(frozen=True)
class Nulls:
    """What was found in data made meaningless.

    Attributes:
        runs: how often the labels were shuffled.
        runs_with_findings: runs in which any effect survived; about `level` of them may.
        effects: effects tested under shuffled labels, over all runs.
        findings: how many of them survived.
        null_features: features that can't matter, put beside the real ones under the real labels.
        null_findings: how many of them survived.
        largest: the largest |weight| under shuffled labels in each run, shape [runs].
        comparisons: how many were used.
    """

    runs: int
    runs_with_findings: int
    effects: int
    findings: int
    null_features: int
    null_findings: int
    largest: np.ndarray
    comparisons: int


def shuffled(table: PairTable, seed: int = 0) -> PairTable:
    """The same comparisons with the preferred side drawn anew by a fair coin.

    Comparisons of the same two responses keep agreeing or disagreeing as they did (one coin for each two
    responses), so that what hangs together still does.
    """
    two = np.minimum(table.first, table.second) * len(table.texts) + np.maximum(table.first, table.second)
    distinct, code = np.unique(two, return_inverse=True)
    turn = np.random.default_rng(seed).random(len(distinct))[code] < 0.5
    return table.with_labels(np.where(turn, 1 - table.label, table.label))


def null_tests(
    made: Differences,
    table: PairTable,
    controls: Sequence[str] = (),
    *,
    runs: int = 20,
    level: float = 0.05,
    seed: int = 0,
) -> Nulls:
    """Run the analysis on shuffled labels, and on features whose differences belong to other comparisons.

    Args:
        made, table, controls: as in `regression.each`.
        runs: times that labels are shuffled; 0 leaves that out.
        level: of the false discovery rate.
        seed: of the shuffling.
    """
    generator = np.random.default_rng(seed)
    if len(table) > MOST:
        some = np.sort(generator.choice(len(table), MOST, replace=False))
        made, table = made.select(some), table.select(some)
    made = made.keep([n for n, any_ in zip(made.names, (made.values != 0).any(0)) if any_])
    clusters, unit = table.clusters
    options = {"weight": table.weight, "samples": 0}
    counts, largest = [], []
    for run in range(runs):
        label = shuffled(table, seed=seed * 1000 + run).label
        found = each(made, label, clusters, unit, controls=controls, **options)
        counts.append(len(found.survivors(level)))
        largest.append(np.abs(found.weight).max())
    # Rows of other comparisons, each turned round by a coin: as large, as correlated, and about something else.
    coin = generator.choice([-1.0, 1.0], size=len(made))[:, None]
    foreign = Differences(
        tuple(f"null: {name}" for name in made.names), made.values[generator.permutation(len(made))] * coin
    )
    both = Differences.join([made, foreign])
    kept = each(both, table.label, clusters, unit, controls=controls, **options).survivors(level)
    return Nulls(
        runs, sum(c > 0 for c in counts), runs * len(made.names), sum(counts),
        len(foreign.names), sum(name in foreign.names for name in kept), np.array(largest), len(table),
    )  # fmt: skip
