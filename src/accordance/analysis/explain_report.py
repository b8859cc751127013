"""An explanation as a report, section by section: weights, length, groups, taste, annotators, quality, nulls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from accordance.analysis import cells, figures
from accordance.analysis.aggregation import People
from accordance.analysis.cells import quoted
from accordance.analysis.explain_people import tell_who
from accordance.analysis.features import FIRST
from accordance.analysis.riding import Riding, tell_riding
from accordance.analysis.table import PairTable
from accordance.analysis.text import LENGTH
from accordance.core.report import Report
from accordance.core.stats import proportion

if TYPE_CHECKING:
    from accordance.analysis.explain import Explanation

_PLAIN = {LENGTH: "length", FIRST: "order"}
#: Factors of one kind that the summary names at most.
_NAMED = 6


def summary(found: Explanation, level: float) -> str:
    """What was found, in a sentence or two."""
    effects, names = found.single, found.single.survivors(level)
    if not names:
        return "No difference between responses that was looked at makes one preferred, beyond what chance would show."

    def some(sign: int) -> str:
        chosen = [n for n in names if n != FIRST and np.sign(effects.interval(n).estimate) == sign]
        return ", ".join(map(quoted, chosen[:_NAMED])) + (" and more" if len(chosen) > _NAMED else "")

    held = _held(found)
    parts = [f"preferred: {some(1)}" if some(1) else "", f"not preferred: {some(-1)}" if some(-1) else ""]
    return (
        f"What {len(found.table):,} comparisons reward, {held} held fixed: "
        + "; ".join(p for p in parts if p)
        + f". {len(names)} of {len(effects.names)} effects survive control of the false discovery rate."
        + _explained(found, level)
    )


def _explained(found: Explanation, level: float) -> str:
    names = found.explained(level)
    return f" Explained by {_held(found)}: " + ", ".join(map(quoted, names[:_NAMED])) + "." if names else ""


def _held(found: Explanation) -> str:
    return " and ".join(_PLAIN.get(name, name) for name in found.controls) or "nothing"


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
            "share of preferences that all factors foresee; a coin has 50%",
        ),
        ("accuracy_controls", found.predicted_by_controls, "By the controls alone", ", ".join(found.controls)),
    ):
        right = np.where(odds == 0, 0.5, (odds > 0) == (table.label > 0.5))[decided]
        foreseen = proportion(right, clusters=clusters, weights=table.weight[decided], seed=seed)
        report.add(key, foreseen, label=label, note=note, unit="share", headline=key == "accuracy")
    if found.nulls is not None:
        report.add(
            "shuffled_runs_with_findings", found.nulls.runs_with_findings, headline=True,
            label="Shuffled labels in which an effect was found",
            note=f"of {found.nulls.runs} times that labels were shuffled; about {level:.0%} of them may",
        )  # fmt: skip
    report.data("survivors", list(names))
    report.data("explained", list(found.explained(level)))
    report.data("effects", _plain(found, level))
    _weights(report, found, level)
    _readings(report, found, level)
    _length(report, found)
    _examples(report, found, names)
    tell_who(report, found, people, level)
    if rides is not None:
        tell_riding(report, rides)
    _nulls(report, found, level)
    _warnings(report, found)
    return report


def _plain(found: Explanation, level: float) -> dict[str, dict[str, float]]:
    one, raw, every = found.single, found.raw, found.together
    columns = {
        "weight": one.weight, "low": one.low, "high": one.high, "p": one.p, "q": one.q,
        "detectable": one.detectable(level),
        "shift": one.shift, "shift_low": one.shift_low, "shift_high": one.shift_high,
        "differ": one.differ, "scale": one.scale,
        "raw_weight": raw.weight, "raw_low": raw.low, "raw_high": raw.high, "raw_q": raw.q,
        "all_held_weight": every.weight, "all_held_low": every.low, "all_held_high": every.high, "all_held_q": every.q,
    }  # fmt: skip
    return {
        name: {key: float(column[i]) for key, column in columns.items()} for i, name in enumerate(one.names)
    }


def _weights(report: Report, found: Explanation, level: float) -> None:
    effects = found.single
    order = sorted(effects.names, key=lambda n: -effects.interval(n).estimate)
    held = _held(found)
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
        "Grey: could be chance, after control of the false discovery rate; a weight of "
        f"±{np.median(effects.detectable(level)):.2f} would have been found in four cases of five. Where the hollow "
        "dot lies much nearer to zero, other factors say the same thing.",
    )  # fmt: skip
    by_size = sorted(effects.names, key=lambda n: -abs(effects.interval(n).estimate))
    place = effects.names.index
    report.table(
        "Every factor",
        ["factor", "weight", "win rate", "differ", "q"],
        [
            [
                n,
                effects.interval(n),
                cells.won(effects.shifted(n)),
                cells.share(effects.differ[place(n)]),
                cells.chance(effects.q[place(n)]),
            ]
            for n in by_size
        ],
        f"Weight: log-odds of being preferred per standard deviation more of it, {held} held fixed; 0.4 is 60% to 40%. "
        "Win rate: how often the response with more of it is then preferred, where the two differ in it; 50% is "
        "indifference. Differ: comparisons in which they do. q: p-value under control of the false discovery rate.",
    )
    meant = [[n, found.made.notes[n]] for n in by_size if n in found.made.notes]
    if meant:
        report.table("What they mean", ["factor", "meaning"], meant)
    if found.rare:
        rows = [[name, count] for name, count in sorted(found.rare.items(), key=lambda item: -item[1]) if count]
        never = [name for name, count in found.rare.items() if not count]
        report.table(
            "Left out: too rare",
            ["factor", f"{effects.unit} in whose comparisons the two differ in it"],
            rows,
            f"The two never differ in: {', '.join(never)}." if never else "",
        )
    if found.made.missing:
        report.table(
            "Without a value", ["factor", "comparisons counted as no difference"],
            [[n, c] for n, c in found.made.missing.items()],
        )  # fmt: skip


def _readings(report: Report, found: Explanation, level: float) -> None:
    """The same factors with nothing held fixed and with everything: what is preferred only for what goes with it."""
    place, effects = found.single.names.index, found.single
    held, names = _held(found), found.explained(level)
    about = f"A factor that goes with {held} is preferred for two reasons: for itself, and for {held}. "
    left = f"With {held} held fixed, nothing is left to be seen of {len(names)} of them." if names else ""
    report.section("What explains what", about + left if found.controls else "")
    if names:
        report.table(
            f"Explained by {held}",
            ["factor", "weight, nothing held", "q", f"weight, {held} held", "q "],
            [
                [
                    n,
                    found.raw.interval(n),
                    cells.chance(found.raw.q[place(n)]),
                    effects.interval(n),
                    cells.chance(effects.q[place(n)]),
                ]
                for n in names
            ],
            "By themselves these are preferred (or not) beyond chance; the half or less that is left could be chance.",
        )
    report.table(
        "All factors",
        ["factor", "weight, nothing held", "q", "weight, all factors held", "q "],
        [
            [
                n,
                found.raw.interval(n),
                cells.chance(found.raw.q[place(n)]),
                found.together.interval(n),
                cells.chance(found.together.q[place(n)]),
            ]
            for n in sorted(effects.names, key=lambda n: -abs(found.raw.interval(n).estimate))
        ],
    )


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
        way = "preferred" if found.single.interval(name).estimate > 0 else "not preferred"
        rows.append({"prompt": clip[0], "factor": f"{name}: {way}", "preferred": clip[1], "other": clip[2]})
    if rows:
        report.samples(
            "Seen in the data",
            rows,
            "For each of the strongest factors one comparison: of those that show it, the one with the shortest texts.",
        )


def _plainest(table: PairTable, score: np.ndarray) -> int:
    """Among the comparisons that show something most, the one with the shortest texts."""
    most = np.argsort(-score, kind="stable")[: max(5, len(score) // 50)]
    most = most[score[most] > 0][:200]
    if not len(most):
        return int(np.argmax(score))
    sizes = [sum(len(text) for text in table.pair(int(i))) for i in most]
    return int(most[int(np.argmin(sizes))])


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
