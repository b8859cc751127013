"""The part of an explanation that is about people: who disagrees, what is a matter of taste, how far to trust whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from accordance.analysis import cells, figures
from accordance.analysis.aggregation import People, tell_people
from accordance.analysis.features import FIRST
from accordance.analysis.slopes import GroupEffects, random_slopes
from accordance.core import figures as core_figures
from accordance.core.report import Report
from accordance.core.stats import Interval, fdr, wilson

if TYPE_CHECKING:
    from accordance.analysis.explain import Explanation

#: Subjectivity is estimated for at most so many features, the strongest; people need at least so many comparisons.
_SUBJECTIVE, _JUDGED = 15, 5
#: Comparisons from which on a person's agreement is shown, and people shown at each end.
_OFTEN, _ENDS = 20, 12
#: Groups side by side in a table.
_ABREAST = 3


def tell_who(report: Report, found: Explanation, people: People | None, level: float) -> None:
    """Write it into a report.

    Args:
        report: where to.
        found: the explanation.
        people: how far annotators can be trusted, where it is known.
        level: of the false discovery rate.
    """
    _groups(report, found, level)
    _subjectivity(report, found, level)
    _noise(report, found, people)


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
        "How much they differ",
        ["factor", "spread between groups", "q"],
        [[groups.names[j], float(groups.spread[j]), cells.chance(float(groups.q[j]))] for j in order],
        "Spread: standard deviation of the weights from group to group, beyond chance. q: that there is none.",
    )
    by_size = np.argsort(-groups.comparisons)
    for start in range(0, len(by_size), _ABREAST):
        some = by_size[start : start + _ABREAST]
        report.table(
            "Weights per group" + (f", {start + 1} to {start + len(some)}" if len(by_size) > _ABREAST else ""),
            ["factor", *(groups.groups[g] for g in some)],
            [[groups.names[j], *(_cell(groups, g, j) for g in some)] for j in order],
        )
    report.data("disputed", list(disputed))


def _cell(groups: GroupEffects, g: int, j: int) -> Interval | None:
    weight, low, high = (float(a[g, j]) for a in (groups.weight, groups.low, groups.high))
    return Interval(weight, low, high, int(groups.comparisons[g])) if np.isfinite(weight) else None


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
        [
            s.name,
            s.weight,
            s.tau,
            cells.chance(qs),
            cells.share(np.mean(np.sign(s.person_weight) == np.sign(s.weight))),
        ]
        for s, qs in sorted(zip(slopes, q), key=lambda item: -item[0].tau)
    ]
    report.table(
        "Subjectivity",
        ["factor", "weight of all", "spread between people", "q", "people on the same side"],
        lines,
        f"Random slopes over {len(often):,} people with at least {_JUDGED} comparisons. Spread: standard deviation of "
        "people's own weights; q: that there is none. Same side: people whose own weight has the sign of everybody's.",
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
