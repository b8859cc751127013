"""The part of an alignment's report that tells how it was trained, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import yaml

from accordance.core import figures
from accordance.core.jsonable import plain
from accordance.core.report import Report
from accordance.training import TrainingRun
from accordance.training.monitors import ALARM

if TYPE_CHECKING:
    from accordance.app.plan import Plan

_CURVES = (
    ("loss", "Loss", "loss"),
    ("rewards/accuracies", "Preference accuracy of training batches", "share"),
    ("rewards/margins", "Reward margin of training batches", "reward"),
    ("reward", "Reward of what was sampled", "reward"),
    ("kl", "KL from the reference, of what was sampled", "nats per answer"),
    ("completions/mean_length", "Length of what was sampled", "tokens"),
    (
        "sampling/sampling_logp_difference/max",
        "Log-probabilities, training against sampling",
        "largest gap, nats",
    ),
)


def add_training(report: Report, plan: Plan, run: TrainingRun, rows: Mapping[str, Any]) -> None:
    """Add to the report what became of every row, how training went, and the recipe.

    Args:
        report: of the evaluation; its key `records` becomes `rows`.
        plan: what was planned.
        run: what was done.
        rows: see `accordance.app.align.counts`.
    """
    report.values["records"] = plain(dict(rows), "records", report.warnings.append)
    report.meta |= plain(
        {"recipe": plan.recipe.options(), "made_with": plan.made_with}, "meta", report.warnings.append
    )
    report.section("Feedback", "What became of every row. More in preflight.html.")
    report.table("Rows", ["", "count"], _rows(rows))
    learned = f"{run.steps} optimiser steps on {rows['trained_on']} examples ({rows['trained_on_as']})."
    report.section("Training", f"{learned} Reference: {run.reference}.")
    for key, title, label in _CURVES:
        points = [(line["step"], line[key]) for line in run.history if key in line and "step" in line]
        if len(points) > 1:
            x, y = zip(*points)
            series: dict[str, Any] = {"training": (x, y)}
            held = [(line["step"], line[f"eval_{key}"]) for line in run.history if f"eval_{key}" in line]
            if len(held) > 1:
                series["held out"] = tuple(zip(*held))
            report.figure(title, figures.lines(series, xlabel="step", ylabel=label))
    report.warnings += [f"step {line.get('step')}: {line[ALARM]}" for line in run.history if ALARM in line]
    _stages(report, run)
    timings = {f"seconds to {what}": seconds for what, seconds in run.timings.items()}
    report.data("training", {"steps": run.steps, "reference": run.reference, **run.metrics, **timings})
    names = {"train_runtime": "seconds of training", "train_loss": "mean loss"}
    shown = [[names[key], run.metrics[key]] for key in names if key in run.metrics]
    report.table("Run", ["", ""], [*shown, *[[key, value] for key, value in timings.items()]])
    report.section("How it was made")
    report.code("Recipe", yaml.safe_dump(plan.recipe.options(), sort_keys=False, allow_unicode=True))
    report.code("Made with", yaml.safe_dump(plan.made_with, sort_keys=False))


def _stages(report: Report, run: TrainingRun) -> None:
    """What each stage of a loop did, and what was measured on the way."""
    if not run.stages:
        return
    named = {"name": "stage", "examples": "examples", "steps": "steps", "seconds": "seconds"}
    report.table("Stages", list(named.values()), [[stage.get(key) for key in named] for stage in run.stages])
    report.data("stages", run.stages).data("measures", run.measures)
    tables = {name: values for name, values in run.measures.items() if isinstance(values, dict)}
    columns = list(dict.fromkeys(key for values in tables.values() for key in values))
    rows = [[name, *[values.get(key) for key in columns]] for name, values in tables.items()]
    if rows:
        report.table("Measured on the way", ["", *columns], rows)
    for key in columns:
        points = [(n, v[key]) for n, v in enumerate(tables.values(), 1) if isinstance(v.get(key), int | float)]
        if len(points) > 1:
            x, y = zip(*points)
            report.figure(f"{key} on the way", figures.lines({key: (x, y)}, xlabel="measurement", ylabel=key))


def _rows(rows: Mapping[str, Any]) -> list[list[Any]]:
    return [
        ["rows read", rows["read"]],
        ["rows kept", rows["kept"]],
        *[[f"dropped: {reason}", count] for reason, count in rows["dropped"].items()],
        *[[f"kept, but {what}", count] for what, count in rows["notes"].items()],
        ["records held out", rows["held_out"]],
        ["examples trained on", rows["trained_on"]],
        *[[f"not trained on: {reason}", count] for reason, count in rows["not_trained_on"].items()],
        *[[f"trained on, but {what}", count] for what, count in rows["changed"].items()],
    ]
