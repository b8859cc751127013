"""The report on feedback that was made: what it cost, what was dropped, what else a model would learn from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from accordance.core.policy_judge import conversation
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.core.stats import proportion
from accordance.core.views import Pair, pairs

if TYPE_CHECKING:
    from accordance.core.asking import Budget
    from accordance.feedback.synthesis import Cost, Synthesis

_SAMPLES = 12


def cost_report(method: Synthesis, costs: Sequence[Cost], prompts: int, budget: Budget) -> Report:
    """What a synthesis will cost at most, before anything is asked."""
    most = sum(cost.calls for cost in costs)
    report = Report(f"What {method.name} would cost", f"At most {most:,} calls for {prompts:,} items.")
    report.add("items", prompts, label="Prompts (or other items) to work on")
    report.add("calls_at_most", most, label="Calls, at most", headline=True)
    report.add("budget", budget.calls, label="Budget", note="" if budget.calls is not None else "no limit")
    report.table("Calls, at most", ["what", "who", "calls"], [[c.what, c.who, c.calls] for c in costs])
    if budget.calls is not None and budget.calls < most:
        report.warn(
            f"the budget of {budget.calls:,} may not be enough; what is whole by then is kept, and --resume goes on "
            "where it stopped"
        )
    return report


def synthesis_report(
    made: Records, method: Synthesis, costs: Sequence[Cost], budget: Budget, *, seed: int = 0
) -> Report:
    """What was made.

    Args:
        made: the records, with their account.
        method: how they were made.
        costs: what was announced.
        budget: what was spent, and what the cache held.
        seed: of the intervals.
    """
    account = made.account
    report = Report(
        f"Feedback made by {method.name}",
        f"{len(made):,} records from {account.read:,} items, {budget.spent:,} calls.",
        meta={"method": method.name, "source": made.source, "fingerprint": made.fingerprint()},
    )
    report.add("records", len(made), headline=True)
    report.add("items", account.read, label="Items worked on")
    report.add("calls", budget.spent, label="Calls paid for", headline=True)
    report.add("calls_saved", budget.saved, label="Answers that the cache held")
    report.add("calls_at_most", sum(cost.calls for cost in costs), label="Calls announced, at most")
    report.data("account", account.to_dict())
    report.data("judgments", made.counts())
    _account(report, made)
    found = pairs(made, attribute=None)
    report.add("pairs", len(found), label="Pairs with a preference", headline=True)
    if len(found):
        _pairs(report, list(found), seed)
    for what, many in account.notes.items():
        if "hostile" in what or "could not be read" in what:
            report.warn(f"{many:,} {what}")
    if sum(account.dropped.values()) > account.read / 2:
        report.warn(f"{sum(account.dropped.values()):,} of {account.read:,} items were dropped")
    return report


def _account(report: Report, made: Records) -> None:
    account = made.account
    if account.dropped:
        rows = [
            [reason, many, ", ".join(account.rows[reason][:3])]
            for reason, many in account.dropped.most_common()
        ]
        report.table("Dropped", ["why", "how many", "for instance"], rows)
        from accordance.core import figures

        kept = {"became records": float(account.kept)}
        dropped = {reason: float(many) for reason, many in account.dropped.most_common(8)}
        report.figure("What became of the items", figures.bars(kept | dropped, xlabel="items"))
    if account.notes:
        report.table("Counted besides", ["what", "how often"], [[k, v] for k, v in account.notes.most_common()])


def _pairs(report: Report, found: Sequence[Pair], seed: int) -> None:
    from accordance.core import figures

    words = np.array([[len(p.chosen.text.split()), len(p.rejected.text.split())] for p in found], dtype=float)
    prompts = [p.record.id for p in found]
    longer = proportion(0.5 + 0.5 * np.sign(words[:, 0] - words[:, 1]), clusters=prompts, seed=seed)
    report.add(
        "longer_chosen",
        longer,
        label="The chosen response is the longer one",
        unit="share",
        note="0.5 is no preference for length; equal lengths count half",
    )
    first = proportion([float(p.chosen_first) for p in found], clusters=prompts, seed=seed)
    report.data("chosen_stands_first", {"share": first.estimate, "ci95": list(first.bounds)})
    report.figure(
        "Words of chosen and rejected responses",
        figures.histogram({"chosen": words[:, 0], "rejected": words[:, 1]}, xlabel="words", ylabel="responses"),
    )
    strengths = [p.judgment.strength if p.judgment.strength is not None else p.gap for p in found]
    if len(set(strengths)) > 1:
        report.figure(
            "Strength of the preferences",
            figures.histogram({"pairs": strengths}, xlabel="gap in the judge's own unit", ylabel="pairs"),
        )
    by = {}
    for pair in found:
        for won, response in ((1, pair.chosen), (0, pair.rejected)):
            by.setdefault(response.source or "unknown", []).append(won)
    rows = [
        [who, len(wins), proportion(wins)] for who, wins in sorted(by.items(), key=lambda x: -np.mean(x[1]))
    ]
    report.table("Who wrote what was chosen", ["source", "responses in pairs", "chosen"], rows)
    rng = np.random.default_rng(seed)
    shown = [(found[int(i)], strengths[int(i)]) for i in rng.permutation(len(found))[:_SAMPLES]]
    report.samples(
        "Some of the pairs",
        [
            {
                "prompt": conversation(p.record.prompt),
                "chosen": p.chosen.text,
                "rejected": p.rejected.text,
                "strength": strength,
            }
            for p, strength in shown
        ],
    )
