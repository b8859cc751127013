"""`align`: from feedback to an aligned model and the evidence, in one call.

`carry_out` reads like the method section of a paper: check the folder, load, look at the data, save the recipe, train,
evaluate, write. Every step is a function of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from accordance.app.aside import tell_set_aside
from accordance.app.card import model_card
from accordance.app.folder import (
    RECIPE,
    check_writable,
    clear_run,
    disk_errors,
    nothing_left_of_a_failed_start,
    space_warning,
)
from accordance.app.plan import Objects, Plan, check_output, is_lead, load_start, prepare, processes
from accordance.app.recipe import IN_MEMORY, PROVENANCE, Recipe, changed
from accordance.app.scorers import resolve_rewards, resolve_scorer
from accordance.app.sources import loop_names
from accordance.app.start import Start
from accordance.app.story import add_training
from accordance.core.errors import ConfigError, TrainingError
from accordance.core.record import Records
from accordance.core.report import Report, write_whole
from accordance.evaluation import evaluate
from accordance.feedback import load_records
from accordance.models import LocalPolicy, load_policy
from accordance.training import TrainingRun, run_loop, train

log = logging.getLogger("accordance")

Progress = Callable[[str, int, int], object]


@dataclass
class Alignment:
    """What an alignment run leaves behind.

    Attributes:
        report: what was measured; None where the run was interrupted, and on all processes but the first.
        policy: the aligned policy.
        run: the training run: metrics, history, what was trained on.
        output_dir: the folder with model, checkpoints, recipe, reports and samples.
    """

    report: Report | None
    policy: LocalPolicy
    run: TrainingRun
    output_dir: Path


def align(
    policy: str | Path | LocalPolicy,
    records: Any,
    objective: str = "dpo",
    output_dir: str | Path = "runs/align",
    *,
    held_out: float | int | str | Path | Records = 0.1,
    scorer: Any = None,
    reward: Any = None,
    samples: int = 64,
    progress: Progress | None = None,
    on_preflight: Callable[[Report], object] | None = None,
    callbacks: tuple[Any, ...] = (),
    **options: Any,
) -> Alignment:
    """Align a policy with feedback: look at the data, train, evaluate on held-out records, write the evidence.

    Args:
        policy: a path, a hub name, ``lab:base``, or a policy, which is changed in place.
        records: whatever `load_records` takes, or ``lab:demo``.
        objective: the loss, or a sum such as ``"dpo + 0.1*sft"``.
        output_dir: the folder of the run: model, checkpoints, `recipe.yaml`, `preflight.html`, `report.json`,
            `report.html`, `samples.parquet` and the model card.
        held_out: a share of the prompts, about how many records, or other records; 0 evaluates nothing. The split
            depends on the prompts alone, so that it stays the same for other seeds and longer files.
        scorer: who compares answers after and before: see `accordance.app.scorers.resolve_scorer`; by default
            the reward, where there is one.
        reward: who scores what the policy samples while it trains, named or given as a scorer; with it the
            policy learns from its own answers to the records' prompts, without it from their judgments.
        samples: held-out prompts answered before and after.
        progress: called with (stage, done, total).
        on_preflight: gets the preflight before training starts; raising in it stops the run.
        callbacks: transformers callbacks, to probe the policy on the way.
        **options: how to load (see `accordance.app.recipe.Inputs`) and how to train (see `TrainingConfig`: the
            ecosystem's names, the options of the objective, and all of `transformers.TrainingArguments`).

    Returns:
        The aligned policy, its training run and its report.

    Raises:
        ConfigError: an option is unknown (with the nearest name), out of range, or would have no effect; the folder
            holds another run.
        DataError, ModelError, TrainingError: see `load_records`, `load_policy`, `train`.
    """
    objects = Objects()
    if isinstance(policy, LocalPolicy):
        objects.policy, policy = policy, IN_MEMORY + policy.name
    if not isinstance(records, (str, Path)):
        loading = {key: options[key] for key in ("format", "split", "limit", "on_error") if key in options}
        objects.records = load_records(records, **loading).materialise()
        records = IN_MEMORY + objects.records.source
    if isinstance(held_out, Records):
        objects.held_out, held_out = held_out.materialise(), IN_MEMORY + held_out.source
    if scorer is not None and not isinstance(scorer, str):
        objects.scorer, scorer = scorer, IN_MEMORY + str(getattr(scorer, "name", type(scorer).__name__))
    if reward is not None and not isinstance(reward, str) and not _names(reward):
        objects.reward, reward = reward, IN_MEMORY + str(getattr(reward, "name", type(reward).__name__))
    named = {
        "model": str(policy),
        "records": str(records),
        "objective": objective,
        "output_dir": str(output_dir),
    }
    named |= {"held_out": held_out if isinstance(held_out, (int, float)) else str(held_out), "scorer": scorer}
    named |= {"reward": reward}
    if held_out == 0 and samples == 64:
        samples = 0
    recipe = Recipe.of(_joined(named | {"samples": samples}, options))
    return carry_out(recipe, objects=objects, progress=progress, on_preflight=on_preflight, callbacks=callbacks)


def carry_out(
    recipe: Recipe,
    *,
    objects: Objects | None = None,
    progress: Progress | None = None,
    on_preflight: Callable[[Report], object] | None = None,
    callbacks: tuple[Any, ...] = (),
) -> Alignment:
    """Carry out a recipe; see `align`. On several processes only the first one writes and evaluates."""
    note: Progress = progress or (lambda stage, done, total: None)
    objects, lead, folder = objects or Objects(), is_lead(), Path(recipe.config.output_dir)
    if lead:
        check_output(recipe)
        check_writable(folder)
    plan = prepare(recipe, objects)
    rewards = resolve_rewards(objects.reward or recipe.config.reward)
    judge = objects.scorer or recipe.inputs.scorer
    if judge is None and len(rewards) == 1:
        judge = objects.reward or recipe.config.reward
    scorer, by_group = resolve_scorer(judge[0] if isinstance(judge, list) else judge)
    if lead:
        if on_preflight is not None:
            on_preflight(plan.preflight)
        open_folder(plan, folder)
    start = keep_start(plan, objects)
    with disk_errors(folder), nothing_left_of_a_failed_start(folder, lead):
        shown: dict[str, Any] = {
            "reward": rewards or None,
            "progress": note if lead else None,
            "callbacks": callbacks if lead else (),
            "card": lambda: card_of(plan, None, None),
        }
        if recipe.config.loop is not None:
            shown |= {"held_out": plan.held_out, "names": loop_names()}
            run = run_loop(plan.policy, plan.train, recipe.config, **shown)
        else:
            run = train(plan.policy, plan.train, recipe.config, held_out=plan.held_out, **shown)
    part_ways()
    if run.interrupted or not lead:
        return Alignment(None, plan.policy, run, folder)
    note("evaluate", 0, 1)
    report = measure(plan, run, start, scorer, by_group, folder)
    if rewards and scorer is not None and objects.scorer is None and recipe.inputs.scorer is None:
        report.warn("The win rate is by the reward that was trained on: name another scorer for evidence.")
    add_training(report, plan, run, counts(plan, run))
    tell_set_aside(None, report, plan.records, folder, listed=False)
    report.save(folder)
    write_whole({folder / "README.md": card_of(plan, run, report)})
    note("evaluate", 1, 1)
    return Alignment(report, plan.policy, run, folder)


def part_ways() -> None:
    """Close the process group when training is over: the first process evaluates alone, the others may go."""
    if processes() > 1 and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def open_folder(plan: Plan, folder: Path) -> None:
    """Clear a run that is replaced, then save the preflight and the recipe."""
    recipe = plan.recipe
    saved = folder / RECIPE
    if recipe.config.resume_from_checkpoint and saved.exists():
        _compare(yaml.safe_load(saved.read_text(encoding="utf-8")) or {}, plan)
    elif recipe.made_with is not None:
        _compare_data(recipe.made_with, plan, str(recipe.source))
    if recipe.config.overwrite_output_dir:
        clear_run(folder)
    weights = sum(p.numel() * p.element_size() for p in plan.policy.model.parameters())
    small = recipe.config.use_peft or plan.policy.has_adapter
    kept = 0 if recipe.config.save_strategy == "no" else recipe.config.save_total_limit or 2
    trained = 0 if small else plan.policy.num_parameters * 4
    if warning := space_warning(folder, 0 if small else weights, trained, kept):
        log.warning("%s", warning)
    tell_set_aside(None, plan.preflight, plan.records, folder, listed=False)
    plan.preflight.save(folder, "preflight")
    recipe.save(folder, plan.made_with)


def keep_start(plan: Plan, objects: Objects) -> Start:
    """What the evaluation needs of the policy as it is now."""
    adapter = plan.policy.has_adapter or plan.recipe.config.use_peft
    again = None if objects.policy is not None and len(plan.held_out) else lambda: load_start(plan.recipe)
    return Start(plan.policy, adapter=adapter, reload=again)


def measure(
    plan: Plan,
    run: TrainingRun,
    start: Start,
    scorer: Any,
    by_group: Mapping[str, Any] | None,
    folder: Path,
) -> Report:
    """The evaluation on held-out records; empty, and saying so, where none were held out."""
    title = f"Alignment of {plan.policy.name} by {plan.recipe.config.objective}"
    inputs = plan.recipe.inputs
    if not len(plan.held_out):
        report = Report(title, "Nothing was held out, so nothing was measured.")
        for key in ("win_rate", "preference_accuracy"):
            report.add(key, None, ci=None, note="nothing was held out").data(f"{key}_ci95", None)
        for key in ("kl", "chosen_logp_change", "rejected_logp_change", "length_before", "length_after"):
            report.add(key, None, note="nothing was held out")
        report.data("by_group", {}).data("records", None)
        return report.warn("Nothing was held out: there is no evidence that training helped.")
    trained = plan.policy
    if processes() > 1:  # the weights may be spread over the processes: take those that were saved
        trained = load_policy(folder, dtype=inputs.dtype, name=plan.policy.name)
    report = evaluate(
        trained,
        plan.held_out,
        reference=start.load(trained),
        scorer=scorer,
        by_group=by_group,
        samples=inputs.samples,
        max_new_tokens=inputs.max_new_tokens,
        seed=plan.recipe.config.seed,
        output_dir=folder,
        title=title,
    )
    return report


def counts(plan: Plan, run: TrainingRun) -> dict[str, Any]:
    """What became of every row: read, kept, dropped by reason; and of the kept ones, trained on or not."""
    account = plan.records.account
    return {
        **account.to_dict(),
        "held_out": len(plan.held_out),
        "trained_on": len(run.examples),
        "trained_on_as": run.examples.source,
        "not_trained_on": {reason: len(rows) for reason, rows in run.examples.dropped.items()},
        "not_trained_on_examples": {reason: rows[:5] for reason, rows in run.examples.dropped.items()},
        "changed": dict(run.examples.notes),
    }


def card_of(plan: Plan, run: TrainingRun | None, report: Report | None) -> str:
    """The model card's text; before the evaluation it says that nothing is measured yet."""
    rows = plan.records.account.to_dict() | {"held_out": len(plan.held_out)}
    rows |= {"trained_on": "some", "not_trained_on": {}} if run is None else counts(plan, run)
    return model_card(
        name=Path(plan.recipe.config.output_dir).resolve().name,
        base=plan.recipe.inputs.model,
        options=plan.recipe.options(),
        made_with=plan.made_with,
        counts=rows,
        report=report,
        adapter=plan.policy.has_adapter,
    )


def _names(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(isinstance(name, str) for name in given)


def _joined(named: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in named.items() if value is not None}
    for key in options.keys() & given.keys():
        raise ConfigError(f"{key} is given twice", where="align", found=options[key])
    return given | dict(options)


def _compare(saved: Mapping[str, Any], plan: Plan) -> None:
    """Going on with a run: the same data, or none; other changes are said."""
    _compare_data(saved.get(PROVENANCE) or {}, plan, plan.recipe.config.output_dir, strict=True)
    for change in changed(saved, plan.recipe.options()):
        log.warning("going on with another option than the run began with: %s", change)


def _compare_data(made_with: Mapping[str, Any], plan: Plan, where: str, *, strict: bool = False) -> None:
    before = (made_with.get("records") or {}).get("fingerprint")
    now = plan.made_with["records"]["fingerprint"]
    if before is None or before == now:
        return
    if strict:
        raise TrainingError(
            "the records are not those that the run began with",
            where=where,
            found=f"fingerprint {now}",
            expected=f"fingerprint {before}",
            remedy="restore the data, or start a new run: --overwrite, or another --output-dir",
        )
    log.warning("the records differ from those that %s was made with", where)
