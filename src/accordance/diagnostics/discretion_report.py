"""Discretion as a report: kinds of comparisons, arbitrariness, priorities, supremacy and discrepancy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from accordance.analysis import cells
from accordance.analysis.figures import disagreement
from accordance.core import figures
from accordance.core.report import Report
from accordance.core.stats import Interval
from accordance.diagnostics.discretion import CONFLICT, CONSENSUS, INDIFFERENCE, Discretion

#: Conflicts below which a supremacy says little.
_FEW = 20
#: Order-consistency of the oracle below which arbitrariness may be the oracle's.
_STEADY = 0.8


def discretion_report(
    found: Discretion, *, consistency: Sequence[float] | np.ndarray | None = None, source: str = ""
) -> Report:
    """A report of what `discretion` found.

    Args:
        found: what it found.
        consistency: per principle, how often the oracle agreed with itself between orders; see `oracle_votes`.
        source: of the comparisons.

    Returns:
        A report: `arbitrariness`, `priority` and `discrepancy` by annotator, `supremacy` and `conflicts` as matrices.
    """
    total = max(sum(found.kinds.values()), 1)
    report = Report(
        "Discretion", _summary(found), meta={"source": source, "principles": list(found.principles)}
    )
    report.add("comparisons", sum(found.kinds.values()))
    for kind, note in (
        (CONSENSUS, "all principles that apply agree"),
        (CONFLICT, "principles contradict each other: somebody has to choose"),
        (INDIFFERENCE, "no principle takes a side"),
    ):
        report.add(kind, found.kinds[kind] / total, unit="share", note=note, headline=True)
    if found.kinds[INDIFFERENCE] == total:
        report.warn(
            "the judge takes no side on any comparison, so nothing can be said: are these principles that it can judge?"
        )
    _arbitrariness(report, found)
    _priorities(report, found)
    _supremacy(report, found)
    _discrepancy(report, found)
    if consistency is not None:
        _oracle(report, found, np.asarray(consistency, dtype=float))
    return report


def _summary(found: Discretion) -> str:
    total = max(sum(found.kinds.values()), 1)
    told = [
        f"{name} {rate.estimate:.1%}"
        for name, rate in zip(found.annotators[:3], found.arbitrariness)
        if not np.isnan(rate.estimate)
    ]
    shares = f"Principles agree on {found.kinds[CONSENSUS] / total:.0%} of comparisons and conflict on "
    shares += f"{found.kinds[CONFLICT] / total:.0%}."
    return shares + (f" Judged against all of them: {', '.join(told)}." if told else "")


def _arbitrariness(report: Report, found: Discretion) -> None:
    report.section(
        "Arbitrariness",
        "How often an annotator goes against the principles where all of those that apply agree. Errors of the "
        "oracle look the same.",
    )
    rows = list(zip(found.annotators, found.arbitrariness))
    shown = [(name, rate) for name, rate in rows if not np.isnan(rate.estimate)]
    if shown:
        report.figure("Arbitrariness", figures.forest(shown, xlabel="share of comparisons with consensus"))
    columns = ["annotator", "arbitrariness", "standard error", "comparisons with consensus"]
    lines = [
        [name, None if np.isnan(rate.estimate) else cells.share(rate), _numbers(e), n]
        for (name, rate), e, n in zip(rows, found.errors, found.judged)
    ]
    report.table("By annotator", columns, lines)
    report.data(
        "arbitrariness",
        {name: dict(zip(("rate", "low", "high"), _numbers(np.array([r.estimate, r.low, r.high])))) | {"n": n}
         for (name, r), n in zip(rows, found.judged)},
    )  # fmt: skip


def _priorities(report: Report, found: Discretion) -> None:
    report.section(
        "Priorities",
        "Which principle prevails where principles conflict: log-odds, mean 0. Not drawn: what always won, always "
        "lost, or was in no conflict.",
    )
    report.data("priority", {n: _numbers(w) for n, w in zip(found.annotators, found.priority)})
    for i, name in enumerate(found.annotators):
        weights = found.priority[i]
        order = sorted(np.flatnonzero(~np.isnan(weights)), key=lambda c: -weights[c])
        finite = [c for c in order if np.isfinite(weights[c])]
        low, high, met = found.priority_low[i], found.priority_high[i], found.counts[i].sum(1)
        rows = [
            (found.principles[c], Interval(float(weights[c]), float(low[c]), float(high[c]), int(met[c])))
            for c in finite
        ]
        if rows:
            report.figure(
                f"Priorities of {name}", figures.forest(rows, xlabel="priority, log-odds", reference=0.0)
            )
        always = [(found.principles[c], "always won" if weights[c] > 0 else "always lost")
                  for c in order if np.isinf(weights[c])]  # fmt: skip
        if always:
            report.table(f"Without exception with {name}", ["principle", "where it was in conflict"], always)
        if found.prior[i]:
            report.warn(f"{name}: conflicts do not connect all principles, so priorities lean on a weak prior")


def _supremacy(report: Report, found: Discretion) -> None:
    report.section("Supremacy", "How often the row's principle prevails over the column's, and in how many.")
    report.data("supremacy", {n: _numbers(s) for n, s in zip(found.annotators, found.supremacy)})
    report.data("conflicts", {n: c.astype(int).tolist() for n, c in zip(found.annotators, found.counts)})
    names = [f"{k}. {text}" for k, text in enumerate(found.principles, 1)]
    for i, name in enumerate(found.annotators):
        share, count = found.supremacy[i], found.counts[i]
        if not count.any():
            continue
        rows = [
            [text, *(None if np.isnan(share[c, d]) else f"{share[c, d]:.0%} of {int(count[c, d])}"
                     for d in range(len(names)))]
            for c, text in enumerate(names)
        ]  # fmt: skip
        report.table(f"Supremacy with {name}", ["", *(str(k) for k in range(1, len(names) + 1))], rows)
    few = (found.counts > 0) & (found.counts < _FEW)
    if few.any():
        report.warn(
            f"{int(few.sum()) // 2} pairs of principles conflict fewer than {_FEW} times: mind the counts"
        )


def _discrepancy(report: Report, found: Discretion) -> None:
    names, apart = found.annotators, found.discrepancy
    report.data("discrepancy", {n: dict(zip(names, _numbers(row))) for n, row in zip(names, apart)})
    if len(names) < 2:
        return
    report.section(
        "Discrepancy",
        "Share of pairs of principles that two annotators order the other way round; 0.5 is chance.",
    )
    map_ = disagreement(names, names, apart, np.zeros(apart.shape, dtype=bool), label="Kendall distance")
    report.figure("Discrepancy between annotators", map_)
    report.table("Discrepancy", ["", *names], [[n, *_numbers(row)] for n, row in zip(names, apart)])


def _oracle(report: Report, found: Discretion, consistency: np.ndarray) -> None:
    known = consistency[~np.isnan(consistency)]
    report.section("The oracle", "How often the judge of principles took the same side in both orders.")
    report.add(
        "oracle_consistency", float(known.mean()) if len(known) else None, unit="share", good="high",
        note="of comparisons in which it took a side in either order",
    )  # fmt: skip
    rows = [[p, _numbers(c)] for p, c in zip(found.principles, consistency)]
    report.table("By principle", ["principle", "same side in both orders"], rows)
    if len(known) and known.min() < _STEADY:
        report.warn("the oracle contradicts itself between orders: part of the arbitrariness may be its own")


def _numbers(values: np.ndarray) -> list:
    """As plain data: None for what is not known, text for what is infinite."""
    if np.ndim(values):
        return [_numbers(v) for v in values]
    return (
        None if np.isnan(values) else ("inf" if values > 0 else "-inf") if np.isinf(values) else float(values)
    )  # type: ignore[return-value]
