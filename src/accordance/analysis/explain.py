"""`explain`: what these preferences encode. The one pipeline, from Records to a Report.

Feature makers -> signed differences per comparison -> controlled regression -> who differs -> null tests -> Report.
The systems of this room are other feature makers, or other readings of the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accordance.analysis.aggregation import People, annotator_reliability
from accordance.analysis.explain_report import summary, tell
from accordance.analysis.features import FIRST, Differences, FeatureMaker, everything
from accordance.analysis.nulls import Nulls, null_tests, shuffled
from accordance.analysis.principles import PrincipleJudge
from accordance.analysis.regression import Effects, cross_validated, each, joint
from accordance.analysis.riding import riding
from accordance.analysis.slopes import GroupEffects, by_group
from accordance.analysis.table import PairTable
from accordance.analysis.text import LENGTH, TextFeatures
from accordance.core.errors import ConfigError
from accordance.core.flat import FlatPairs
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.core.views import which_attribute


@dataclass(frozen=True)
class Explanation:
    """What the pipeline found, before it is told.

    Attributes:
        table: the comparisons.
        made: signed differences of every feature in use.
        rare: features left out, and in how many prompts (or of how many people) they differ.
        controls: features held fixed.
        single: one feature at a time, controls held fixed.
        together: all features at once.
        raw: one feature at a time, nothing held fixed.
        groups: weights per group; None where there are not two groups with enough comparisons.
        nulls: what was found where nothing is.
        predicted: out-of-sample log-odds per comparison, shape [n].
        predicted_by_controls: the same from the controls only.
    """

    table: PairTable
    made: Differences
    rare: dict[str, int]
    controls: tuple[str, ...]
    single: Effects
    together: Effects
    raw: Effects
    groups: GroupEffects | None
    nulls: Nulls | None
    predicted: np.ndarray
    predicted_by_controls: np.ndarray

    def explained(self, level: float = 0.05) -> tuple[str, ...]:
        """Factors that are preferred (or not) only because of what goes with them, the strongest first.

        Their effect survives with nothing held fixed and does not with the controls held, where less than half of it
        is left.
        """
        found = []
        for name in self.raw.survivors(level):
            i = self.single.names.index(name)
            before, after = self.raw.weight[i], self.single.weight[i]
            if self.single.q[i] > level and after * np.sign(before) < abs(before) / 2:
                found.append(name)
        return tuple(found)


def analyse(
    table: PairTable,
    makers: Sequence[FeatureMaker],
    controls: Sequence[str] = (LENGTH,),
    *,
    samples: int = 1000,
    shuffles: int = 20,
    level: float = 0.05,
    seed: int = 0,
) -> Explanation:
    """The pipeline under every analysis of this room.

    Args:
        table: the comparisons.
        makers: of features; none of them sees the labels.
        controls: features held fixed; where the order shown is known, being shown first is one more.
        samples: bootstrap resamples of people (or of prompts, where people are not named).
        shuffles: null tests with shuffled labels; 0 leaves the null tests out.
        level: of the false discovery rate.
        seed: of all randomness.

    Raises:
        ConfigError: a control that is no feature, or no feature that differs often enough.
    """
    made, rare = everything(table, makers)
    if not table.weight.all():
        made, table = made.select(table.weight > 0), table.select(table.weight > 0)
    held = tuple(controls)
    for name in held:
        if name not in made.names and name not in rare:
            made.column(name)  # raises, with the names that there are
    held = tuple(name for name in held if name in made.names)
    if table.ordered:
        first = Differences((FIRST,), np.ones((len(table), 1)), {FIRST: "the response that was shown first"})
        made, held = Differences.join([made, first]), (*held, FIRST)
    if not made.names:
        raise ConfigError("no feature differs often enough to say anything", found=rare)
    clusters, unit = table.clusters
    options = {"weight": table.weight, "samples": samples, "seed": seed}
    return Explanation(
        table=table,
        made=made,
        rare=rare,
        controls=held,
        single=each(made, table.label, clusters, unit, controls=held, **options),
        together=joint(made, table.label, clusters, unit, **options),
        raw=each(made, table.label, clusters, unit, **options),
        groups=by_group(made, table, held, samples=min(samples, 300), seed=seed),
        nulls=null_tests(made, table, held, runs=shuffles, level=level, seed=seed) if shuffles else None,
        predicted=cross_validated(made, table.label, table.prompt, weight=table.weight, seed=seed),
        predicted_by_controls=cross_validated(made.keep(held), table.label, table.prompt, weight=table.weight)
        if held
        else np.zeros(len(table)),
    )


def explain(
    records: Records | PairTable,
    *,
    features: Sequence[FeatureMaker] | None = None,
    controls: Sequence[str] = (LENGTH,),
    attribute: str | None = None,
    samples: int = 1000,
    shuffles: int = 20,
    level: float = 0.05,
    shuffle_labels: bool = False,
    quality: str | None = None,
    judge: PrincipleJudge | None = None,
    principles: int = 5,
    judged: int = 300,
    seed: int = 0,
) -> Report:
    """What do these preferences encode: which differences make a response preferred, for whom, how surely.

    Args:
        records: feedback with comparisons (or ratings of several responses by one person), or a table of them.
        features: makers of features; rules and statistics of the text by default.
        controls: features held fixed; length by default. Being shown first is held fixed where it is known.
        attribute: judgments of this attribute; None takes overall ones, or the only attribute there is.
        samples: bootstrap resamples of people, or of prompts where people are not named.
        shuffles: times that labels are shuffled for the null test.
        level: of the false discovery rate.
        shuffle_labels: explain shuffled labels instead: nothing should be found.
        quality: the factor that says how good a response is, such as a judge's rating: what rides on it is warned of.
        judge: proposes principles and votes on them (ICAI); None leaves them out.
        principles: how many are looked for.
        judged: comparisons that the judge sees at most, drawn by chance; a third of their prompts is held out.
        seed: of all randomness.

    Returns:
        A report: `effects` has per feature weight, interval, win-rate shift, p, q and the weight that would have been
        found (`detectable`); `survivors` the features whose effect survives; `explained` those that are preferred only
        for what goes with them; `accuracy` is out of sample; `annotators` how far each can be trusted, where two people
        judged one pair; `riding` what rides on quality; `principles_accuracy` what principles give back.

    Raises:
        DataError: there is nothing to compare, or judgments are on several attributes and none is chosen.
        ConfigError: an unknown control.
    """
    given = isinstance(records, PairTable)
    table = records if given else PairTable.from_records(records, attribute)
    if given and attribute is not None:
        raise ConfigError("attribute= has no effect on a table of comparisons")
    if shuffle_labels:
        table = shuffled(table, seed=seed + 77)
    found = analyse(
        table, [TextFeatures()] if features is None else features, controls,
        samples=samples, shuffles=shuffles, level=level, seed=seed,
    )  # fmt: skip
    source = "a table" if given else records.source
    report = Report(
        "What these preferences encode",
        summary(found, level),
        meta={"source": source, "attribute": attribute, "seed": seed, "resamples": samples, "level": level},
    )
    if shuffle_labels:
        report.warn("the labels were shuffled on purpose: whatever is found here is chance")
    people = None if given or shuffle_labels else reliability(records, attribute)
    tell(report, found, people, riding(found, quality, level=level, seed=seed), level=level, seed=seed)
    if judge is not None:
        _constitution(report, table, judge, principles, judged, seed)
    return report


def reliability(records: Records, attribute: str | None = None) -> People | None:
    """How far each annotator of some records can be trusted; None where no two judged the same pair."""
    flat = FlatPairs.of(records)
    wanted = which_attribute(records.materialise(), ("comparison", "rating"), attribute)
    code = -1 if wanted is None else flat.names["attribute"].index(wanted)
    return annotator_reliability(flat.select((flat.attribute == code) & (flat.weight > 0)))


def _constitution(
    report: Report, table: PairTable, judge: PrincipleJudge, many: int, judged: int, seed: int
) -> None:
    """Principles that give back the labels, tested on prompts that they were not made from."""
    from accordance.analysis.icai import inverse_constitution
    from accordance.analysis.icai import report as constitution_report

    if judged < len(table):
        table = table.select(np.sort(np.random.default_rng(seed).choice(len(table), judged, replace=False)))
    found = inverse_constitution(table, judge, many, held_out=1 / 3, seed=seed)
    made = constitution_report(found)
    made.add("judged", len(table), label="Comparisons that the judge saw")
    report.include(made, prefix="principles_")
