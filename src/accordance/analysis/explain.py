"""`explain`: what these preferences encode. The one pipeline, from Records to a Report.

Feature makers -> signed differences per comparison -> controlled regression -> who differs -> null tests -> Report.
The systems of this room are other feature makers, or other readings of the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accordance.analysis import figures
from accordance.analysis.features import Differences, FeatureMaker, everything
from accordance.analysis.nulls import Nulls, null_tests, shuffled
from accordance.analysis.regression import Effects, cross_validated, each, joint
from accordance.analysis.slopes import GroupEffects, by_group, random_slopes
from accordance.analysis.table import PairTable
from accordance.analysis.text import LENGTH, TextFeatures
from accordance.core.errors import ConfigError
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.core.stats import fdr, proportion

FIRST = "shown first"
_PLAIN = {LENGTH: "length", FIRST: "order"}
#: Subjectivity is estimated for at most so many features, the strongest; people need at least so many comparisons.
_SUBJECTIVE, _JUDGED = 15, 5


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
        seed: of all randomness.

    Returns:
        A report: `effects` has per feature weight, interval, win-rate shift, p and q; `survivors` the features
        whose effect survives; `accuracy` is out of sample.

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
        _summary(found, level),
        meta={"source": source, "attribute": attribute, "seed": seed, "resamples": samples, "level": level},
    )
    if shuffle_labels:
        report.warn("the labels were shuffled on purpose: whatever is found here is chance")
    tell(report, found, level=level, seed=seed)
    return report


def _summary(found: Explanation, level: float) -> str:
    effects, names = found.single, found.single.survivors(level)
    if not names:
        return "No difference between responses that was looked at makes one preferred, beyond what chance would show."

    def some(sign: int) -> str:
        chosen = [n for n in names if n != FIRST and np.sign(effects.interval(n).estimate) == sign]
        return ", ".join(f"“{n}”" for n in chosen[:4])

    held = " and ".join(_PLAIN.get(name, name) for name in found.controls) or "nothing"
    parts = [f"preferred: {some(1)}" if some(1) else "", f"not preferred: {some(-1)}" if some(-1) else ""]
    return (
        f"What {len(found.table):,} comparisons reward, {held} held fixed: "
        + "; ".join(p for p in parts if p)
        + f". {len(names)} of {len(effects.names)} effects survive control of the false discovery rate."
    )


def tell(report: Report, found: Explanation, *, level: float = 0.05, seed: int = 0) -> Report:
    """Write an explanation into a report: headline numbers, weights, length, groups, subjectivity, null tests."""
    table, effects = found.table, found.single
    names = effects.survivors(level)
    report.add(
        "comparisons", len(table), headline=True, note=f"{table.ties} ties left out" if table.ties else ""
    )
    people = len(np.unique(table.person[table.person >= 0]))
    report.add("people", people, note="" if people else "nobody is named")
    report.add(
        "effects_found", len(names), label="Effects that survive", headline=True,
        note=f"of {len(effects.names)} tested, at a false discovery rate of {level:.0%}",
    )  # fmt: skip
    decided = table.label != 0.5
    clusters = table.clusters[0][decided].tolist()
    for key, odds, label, note in (
        (
            "accuracy",
            found.predicted,
            "Predicted on unseen prompts",
            "share of preferences that all features foresee",
        ),
        ("accuracy_controls", found.predicted_by_controls, "By the controls alone", ", ".join(found.controls)),
    ):
        right = np.where(odds == 0, 0.5, (odds > 0) == (table.label > 0.5))[decided]
        report.add(key, proportion(right, clusters=clusters, seed=seed), label=label, note=note, unit="share",
                   headline=key == "accuracy")  # fmt: skip
    if found.nulls is not None:
        report.add(
            "shuffled_runs_with_findings", found.nulls.runs_with_findings, headline=True,
            label="Shuffles that found something", note=f"of {found.nulls.runs}; about {level:.0%} may",
        )  # fmt: skip
    report.data("survivors", list(names))
    report.data("effects", {name: _plain(found, name) for name in effects.names})
    _weights(report, found, level)
    _length(report, found)
    _examples(report, found, names)
    _groups(report, found, level)
    _subjectivity(report, found, level)
    _nulls(report, found, level)
    _warnings(report, found)
    return report


def _plain(found: Explanation, name: str) -> dict[str, float]:
    i, one, all_ = found.single.names.index(name), found.single, found.together
    return {
        "weight": one.weight[i], "low": one.low[i], "high": one.high[i], "p": one.p[i], "q": one.q[i],
        "shift": one.shift[i], "shift_low": one.shift_low[i], "shift_high": one.shift_high[i],
        "differ": one.differ[i], "scale": one.scale[i], "raw_weight": found.raw.weight[i],
        "all_held_weight": all_.weight[i], "all_held_low": all_.low[i], "all_held_high": all_.high[i],
        "all_held_q": all_.q[i],
    }  # fmt: skip


def _weights(report: Report, found: Explanation, level: float) -> None:
    effects = found.single
    order = sorted(effects.names, key=lambda n: -effects.interval(n).estimate)
    held = " and ".join(_PLAIN.get(name, name) for name in found.controls) or "nothing"
    report.section(
        "What is rewarded",
        f"Each factor by itself with {held} held fixed. "
        f"Intervals: 95%, bootstrap over {effects.clusters:,} {effects.unit}.",
    )
    rows = [
        (n, effects.interval(n), found.together.interval(n), effects.q[effects.names.index(n)] <= level)
        for n in order
    ]
    report.figure(
        "Factor weights",
        figures.weights(
            rows, xlabel="log-odds of being preferred, per standard deviation more of it",
            main=f"{held} held fixed", other="all factors held fixed",
        ),
        "Grey: could be chance, after control of the false discovery rate. Where the hollow dot lies much nearer to "
        "zero, other factors say the same thing.",
    )  # fmt: skip
    by_size = sorted(effects.names, key=lambda n: -abs(effects.interval(n).estimate))
    place = effects.names.index
    report.table(
        "Every factor",
        ["factor", "weight", "win-rate shift", "differ", "q"],
        [
            [
                n,
                effects.interval(n),
                effects.shifted(n),
                f"{effects.differ[place(n)]:.0%}",
                float(effects.q[place(n)]),
            ]
            for n in by_size
        ],
        "Win-rate shift: how much likelier the response with more of it is preferred than the other. Differ: "
        "comparisons in which the two differ in it. q: p-value under control of the false discovery rate.",
    )
    report.table(
        "Other readings",
        ["factor", "weight, nothing held", "q", "weight, all factors held", "q "],
        [
            [
                n,
                found.raw.interval(n),
                float(found.raw.q[place(n)]),
                found.together.interval(n),
                float(found.together.q[place(n)]),
            ]
            for n in by_size
        ],
    )
    meant = [[n, found.made.notes[n]] for n in by_size if n in found.made.notes]
    if meant:
        report.table("What they mean", ["factor", "meaning"], meant)
    if found.rare:
        rows = [[name, count] for name, count in sorted(found.rare.items(), key=lambda item: -item[1])]
        report.table(f"Left out: they differ in too few {effects.unit}", ["factor", effects.unit], rows)
    if found.made.missing:
        report.table(
            "Without a value", ["factor", "comparisons counted as no difference"],
            [[n, c] for n, c in found.made.missing.items()],
        )  # fmt: skip


def _length(report: Report, found: Explanation) -> None:
    if LENGTH not in found.made.names:
        return
    gap, table = found.made.column(LENGTH), found.table
    some = (gap != 0) & (table.label != 0.5)
    won = ((gap > 0) == (table.label > 0.5))[some].astype(float)
    share = proportion(won, clusters=table.clusters[0][some].tolist())
    report.add("longer_preferred", share, label="The longer response is preferred", unit="share")
    if some.sum() >= 60:
        report.figure("Length", figures.length_curve(np.exp(np.abs(gap[some])), won))


def _examples(report: Report, found: Explanation, names: Sequence[str]) -> None:
    rows = []
    for name in [n for n in names if n not in (FIRST, LENGTH)][:4]:
        score = found.made.column(name) * found.table.sign * np.sign(found.single.interval(name).estimate)
        best = _plainest(found.table, score)
        prompt, chosen, rejected = found.table.pair(best)
        clip = [t if len(t) <= 600 else t[:599] + "…" for t in (prompt, chosen, rejected)]
        rows.append({"prompt": clip[0], "factor": name, "preferred": clip[1], "other": clip[2]})
    if rows:
        report.samples(
            "Seen in the data", rows, "One comparison for each of the strongest factors; not chosen for beauty."
        )


def _plainest(table: PairTable, score: np.ndarray) -> int:
    """Among the comparisons that show something most, the one with the shortest texts."""
    most = np.argsort(-score, kind="stable")[: max(5, len(score) // 50)]
    most = most[score[most] > 0][:200]
    if not len(most):
        return int(np.argmax(score))
    sizes = [sum(len(text) for text in table.pair(int(i))) for i in most]
    return int(most[int(np.argmin(sizes))])


def _groups(report: Report, found: Explanation, level: float) -> None:
    groups = found.groups
    if groups is None:
        return
    disputed = groups.disputed(level)
    report.section(
        "Who disagrees",
        f"{len(disputed)} of {len(groups.names)} factors are weighed differently by the groups."
        if disputed
        else "No factor is weighed differently by the groups, beyond what chance would show.",
    )
    known = [j for j in range(len(groups.names)) if np.isfinite(groups.weight[:, j]).sum() >= 2]
    order = np.array(
        sorted(known, key=lambda j: (groups.q[j] > level, -groups.spread[j], groups.q[j]))[:18], dtype=int
    )
    if not len(order):
        return
    size, apart = np.argsort(-groups.comparisons)[:12], groups.apart_q <= level
    report.figure(
        "Disagreement map",
        figures.disagreement(
            [groups.names[j] for j in order],
            [groups.groups[g] for g in size],
            groups.weight[np.ix_(size, order)].T,
            apart[np.ix_(size, order)].T,
            label="log-odds per standard deviation more of it",
        ),
        "Green: the group prefers more of it; orange: less. Framed: differs from the other groups, after control "
        "of the false discovery rate.",
    )
    report.table(
        "Per group",
        ["factor", "spread between groups", "q", *groups.groups],
        [
            [groups.names[j], float(groups.spread[j]), float(groups.q[j]),
             *({"estimate": a, "low": b, "high": c} if np.isfinite(a) else None
               for a, b, c in zip(groups.weight[:, j], groups.low[:, j], groups.high[:, j]))]
            for j in order
        ],
    )  # fmt: skip
    report.data("disputed", list(disputed))


def _subjectivity(report: Report, found: Explanation, level: float) -> None:
    table = found.table
    judged = np.bincount(table.person[table.person >= 0], minlength=1)
    often = np.flatnonzero(judged >= _JUDGED)
    if len(often) < 8:
        return
    inside = np.isin(table.person, often)
    made, rows = found.made.select(inside), table.select(inside)
    order = sorted(found.single.names, key=lambda n: -abs(found.single.interval(n).estimate))
    slopes = [
        random_slopes(made, rows, name, found.controls)
        for name in order[:_SUBJECTIVE]
        if name != FIRST and (made.column(name) != 0).sum() >= 50
    ]
    if not slopes:
        return
    q = fdr([s.p for s in slopes])
    report.section("What is a matter of taste", "How much the weight of a factor varies from person to person.")
    lines = [
        [s.name, s.weight, s.tau, float(qs), f"{np.mean(np.sign(s.person_weight) == np.sign(s.weight)):.0%}"]
        for s, qs in sorted(zip(slopes, q), key=lambda item: -item[0].tau)
    ]
    report.table(
        "Subjectivity",
        ["factor", "weight of all", "spread between people", "q", "people on the same side"],
        lines,
        f"Random slopes over {len(often):,} people with at least {_JUDGED} comparisons.",
    )
    report.data("subjective", [s.name for s, qs in zip(slopes, q) if qs <= level])


def _nulls(report: Report, found: Explanation, level: float) -> None:
    if found.nulls is None:
        return
    n = found.nulls
    strongest = float(np.abs(found.single.weight).max())
    report.section("Where nothing is to be found", "The same analysis on data made meaningless.")
    report.add("shuffled_findings", n.findings, label="Effects found under shuffled labels",
               note=f"of {n.effects} tested in {n.runs} shuffles of {n.comparisons:,} comparisons")  # fmt: skip
    report.add("null_features_found", n.null_findings, label="Null features found",
               note=f"of {n.null_features}: the same differences, of other comparisons")  # fmt: skip
    report.add("largest_shuffled_weight", float(n.largest.max()), note=f"largest real one: {strongest:.3f}")
    # Binomial tail: more runs with findings than a level-sized test would show in 1 of 1000 cases.
    from scipy.stats import binom

    if binom.sf(n.runs_with_findings - 1, n.runs, level) < 0.001:
        report.warn("shuffled labels still show effects: the intervals and tests here are too confident")


def _warnings(report: Report, found: Explanation) -> None:
    table = found.table
    if found.single.unit == "prompts":
        report.warn(
            "fewer than ten people are named, so intervals are over prompts: they say nothing on how other people "
            "would judge"
        )
    if found.single.clusters < 100:
        report.warn(
            f"only {found.single.clusters} {found.single.unit}: expect wide intervals and missed effects"
        )
    if not table.ordered:
        report.warn("the preferred response always stands first, so position bias can't be told")
    report.text(
        "How to read this",
        "These are associations in the data, not causes: a factor may stand for something that goes with it. "
        "Weights compare two responses to the same prompt.",
    )
