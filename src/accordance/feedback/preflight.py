"""`preflight`: what is in the feedback and what training would make of it, shown before any training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from accordance.core.errors import ConfigError, unknown
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.core.views import View, demonstrations, pairs, rankings, thumbs
from accordance.feedback.estimate import estimate
from accordance.feedback.survey import Survey, Tally, survey
from accordance.feedback.tokens import Encodes, Lengths, rendered, unended

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: How much of a stream is looked at.
STREAM = 10_000
_QUANTILES = (0.05, 0.5, 0.95, 0.99, 1.0)
#: What an objective of each kind learns from.
USES: dict[str, tuple[str, Callable[[Records], View]]] = {
    "pair": ("pairs without ties", pairs),
    "list": ("rankings", rankings),
    "unary": ("thumbs", thumbs),
    "demonstration": ("demonstrations", demonstrations),
}


def preflight(
    records: Records,
    policy: Encodes | None = None,
    *,
    max_length: int | None = None,
    objective_kind: str | None = None,
) -> Report:
    """Look at the feedback before training on it.

    Args:
        records: a table; of a stream the first `STREAM` records are looked at, which the report says.
        policy: tokenises (see `Encodes`); without one there is nothing on tokens, memory and time.
        max_length: the limit on tokens of a prompt with one response; needs a policy.
        objective_kind: ``pair``, ``list``, ``unary`` or ``demonstration``: counts what such an objective can use.

    Returns:
        A report with, among others, `records_read`, `records_kept`, `records_dropped`, `duplicates`, `ties`,
        `identical_responses`, `empty_responses`, `contradictions_same`, `contradictions_between`,
        `longer_preferred`, `first_preferred`; with a policy `prompt_tokens_p50` and the like; with a limit
        `prompts_too_long`, `responses_cut`, `tokens_cut`.

    Raises:
        ConfigError: max_length without a policy, or an unknown kind of objective.
        ModelError: the first record can't be rendered or tokenised.
    """
    if max_length is not None and policy is None:
        raise ConfigError("max_length= has no effect without a policy", remedy="pass the policy too")
    if objective_kind is not None and objective_kind not in USES:
        raise unknown("kind of objective", objective_kind, USES)
    report = Report("Preflight", f"What is in {records.source} and what training would make of it.")
    if records.streaming:
        records = records.materialise(STREAM)
        if len(records) == STREAM:
            report.warn(f"the records are streaming: only the first {STREAM} were looked at")
    found = survey(records)
    _account(report, records)
    _judgments(report, found)
    _doubts(report, found)
    _habits(report, found)
    if objective_kind is not None:
        what, view = USES[objective_kind]
        usable = len(view(records))
        report.add("usable", usable, label=f"Usable by a {objective_kind} objective", note=what)
        if usable == 0:
            report.warn(f"nothing a {objective_kind} objective can learn from: there are no {what}")
    if policy is not None and len(records):
        _tokens(report, Lengths(records, policy), policy, max_length)
    return report


def _account(report: Report, records: Records) -> None:
    account = records.account
    report.section("Rows")
    report.data("records", account.to_dict())
    report.add("records_read", account.read, label="Rows read")
    report.add("records_kept", account.kept, label="Rows kept")
    report.add("records_dropped", sum(account.dropped.values()), label="Rows dropped")
    report.add("records_count", len(records), label="Records")
    if account.dropped:
        rows = [
            [reason, count, ", ".join(account.rows[reason][:3])] for reason, count in account.dropped.items()
        ]
        report.table("Dropped", ["reason", "rows", "for instance"], rows)
        report.warn(account.unused())
    if account.notes:
        report.table("Done to rows that were kept", ["what", "times"], [list(n) for n in account.notes.items()])
    if not len(records):
        report.warn("there are no records: every row was dropped" if account.read else "there are no records")


def _judgments(report: Report, found: Survey) -> None:
    report.section("Judgments")
    report.data("judgments", dict(found.kinds))
    rows = [[kind, count] for kind, count in found.kinds.most_common()]
    report.table("By kind", ["kind", "judgments"], rows, "" if rows else "no judgments")
    report.add("annotators", len(found.annotators), note="named ones")
    report.add("groups", len(found.groups))
    if found.annotators:
        report.table("Annotators who judged most", ["annotator", "judgments"], _most(found.annotators))
    if found.groups:
        rows = [[name, count, len(found.members[name]) or None] for name, count in found.groups.most_common(20)]
        report.table("Groups", ["group", "judgments", "annotators"], rows)
    if len(found.attributes) > 1:
        report.table("Attributes", ["attribute", "judgments"], _most(found.attributes, 20))
    templates = {"chat_records": found.templated, "text_records": found.records - found.templated}
    report.add("chat_records", templates["chat_records"], label="Records for the chat template")
    report.add("text_records", templates["text_records"], label="Records of plain text, without a template")
    if all(templates.values()):
        report.warn("some records go through the chat template and others are plain text")


def _doubts(report: Report, found: Survey) -> None:
    report.section("Doubtful records")
    for key, count, rows, what in (
        (
            "duplicates",
            found.duplicates,
            found.duplicate_rows,
            "records whose prompt and responses came before",
        ),
        ("identical_responses", found.identical, found.identical_rows, "records with two equal responses"),
        ("empty_responses", found.empty, found.empty_rows, "responses that say nothing"),
    ):
        report.add(key, count, note=what + (f", such as {', '.join(rows)}" if rows else ""))
        if count:
            report.warn(f"{count} {what}, such as {', '.join(rows)}")
    report.add("ties", found.ties, note=f"of {found.comparisons} comparisons")
    if found.comparisons and found.ties == found.comparisons:
        report.warn("every comparison is a tie: an objective on pairs has nothing to learn from them")
    report.add("contradictions_same", found.contradictions_same, label="Contradictions of one annotator",
               note="pairs that the same person judged both ways")  # fmt: skip
    report.add("contradictions_between", found.contradictions_between, label="Contradictions between annotators",
               note="pairs that different (or unnamed) people judged both ways")  # fmt: skip


def _habits(report: Report, found: Survey) -> None:
    tally = found.tally
    report.section("Habits of the judges")
    report.add("pairs", tally.pairs, note="two responses of which one was preferred")
    if not tally.pairs:
        return
    longer = tally.longer_preferred if tally.unequal else None
    report.add("longer_preferred", longer, unit="share",
               note="of pairs of unequal length (characters); 50% is no length bias")  # fmt: skip
    first = tally.first_preferred
    note = "50% is no position bias"
    if first is None:
        note = (
            "not known: the preferred response stands first in every pair, so the order shown wasn't recorded"
        )
    report.add("first_preferred", first, unit="share", note=note)
    if longer is not None and not longer.low <= 0.5 <= longer.high:
        side = "longer" if longer.estimate > 0.5 else "shorter"
        report.warn(f"length bias: the {side} response is preferred more often than chance ({longer})")
    if first is not None and not first.low <= 0.5 <= first.high:
        side = "first" if first.estimate > 0.5 else "last"
        report.warn(f"position bias: the response shown {side} is preferred more often than chance ({first})")
    for title, parts in (("attribute", found.by_attribute), ("group", found.by_group)):
        if len(parts) > 1 or (title == "group" and parts):
            rows = [[name, part.pairs, *_habit(part)] for name, part in sorted(parts.items())]
            report.table(f"Pairs by {title}", [title, "pairs", "longer preferred", "first preferred"], rows)


def _habit(tally: Tally) -> list[object]:
    return [tally.longer_preferred if tally.unequal else None, tally.first_preferred]


def _tokens(report: Report, lengths: Lengths, policy: Encodes, max_length: int | None) -> None:
    report.section("Tokens")
    rows = []
    parts = {"prompt": lengths.prompts, "response": lengths.responses, "prompt and response": lengths.totals}
    for name, counts in parts.items():
        if not len(counts):
            continue
        values = [int(np.quantile(counts, q)) for q in _QUANTILES]
        rows.append([name, round(float(counts.mean()), 1), *values])
        key = name.replace(" and ", "_").replace(" ", "_")
        for q, value in zip(_QUANTILES, values):
            report.data(f"{key}_tokens_{'max' if q == 1 else f'p{round(q * 100)}'}", value)
    report.table("Tokens per part", ["part", "mean", "5%", "median", "95%", "99%", "largest"], rows)
    report.figure("Lengths", _figure(parts, max_length))
    for problem, count in lengths.unencoded.items():
        report.warn(f"{count} records can't be encoded: {problem}")
    report.data("unencoded", sum(lengths.unencoded.values()))
    if max_length is not None:
        _cuts(report, lengths, max_length)
    if lengths.first is not None:
        record, group = lengths.first
        report.code(
            f"First record ({record.origin or record.id}) as the model sees it", rendered(policy, group)
        )
        report.add(
            "first_record_ends", not unended(policy, group), label="The first record ends with an end token"
        )
        if unended(policy, group):
            report.warn("a response of the first record has no end token: the model would not learn to stop")
    _forecast(report, lengths, policy)


def _cuts(report: Report, lengths: Lengths, max_length: int) -> None:
    cut = lengths.cut(max_length)
    report.add("max_length", max_length, unit="tokens", note="of a prompt with one response")
    labels = {
        "prompts_too_long": (
            "Prompts without room for a response",
            f"of {len(lengths.prompts)}; can't be used",
        ),
        "responses_cut": ("Responses cut at the end", f"of {len(lengths.responses)}"),
        "tokens_cut": ("Tokens lost by that", f"of {int(lengths.responses.sum())} in responses"),
    }
    for key, (label, note) in labels.items():
        report.add(key, cut[key], label=label, note=note)
    if any(cut.values()):
        report.warn(
            f"max_length {max_length}: {cut['prompts_too_long']} prompts leave no room for a response, "
            f"{cut['responses_cut']} responses lose {cut['tokens_cut']} tokens; "
            f"{int(lengths.totals.max(initial=int(lengths.prompts.max())))} would cut none"
        )


def _forecast(report: Report, lengths: Lengths, policy: Encodes) -> None:
    groups = lengths.groups
    if not len(groups):
        return
    guess = estimate(policy.num_parameters, int(groups.max()), int(groups.sum()))
    report.section("Forecast (an estimate)", "Rough figures for fp32, AdamW, no checkpointing; see `estimate`.")
    whole = guess.weights + guess.reference + guess.activations
    report.add("memory_gb", round(whole / 1e9, 3), unit="GB", label="Memory, full fine-tuning (estimate)",
               note="weights, gradients, optimiser, a reference model, one group at a time")  # fmt: skip
    report.add("memory_adapter_gb", round((guess.adapter + guess.activations) / 1e9, 3), unit="GB",
               label="Memory, LoRA (estimate)", note="weights and activations")  # fmt: skip
    report.add("activation_gb", round(guess.activations / 1e9, 3), unit="GB",
               label="of which activations (estimate)", note=f"longest group: {int(groups.max())} tokens")  # fmt: skip
    report.add("seconds_per_epoch", float(f"{guess.seconds:.3g}"), unit="s", label="One epoch here (estimate)",
               note=f"{int(groups.sum())} tokens at half of {guess.speed / 1e9:.3g} GFLOP/s measured")  # fmt: skip


def _figure(parts: dict[str, np.ndarray], max_length: int | None) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    shown = {name: parts[name] for name in ("prompt", "response") if len(parts[name])}
    top = max((int(counts.max()) for counts in shown.values()), default=1)
    for name, counts in shown.items():
        axes.hist(
            counts, bins=np.linspace(0, top + 1, 41).tolist(), histtype="stepfilled", alpha=0.5, label=name
        )
    if max_length is not None and max_length <= 2 * top:
        axes.axvline(max_length, linestyle="--", color="0.3", label="max_length")
    axes.set(xlabel="tokens", ylabel="count")
    if shown:
        axes.legend(frameon=False)
    return figure


def _most(counter: dict[str, int], most: int = 10) -> list[list[object]]:
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    rows: list[list[object]] = [[name, count] for name, count in ordered[:most]]
    if len(ordered) > most:
        rows.append([f"{len(ordered) - most} others", sum(count for _, count in ordered[most:])])
    return rows
