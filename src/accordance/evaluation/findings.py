"""What stands below the headlines of an evaluation: groups, margins, how answers are written, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np

from accordance.core import figures
from accordance.core.policy import Completion
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.core.stats import Interval, bootstrap, paired_difference, proportion
from accordance.evaluation.judging import Verdicts
from accordance.evaluation.likelihood import PairTable
from accordance.evaluation.sampling import Answers
from accordance.evaluation.saving import prompt_text

#: A share of unfinished answers above which the report warns.
_UNFINISHED = 0.1
#: Rows in a forest plot; more are in the table.
_ROWS = 20


def groups(report: Report, pairs: PairTable | None, verdicts: Verdicts | None, *, seed: int) -> None:
    """Accuracy and win rate of every group, accuracy of every attribute; always writes `by_group`."""
    found: dict[str, dict[str, Interval]] = {}
    if pairs is not None:
        for name in sorted({g for g in pairs.group if g is not None}):
            part = pairs.where(np.array([g == name for g in pairs.group], dtype=bool))
            found.setdefault(name, {})["preference_accuracy"] = part.accuracy(part.margin, seed)
    for name, own in ({} if verdicts is None else verdicts.groups).items():
        if own.missing < len(own.win):
            found.setdefault(name, {})["win_rate"] = own.win_rate(seed=seed)
    report.data("by_group", {name: _flat(numbers) for name, numbers in found.items()})
    attributes: dict[str, Interval] = {}
    if pairs is not None:
        for name in sorted({a for a in pairs.attribute if a is not None}):
            part = pairs.where(np.array([a == name for a in pairs.attribute], dtype=bool))
            attributes[name] = part.accuracy(part.margin, seed)
    report.data("by_attribute", {n: _flat({"preference_accuracy": i}) for n, i in attributes.items()})
    if not found and len(attributes) < 2:
        return
    report.section("Who is served", "The same numbers for each group of people, and for what was judged.")
    for key, title in (
        ("win_rate", "Win rate by group"),
        ("preference_accuracy", "Preference accuracy by group"),
    ):
        rows = [(name, numbers[key]) for name, numbers in found.items() if key in numbers]
        _forest(report, title, rows)
    if len(attributes) > 1:
        _forest(report, "Preference accuracy by attribute", list(attributes.items()))
    if found:
        report.table(
            "By group",
            ["group", "win rate", "prompts answered", "preference accuracy", "prompts of pairs"],
            [
                [name, *_with_n(n.get("win_rate")), *_with_n(n.get("preference_accuracy"))]
                for name, n in found.items()
            ],
            note="Estimates with 95% intervals, by prompt.",
        )
    overall = None if verdicts is None else verdicts.win_rate(seed=seed)
    for name, numbers in found.items():
        own_rate = numbers.get("win_rate")
        if overall is not None and overall.low > 0.5 and own_rate is not None and own_rate.high < 0.5:
            report.warn(
                f"{name} prefer the answers before ({100 * own_rate.estimate:.0f}% wins), though the policy wins "
                "overall: what was gained for the others was lost for them."
            )


def account(report: Report, records: Records) -> None:
    """What became of every row that was read; always writes `records`."""
    kept = records.account
    report.data("records", kept)
    if not kept.dropped and not kept.notes:
        return
    report.section(
        "What was read", f"{kept.read} rows read, {kept.kept} kept, {kept.read - kept.kept} dropped."
    )
    rows = [["dropped", reason, count] for reason, count in kept.dropped.most_common()]
    rows += [["kept", note, count] for note, count in kept.notes.most_common()]
    report.table("Rows", ["", "why", "rows"], rows)


def preferences(report: Report, pairs: PairTable, *, seed: int) -> None:
    """How the held-out pairs lie: margins, likelihood accuracy, and where the log-probabilities went."""
    report.section(
        "Held-out preferences", "What the policy's log-probabilities say about comparisons it never saw."
    )
    per_token = pairs.accuracy(pairs.margin_per_token, seed)
    report.add(
        "preference_accuracy_per_token", per_token, unit="share", label="Preference accuracy, rewards per token"
    )
    report.add(
        "likelihood_accuracy",
        pairs.accuracy(pairs.likelihood_margin, seed),
        unit="share",
        label="Chosen is likelier than rejected (log pi)",
    )
    report.add(
        "likelihood_accuracy_per_token",
        pairs.accuracy(pairs.likelihood_margin_per_token, seed),
        unit="share",
        label="Chosen is likelier than rejected, per token",
    )
    report.add("margin", pairs.mean(pairs.margin, seed), unit="nats", label="Mean reward margin")
    if pairs.ref_chosen is not None:
        fell = float(np.mean(pairs.chosen_change < 0))
        report.add("chosen_fell", fell, unit="share", label="Pairs whose chosen response became less likely")
    report.figure(
        "Reward margins",
        figures.histogram(
            {"held-out pairs": pairs.margin}, xlabel="chosen minus rejected (nats)", ylabel="pairs", mark=0
        ),
        "Right of the line the policy agrees with the judgment.",
    )
    if pairs.ref_chosen is None:
        return
    report.figure(
        "Where the log-probabilities went",
        figures.scatter(
            pairs.rejected_change,
            pairs.chosen_change,
            xlabel="change of rejected (nats)",
            ylabel="change of chosen (nats)",
            zero=True,
            diagonal=True,
        ),
        "One dot per pair. Above the dashed line the margin grew; below zero the response became less likely.",
    )
    change = pairs.mean(pairs.chosen_change, seed)
    if change.high < 0:
        down = pairs.mean(pairs.rejected_change, seed)
        both = f", and the rejected ones by {-down.estimate:.1f}" if down.high < 0 else ""
        report.warn(
            f"The chosen responses became less likely, by {-change.estimate:.1f} nats each on average{both}. "
            "Preference losses push only the difference; where both fall, the probability goes to responses that "
            "nobody judged. Look at the samples; a larger beta, an SFT term or a lower learning rate counters it."
        )


def answers(report: Report, made: Answers, verdicts: Verdicts | None, *, seed: int, exact: bool) -> None:
    """Lengths, repetition, endings, distance, and how the verdicts depend on order and length."""
    report.section("Sampled answers", f"{len(made)} answers to {len(set(made.keys))} held-out prompts.")
    _writing(report, made, seed)
    if verdicts is not None:
        _order(report, verdicts, seed)
    sides = {"after": made.length(made.after)}
    if made.before is not None:
        sides = {"before": made.length(made.before), **sides}
    report.figure(
        "Lengths of answers", figures.histogram(sides, xlabel=f"length ({made.unit})", ylabel="answers")
    )
    ratio = made.log_ratio
    if ratio is not None and np.isfinite(ratio).any():
        report.figure(
            "Distance from the reference",
            figures.histogram({"answers": ratio}, xlabel="log pi - log ref (nats)", ylabel="answers", mark=0),
            "Of each sampled answer. Their mean estimates the KL divergence.",
        )
        if not exact:
            report.warn(
                "KL is over answers sampled at another temperature or top_p than 1: it is not the KL of the policy "
                "itself, and the log-probabilities are."
            )
    if verdicts is not None and made.before is not None:
        _length_and_winning(report, made, verdicts, seed)


def side_by_side(report: Report, made: Answers, verdicts: Verdicts | None, *, show: int, seed: int) -> None:
    """A few answers before and after, drawn by the seed rather than picked."""
    if not show:
        return
    picked = sorted(np.random.default_rng(seed).permutation(len(made))[:show].tolist())
    rows = []
    for i in picked:
        row: dict[str, Any] = {"prompt": prompt_text(made.prompts[i])}
        if verdicts is not None and not np.isnan(verdicts.win[i]):
            row["after wins"] = float(verdicts.win[i])
            if verdicts.before is not None and verdicts.after is not None:
                row["score before"], row["score after"] = float(verdicts.before[i]), float(verdicts.after[i])
        if made.before is not None:
            row["before"] = made.before[i].text + ("" if made.before[i].finished else " […]")
        row["after"] = made.after[i].text + ("" if made.after[i].finished else " […]")
        rows.append(row)
    note = "Drawn at random, not picked. […] marks answers cut at the length limit."
    report.section("Side by side").samples(f"{len(rows)} of {len(made)} answers", rows, note=note)


def _writing(report: Report, made: Answers, seed: int) -> None:
    """Repetition, variety and endings on both sides, with warnings where they got worse."""
    both = {"before": made.before, "after": made.after}
    rows: list[list[Any]] = []
    for side, completions in both.items():
        if completions is None:
            continue
        repeats = bootstrap(made.repetition(completions), clusters=made.keys, seed=seed)
        open_ends = proportion(_unfinished(completions), clusters=made.keys, seed=seed)
        report.data(f"repetition_{side}", repeats.estimate)
        report.data(f"distinct_2_{side}", made.distinct(completions))
        report.data(f"unfinished_{side}", open_ends.estimate)
        empty = sum(not c.text.strip() for c in completions)
        length = float(np.median(made.length(completions)))
        rows.append([side, length, repeats, made.distinct(completions), open_ends, empty])
        if empty:
            report.warn(f"{empty} of {len(completions)} answers {side} are empty.")
        if open_ends.estimate > _UNFINISHED:
            report.warn(
                f"{100 * open_ends.estimate:.0f}% of the answers {side} did not end by themselves and were cut at the "
                "length limit: lengths, scores and KL are those of cut answers. Raise max_new_tokens, or look whether "
                "the end-of-turn token was learned."
            )
    columns = [
        "",
        f"median length ({made.unit})",
        "repeated 4-grams",
        "distinct 2-grams",
        "unfinished",
        "empty",
    ]
    report.table("How they are written", columns, rows)
    if made.before is None:
        return
    more = paired_difference(
        made.repetition(made.after), made.repetition(made.before), clusters=made.keys, seed=seed
    )
    if more.low > 0 and more.estimate > 0.05:
        report.warn(
            f"Answers repeat themselves more than before: {100 * more.estimate:.0f} points more 4-grams."
        )


def _order(report: Report, verdicts: Verdicts, seed: int) -> None:
    by_score = verdicts.score_win_rate(seed)
    if by_score is not None and verdicts.first is not None:
        label = "Answers with a higher score than before"
        report.add("win_rate_by_score", by_score, unit="share", label=label, good="high")
    flips, lead = verdicts.order_inconsistency(seed), verdicts.first_advantage(seed)
    if flips is None or lead is None:
        return
    report.add(
        "order_inconsistency", flips, unit="share", label="Verdicts that turn with the order shown", good="low"
    )
    report.add("first_advantage", lead, label="Advantage of being shown first (probability)")
    if flips.estimate > 0.2:
        report.warn(
            f"{100 * flips.estimate:.0f}% of the judge's verdicts turn when the two answers change places. Both orders "
            "are averaged, but such a judge tells little apart."
        )


def _length_and_winning(report: Report, made: Answers, verdicts: Verdicts, seed: int) -> None:
    """Does the policy win because it writes more? Win rate where it wrote less, about the same, more."""
    before, after = made.length(made.before or []), made.length(made.after)
    change = (after - before) / np.maximum(before, 1)
    parts = {
        "shorter": change < -0.1,
        "about as long (within 10%)": np.abs(change) <= 0.1,
        "longer": change > 0.1,
    }
    judged = ~np.isnan(verdicts.win)
    rows = [
        [name, int((mask & judged).sum()), verdicts.win_rate(mask, seed) if (mask & judged).any() else None]
        for name, mask in parts.items()
    ]
    report.table(
        "Is it length that wins?",
        ["the answer after is", "answers", "win rate"],
        rows,
        note="A policy that wins only where it writes more has learned to write more.",
    )


def _with_n(interval: Interval | None) -> tuple[Interval | None, int | None]:
    return interval, None if interval is None else interval.n


def _forest(report: Report, title: str, rows: list[tuple[str, Interval]]) -> None:
    if rows:
        note = "Estimate and 95% interval; the dashed line is chance."
        note += f" The first {_ROWS} of {len(rows)}." if len(rows) > _ROWS else ""
        drawing = figures.forest(rows[:_ROWS], xlabel="share", reference=0.5, limits=(0, 1))
        report.figure(title, drawing, note)


def _flat(numbers: dict[str, Interval]) -> dict[str, Any]:
    """Intervals as `key`, `key_ci95` and `key_n`."""
    out: dict[str, Any] = {}
    for key, interval in numbers.items():
        out |= {key: interval.estimate, f"{key}_ci95": list(interval.bounds), f"{key}_n": interval.n}
    return out


def _unfinished(completions: list[Completion]) -> np.ndarray:
    return np.array([not c.finished for c in completions], dtype=np.float64)
