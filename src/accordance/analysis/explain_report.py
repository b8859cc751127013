"""An explanation as a report, section by section: weights, length, groups, taste, annotators, quality, nulls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from accordance.analysis import figures
from accordance.analysis.aggregation import People, tell_people
from accordance.analysis.riding import Riding, tell_riding
from accordance.analysis.slopes import random_slopes
from accordance.analysis.table import PairTable
from accordance.analysis.text import LENGTH
from accordance.core import figures as core_figures
from accordance.core.report import Report
from accordance.core.stats import fdr, proportion, wilson

if TYPE_CHECKING:
    from accordance.analysis.explain import Explanation

FIRST = "shown first"
_PLAIN = {LENGTH: "length", FIRST: "order"}
#: Subjectivity is estimated for at most so many features, the strongest; people need at least so many comparisons.
_SUBJECTIVE, _JUDGED = 15, 5
#: Comparisons from which on a person's agreement is shown, and people shown at each end.
_OFTEN, _ENDS = 20, 12


def summary(found: Explanation, level: float) -> str:
    """What was found, in a sentence or two."""
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


def tell(
    report: Report,
    found: Explanation,
    people: People | None = None,
    rides: Riding | None = None,
    *,
    level: float = 0.05,
    seed: int = 0,
) -> Report:
    """Write an explanation into a report: headline numbers, weights, length, groups, subjectivity, null tests.

    Args:
        report: where to.
        found: the explanation.
        people: how far annotators can be trusted, where it is known.
        rides: what rides on quality.
        level: of the false discovery rate.
        seed: of the bootstrap.
    """
    table, effects = found.table, found.single
    names = effects.survivors(level)
    report.add(
        "comparisons", len(table), headline=True, note=f"{table.ties} ties left out" if table.ties else ""
    )
    named = len(np.unique(table.person[table.person >= 0]))
    report.add("people", named, note="" if named else "nobody is named")
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
        share = proportion(right, clusters=clusters, weights=table.weight[decided], seed=seed)
        report.add(key, share, label=label, note=note, unit="share", headline=key == "accuracy")
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
    _noise(report, found, people)
    if rides is not None:
        tell_riding(report, rides)
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
    share = proportion(won, clusters=table.clusters[0][some].tolist(), weights=table.weight[some])
    report.add("longer_preferred", share, label="The longer response is preferred", unit="share")
    if some.sum() >= 60:
        report.figure("Length", figures.length_curve(np.exp(np.abs(gap[some])), won, table.weight[some]))


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


def _noise(report: Report, found: Explanation, people: People | None) -> None:
    """How far to trust whom: by what others said of the same pairs, and by what the factors of all foresee."""
    table = found.table
    if people is None:
        report.data("annotators", None)
    else:
        tell_people(report, people)
    named = table.person >= 0
    judged = np.bincount(table.person[named], minlength=len(table.people))
    often = np.flatnonzero(judged >= _OFTEN)
    if not len(often):
        return
    if people is None:
        report.section(
            "Noise by annotator",
            "No two people judged the same pair, so nobody can be checked against another. How often each agrees with "
            "what the factors of all foresee: noise and a taste of one's own look the same.",
        )
    foreseen = np.where(found.predicted == 0, 0.5, (found.predicted > 0) == (table.label > 0.5))
    rows = []
    for code in often:
        own = (table.person == code) & (table.label != 0.5)
        rows.append((table.people[code], wilson(float(foreseen[own].sum()), int(own.sum()))))
    rows.sort(key=lambda row: -row[1].estimate)
    shown = rows if len(rows) <= 2 * _ENDS else [*rows[:_ENDS], *rows[-_ENDS:]]
    crowd = float(foreseen[table.label != 0.5].mean())
    report.figure(
        "Agreement with the factors of all",
        core_figures.forest(shown, xlabel="share of a person's preferences that are foreseen", reference=crowd),
        f"People with {_OFTEN} comparisons or more; dashed: everybody."
        + ("" if shown is rows else f" The {_ENDS} most and least foreseen of {len(rows):,}."),
    )
    report.data("foreseen", {name: {"share": i.estimate, "low": i.low, "high": i.high} for name, i in rows})


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
