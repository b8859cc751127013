"""A curation as a Report: what was done and why, and what the feedback looked like before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from accordance.core import figures
from accordance.core.record import Record, Records
from accordance.core.report import Report
from accordance.curation.pipeline_account import ADDED, CHANGED, COPIED, DROPPED, MOVED, Curated
from accordance.curation.pipeline_measures import agreement, gap
from accordance.curation.steps_balance import extremes
from accordance.feedback.survey import survey

_ACTIONS = (DROPPED, CHANGED, MOVED, COPIED, ADDED)
_BARS = 12


def curation_report(curated: Curated, recipe: str, *, dry_run: bool = False) -> Report:
    """What a curation did, with the distributions of length, groups, annotators and difficulty before and after.

    Args:
        curated: what came of it.
        recipe: the recipe, as text.
        dry_run: whether nothing was written.
    """
    before, after = curated.original, curated.records
    counted = Counter(touch.action for touch in curated.touches)
    said = (
        ", ".join(f"{counted[action]:,} {action}" for action in _ACTIONS if counted[action])
        or "nothing touched"
    )
    report = Report(
        f"Curation of {before.source}",
        f"{len(before):,} records in, {len(after):,} out: {said}."
        + (" Nothing was written." if dry_run else ""),
        meta={"source": before.source, "fingerprint": before.fingerprint(), "dry_run": dry_run},
    )
    report.add("records_before", len(before), headline=True).add("records_after", len(after), headline=True)
    for action in _ACTIONS:
        report.data(action, counted[action])
    if not len(after):
        report.warn("no record is left")
    _steps(report, curated)
    _compare(report, before, after)
    _examples(report, curated)
    report.code("The recipe", recipe)
    return report


def _steps(report: Report, curated: Curated) -> None:
    report.table(
        "What each step did",
        ["step", "options", "rows in", "rows out", "rows touched", "notes"],
        [
            [
                done.name,
                ", ".join(f"{key}={value}" for key, value in done.options.items()),
                done.read,
                done.kept,
                ", ".join(f"{many:,} {action}" for action, many in done.counts.items()),
                ", ".join(
                    f"{k.replace('_', ' ')} {v:.3g}" if isinstance(v, float) else f"{k.replace('_', ' ')} {v}"
                    for k, v in done.notes.items()
                ),
            ]
            for done in curated.steps
        ],
    )
    report.data("steps", [done.to_dict() for done in curated.steps])
    reasons = sorted(curated.reasons().items(), key=lambda item: -item[1])
    if reasons:
        report.table("Why", ["step", "action", "reason", "rows"], [[*key, many] for key, many in reasons])
        report.data("reasons", [dict(zip(("step", "action", "reason"), k), rows=n) for k, n in reasons])


def _compare(report: Report, before: Records, after: Records) -> None:
    old, new = survey(before), survey(after)
    rows = [
        ["comparisons", old.comparisons, new.comparisons],
        ["of these ties", old.ties, new.ties],
        ["annotators", len(old.annotators), len(new.annotators)],
        ["pairs that one person judged both ways", old.contradictions_same, new.contradictions_same],
        ["pairs that people judged both ways", old.contradictions_between, new.contradictions_between],
    ]
    report.section("Before and after")
    report.table("Counts", ["", "before", "after"], rows)
    for name, found in (("before", old), ("after", new)):
        report.add(
            f"longer_preferred_{name}",
            found.tally.longer_preferred,
            label=f"Longer response preferred, {name}",
            unit="share",
        )
    both = {"before": _distributions(before), "after": _distributions(after)}
    for key, title, label in (
        ("length", "Length", "words of the preferred response less those of the other"),
        ("gap", "Difficulty: how far the values lie apart", "difference of values times strength"),
        ("agreement", "Difficulty: how far people agree", "share of judgments that name the commonest best"),
    ):
        values = {name: found[key] for name, found in both.items() if len(found[key])}
        if values and any(len(np.unique(v)) > 1 for v in values.values()):
            mark = 0.0 if key == "length" else None
            report.figure(title, figures.histogram(values, xlabel=label, mark=mark))
        report.data(key, {name: _summary(found[key]) for name, found in both.items()})
    for title, a, b in (("Groups", old.groups, new.groups), ("Annotators", old.annotators, new.annotators)):
        if a or b:
            report.figure(f"{title}: judgments by each", _paired(a, b), _left_out(a))
            report.data(title.lower(), {"before": dict(a), "after": dict(b)})


def _distributions(records: Records) -> dict[str, np.ndarray]:
    length, gaps, agreed = [], [], []
    for record in records:
        gaps.append(gap(record))
        if len(record.judgments) > 1:
            agreed.append(agreement(record))
        length += _length_differences(record)
    found = {"length": length, "gap": gaps, "agreement": agreed}
    return {name: (array := np.array(v, dtype=float))[np.isfinite(array)] for name, v in found.items()}


def _length_differences(record: Record) -> list[int]:
    ends = [found for found in map(extremes, record.judgments) if found is not None]
    if not ends:
        return []
    words = [len(response.text.split()) for response in record.responses]
    return [words[best] - words[worst] for best, worst in ends]


def _summary(values: np.ndarray) -> dict[str, float | int | None]:
    if not len(values):
        return {"n": 0, "mean": None, "median": None}
    return {"n": len(values), "mean": float(values.mean()), "median": float(np.median(values))}


def _paired(before: Mapping[str, int], after: Mapping[str, int]) -> Figure:
    """Two bars per name, before above after, most frequent names first."""
    names = sorted({*before, *after}, key=lambda name: (-before.get(name, 0), name))[:_BARS]
    figure, axes = figures.new(height=0.9 + 0.4 * max(len(names), 1))
    with matplotlib.rc_context(figures.STYLE):
        places = np.arange(len(names))[::-1]
        for shift, colour, label, counts in (
            (0.18, figures.PALETTE[0], "before", before),
            (-0.18, figures.PALETTE[1], "after", after),
        ):
            axes.barh(places + shift, [counts.get(n, 0) for n in names], height=0.34, color=colour, label=label)
        axes.set_yticks(places, [name[:28] for name in names], color=figures.INK)
        axes.set_xlabel("judgments")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def _left_out(names: Mapping[str, int]) -> str:
    return f"The {_BARS} most frequent of {len(names):,}." if len(names) > _BARS else ""


def _examples(report: Report, curated: Curated, each: int = 2) -> None:
    """A few rows per step and action, with why."""
    shown: Counter[tuple[str, str, str]] = Counter()
    rows = []
    for touch in curated.touches:
        key = touch.name, touch.action, touch.reason
        if touch.action not in (DROPPED, CHANGED) or shown[key] >= each or touch.row >= len(curated.original):
            continue
        shown[key] += 1
        record = curated.original[touch.row]
        rows.append(
            {
                "prompt": f"{touch.origin}: {record.prompt_text}"[:400],
                "what": f"{touch.name}: {touch.action}, {touch.reason}",
                **{f"response {n}": r.text[:400] for n, r in enumerate(record.responses[:2], 1)},
            }
        )
        if len(rows) >= 12:
            break
    if rows:
        report.samples("Some of the rows that were touched", rows)
