"""The model card of an aligned model: what it was made from and how, what was measured, and what was not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from accordance.core.render import bounds, number
from accordance.core.report import Report

_ROWS = (
    ("win_rate", "Win rate over the starting model", "share"),
    ("preference_accuracy", "Preference accuracy on held-out pairs", "share"),
    ("kl", "KL from the reference (nats per answer)", ""),
    ("chosen_logp_change", "Change of chosen log-probability (nats)", ""),
    ("rejected_logp_change", "Change of rejected log-probability (nats)", ""),
    ("length_before", "Mean length of answers before", ""),
    ("length_after", "Mean length of answers after", ""),
)


def model_card(
    *,
    name: str,
    base: str,
    options: Mapping[str, Any],
    made_with: Mapping[str, Any],
    counts: Mapping[str, Any],
    report: Report | None,
    adapter: bool,
) -> str:
    """The text of README.md.

    Args:
        name: of the run.
        base: the model that it started from.
        options: the recipe.
        made_with: versions, seed and fingerprints.
        counts: what became of the feedback's rows.
        report: what was measured; None before the evaluation.
        adapter: whether an adapter is saved rather than a whole model.
    """
    head = {"library_name": "peft" if adapter else "transformers", "tags": ["accordance", "alignment"]}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not Path(base).exists():  # a name on the hub
        head["base_model"] = base
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {name}",
        f"{'An adapter for' if adapter else 'A model aligned from'} `{base}` with the objective "
        f"`{options['objective']}` on `{options['records']}`, by "
        f"Accordance {made_with['versions']['accordance']}.",
        "## Measured",
        _measured(report),
        "## Data",
        _data(counts, options),
        "## Recipe",
        f"```yaml\n{yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)}```",
        "## Limits",
        _limits(report, options),
        "## Made with",
        f"```yaml\n{yaml.safe_dump(dict(made_with), sort_keys=False)}```",
    ]
    return "\n\n".join(parts) + "\n"


def _measured(report: Report | None) -> str:
    if report is None:
        return "Not evaluated yet."
    lines = ["| | value | 95% interval |", "|---|---|---|"]
    for key, label, unit in _ROWS:
        value = report.values.get(key)
        if value is not None:
            lines.append(
                f"| {label} | {number(value, unit)} | {bounds(report.values.get(f'{key}_ci95'), unit)} |"
            )
    if len(lines) == 2:
        return "Nothing was measured: no records were held out."
    judge = next((b["note"] for b in report.blocks if b.get("key") == "win_rate" and b.get("note")), "")
    return "\n".join(lines) + (f"\n\nWin rate: {judge}." if judge else "") + "\n\nMore in `report.html`."


def _data(counts: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    lines = [
        f"`{options['records']}`: {counts['read']} rows read, {counts['kept']} kept; "
        f"{counts['trained_on']} examples trained on, {counts['held_out']} records held out for the evaluation."
    ]
    lines += [f"- {count} rows dropped: {reason}" for reason, count in counts["dropped"].items()]
    lines += [f"- {count} not trained on: {reason}" for reason, count in counts["not_trained_on"].items()]
    return "\n".join(lines)


def _limits(report: Report | None, options: Mapping[str, Any]) -> str:
    lines = [
        "- It is as good as the feedback: whose judgments these are, and whose are missing, is in the preflight.",
        "- It was evaluated on held-out records of the same source only, not for safety, truthfulness or abilities.",
    ]
    if report is not None and report.values.get("win_rate") is None:
        lines.append(
            "- No win rate was measured: nobody compared its answers with those of the starting model."
        )
    if str(options.get("records", "")).startswith("lab:"):
        lines.append(
            "- The feedback comes from simulated people in a made-up world: of no use outside the lab."
        )
    lines += [f"- {warning}" for warning in (report.warnings if report is not None else [])]
    return "\n".join(lines)
