"""The numbers on top of an evaluation, under the keys that others rely on, and what to know before believing them."""

from __future__ import annotations

from typing import Any

import numpy as np

from accordance.core.report import Report
from accordance.core.stats import bootstrap
from accordance.evaluation.judging import Verdicts
from accordance.evaluation.likelihood import PairTable
from accordance.evaluation.sampling import Answers


def headlines(
    report: Report,
    pairs: PairTable | None,
    answers: Answers | None,
    verdicts: Verdicts | None,
    *,
    scorer: Any,
    reference: Any,
    seed: int,
) -> None:
    """Win rate, preference accuracy, KL, changes of log-probabilities, lengths: the keys others rely on."""
    summary: list[str] = []
    _win_rate(report, summary, answers, verdicts, scorer, reference, seed)
    _accuracy(report, summary, pairs, seed)
    _kl(report, answers, seed)
    for side in ("chosen", "rejected"):
        key, label = f"{side}_logp_change", f"Change of {side} log-probability"
        if pairs is None or not len(pairs) or pairs.ref_chosen is None:
            _missing(report, key, label, "needs held-out pairs and a reference that scores them")
        else:
            change = pairs.mean(pairs.chosen_change if side == "chosen" else pairs.rejected_change, seed)
            report.add(
                key, change, unit="nats", label=label, headline=True, good="high" if side == "chosen" else None
            )
    for side in ("before", "after"):
        completions = None if answers is None or not len(answers) else getattr(answers, side)
        label = f"Mean length {side}"
        if answers is None or completions is None:
            _missing(report, f"length_{side}", label, "no answers were sampled")
        else:
            length = bootstrap(answers.length(completions), clusters=answers.keys, seed=seed)
            report.add(f"length_{side}", length, unit=answers.unit, label=label, headline=True)
    report.summary = " ".join(summary)


def _win_rate(
    report: Report,
    summary: list[str],
    answers: Answers | None,
    verdicts: Verdicts | None,
    scorer: Any,
    reference: Any,
    seed: int,
) -> None:
    if verdicts is None or verdicts.missing == len(verdicts.win):
        why = (
            "no scorer was given"
            if scorer is None
            else "there is no reference to compare with"
            if reference is None
            else "no held-out record has a prompt"
            if answers is None or not len(answers)
            else "the scorer had no opinion on any answer"
        )
        _missing(report, "win_rate", "Win rate over the reference", why)
        if scorer is not None:
            report.warn(f"The win rate was not measured: {why}.")
        return
    rate = verdicts.win_rate(seed=seed)
    prompts = len({key for key, win in zip(verdicts.keys, verdicts.win) if not np.isnan(win)})
    report.add(
        "win_rate",
        rate,
        unit="share",
        label="Win rate over the reference",
        note=f"{prompts} held-out prompts, judged by {verdicts.name}; ties count half",
        headline=True,
        good="high",
    )
    summary.append(
        f"Judged by {verdicts.name}, the answers after win against those before in {100 * rate.estimate:.0f}% of "
        f"cases (95% interval {100 * rate.low:.0f}% to {100 * rate.high:.0f}%)."
    )
    if rate.low <= 0.5 <= rate.high:
        report.warn(
            "The interval of the win rate includes 50%: these samples do not show which policy is better."
        )
    if verdicts.missing:
        report.warn(f"The scorer had no opinion on {verdicts.missing} of {len(verdicts.win)} answers.")


def _accuracy(report: Report, summary: list[str], pairs: PairTable | None, seed: int) -> None:
    label = "Preference accuracy"
    if pairs is None or not len(pairs):
        why = (
            "the policy gives no log-probabilities"
            if pairs is None
            else "the held-out records hold no comparison" + (f" but {pairs.ties} ties" if pairs.ties else "")
        )
        _missing(report, "preference_accuracy", label, why)
        report.warn(f"Preference accuracy was not measured: {why}.")
        return
    accuracy = pairs.accuracy(pairs.margin, seed)
    by = "log pi - log ref" if pairs.ref_chosen is not None else "log pi alone (no reference)"
    ties = f", {pairs.ties} ties left out" if pairs.ties else ""
    note = f"{len(pairs)} held-out pairs, {accuracy.n} prompts{ties}; by {by}"
    report.add(
        "preference_accuracy", accuracy, unit="share", label=label, note=note, headline=True, good="high"
    )
    summary.append(
        f"On {len(pairs)} held-out pairs it ranks the chosen response above the rejected one in "
        f"{100 * accuracy.estimate:.0f}% of cases."
    )
    if pairs.ruled_out:
        report.warn(
            f"{pairs.ruled_out} of {len(pairs)} pairs hold a response to which the policy or its reference gives no "
            "probability at all; they are not in the means of log-probabilities."
        )
    if pairs.ref_chosen is None:
        report.warn(
            "Without a reference, preference accuracy is that of log pi itself. It favours short responses; see "
            "the accuracy per token beside it."
        )
    elif np.all(pairs.chosen_change == 0) and np.all(pairs.rejected_change == 0):
        report.warn("The policy equals its reference on every held-out response: nothing was learned.")


def _kl(report: Report, answers: Answers | None, seed: int) -> None:
    label = "KL from the reference"
    ratio = None if answers is None else answers.log_ratio
    if answers is None or ratio is None or answers.tokens is None:
        _missing(report, "kl", label, "needs sampled answers, and log-probabilities from policy and reference")
        return
    known = np.isfinite(ratio)
    if not known.any():
        _missing(report, "kl", label, "no answer could be scored under both policies")
        report.warn("KL was not measured: no answer could be scored under both policies.")
        return
    keys = [key for key, k in zip(answers.keys, known) if k]
    note = f"per answer, {int(known.sum())} answers of the policy"
    if ratio[known].mean() < 0:
        note += "; below 0 by chance of the sample, a KL never is"
    report.add(
        "kl",
        bootstrap(ratio[known], clusters=keys, seed=seed),
        unit="nats",
        label=label,
        note=note,
        headline=True,
    )
    report.data("kl_per_token", float(ratio[known].sum() / answers.tokens[known].sum()))
    if not known.all():
        report.warn(
            f"{int((~known).sum())} of {len(ratio)} answers are not in the KL: they were cut at the length limit and "
            "their tokens are not known, or the reference rules them out."
        )


def _missing(report: Report, key: str, label: str, why: str) -> None:
    report.add(key, None, label=label, note=f"not measured: {why}", headline=True)
    report.data(f"{key}_ci95", None)
