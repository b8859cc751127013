"""`align`: from feedback to an aligned model and the evidence, in one call.

`carry_out` reads like the method section of a paper: check the folder, load, look at the data, save the recipe, train,
evaluate, write. Every step is a function of its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from accordance.app.card import model_card
from accordance.app.folder import (
    RECIPE,
    check_folder,
    check_writable,
    clear_run,
    disk_errors,
    nothing_left_of_a_failed_start,
    run_in,
    space_warning,
)
from accordance.app.recipe import IN_MEMORY, PROVENANCE, Recipe, changed, versions
from accordance.app.scorers import resolve_scorer
from accordance.app.sources import is_lab, lab_records, model_source
from accordance.app.start import Start
from accordance.app.story import add_training
from accordance.core.errors import ConfigError, DataError, TrainingError
from accordance.core.record import Records
from accordance.core.report import Report, write_whole
from accordance.core.views import demonstrations, thumbs
from accordance.evaluation import evaluate
from accordance.feedback import load_records, preflight
from accordance.models import LocalPolicy, load_policy
from accordance.training import TrainingRun, last_complete_checkpoint, train

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


@dataclass
class Objects:
    """Things that were given as objects rather than by name; None where a recipe's name counts."""

    policy: LocalPolicy | None = None
    records: Records | None = None
    held_out: Records | None = None
    scorer: Any = None


@dataclass
class Plan:
    """Everything that a run needs, loaded and looked at; nothing is trained or written yet.

    Attributes:
        recipe: the options.
        policy: the starting policy.
        records: all of the feedback, with its account.
        train, held_out: its two parts; no prompt stands in both.
        preflight: what is in the feedback.
        made_with: versions, seeds and fingerprints.
    """

    recipe: Recipe
    policy: LocalPolicy
    records: Records
    train: Records
    held_out: Records
    preflight: Report
    made_with: dict[str, Any]


def align(
    policy: str | Path | LocalPolicy,
    records: Any,
    objective: str = "dpo",
    output_dir: str | Path = "runs/align",
    *,
    held_out: float | int | str | Path | Records = 0.1,
    scorer: Any = None,
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
        scorer: who compares answers after and before: see `accordance.app.scorers.resolve_scorer`.
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
    named = {
        "model": str(policy),
        "records": str(records),
        "objective": objective,
        "output_dir": str(output_dir),
    }
    named |= {"held_out": held_out if isinstance(held_out, (int, float)) else str(held_out), "scorer": scorer}
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
    scorer, by_group = resolve_scorer(objects.scorer or recipe.inputs.scorer)
    if lead:
        if on_preflight is not None:
            on_preflight(plan.preflight)
        open_folder(plan, folder)
    start = keep_start(plan, objects)
    with disk_errors(folder), nothing_left_of_a_failed_start(folder, lead):
        run = train(
            plan.policy,
            plan.train,
            recipe.config,
            held_out=plan.held_out,
            progress=note if lead else None,
            callbacks=callbacks if lead else (),
            card=lambda: card_of(plan, None, None),
        )
    part_ways()
    if run.interrupted or not lead:
        return Alignment(None, plan.policy, run, folder)
    note("evaluate", 0, 1)
    report = measure(plan, run, start, scorer, by_group, folder)
    add_training(report, plan, run, counts(plan, run))
    report.save(folder)
    write_whole({folder / "README.md": card_of(plan, run, report)})
    note("evaluate", 1, 1)
    return Alignment(report, plan.policy, run, folder)


def is_lead() -> bool:
    """Whether this process writes: the first of those that a launcher started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def part_ways() -> None:
    """Close the process group when training is over: the first process evaluates alone, the others may go."""
    if processes() > 1 and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def check_output(recipe: Recipe) -> None:
    """Refuse a folder that holds another run, or going on with one made otherwise; touches nothing."""
    config = recipe.config
    resume = bool(config.resume_from_checkpoint)
    model = model_source(recipe.inputs.model)
    check_folder(
        config.output_dir,
        resume=resume,
        overwrite=config.overwrite_output_dir,
        model=None if str(model).startswith(IN_MEMORY) else model,
    )
    for name, value in (("model", recipe.inputs.model), ("records", recipe.inputs.records)):
        if value.startswith(IN_MEMORY) and recipe.source is not None:
            raise ConfigError(
                f"the recipe was made with {name} that were objects in a program",
                where=recipe.source,
                found=value,
                remedy=f"name them: --{name}",
            )
    if resume and config.resume_from_checkpoint is True and not last_complete_checkpoint(config.output_dir):
        if run_in(config.output_dir):
            log.warning("%s holds no whole checkpoint: the run starts from the beginning", config.output_dir)
        else:
            log.warning("%s holds no run to go on with: a new one starts", config.output_dir)


def prepare(recipe: Recipe, objects: Objects | None = None) -> Plan:
    """Load everything and look at it: the policy, the records, their split, the preflight. Writes nothing."""
    objects = objects or Objects()
    _say_parallel(recipe)
    policy = objects.policy or load_start(recipe)
    for remark in policy.notes:
        log.warning("%s: %s", policy.name, remark)
    records = objects.records if objects.records is not None else load_feedback(recipe)
    train_part, held_out = split(records, recipe, objects)
    objective = recipe.config.build_objective()
    report = preflight(
        records,
        policy,
        max_length=recipe.config.max_length,
        objective_kind=view_of(objective, records),
    )
    made_with = {
        "versions": versions(),
        "seed": recipe.config.seed,
        "records": {"fingerprint": records.fingerprint(), "kept": len(records)},
        "held_out": {"fingerprint": held_out.fingerprint() if len(held_out) else None, "kept": len(held_out)},
        "model": {"weights": policy.weights_hash(), "parameters": policy.num_parameters},
    }
    return Plan(recipe, policy, records, train_part, held_out, report, made_with)


def load_start(recipe: Recipe) -> LocalPolicy:
    """The starting policy that a recipe names."""
    inputs = recipe.inputs
    return load_policy(
        model_source(inputs.model),
        dtype=inputs.dtype,
        device_map=inputs.device_map,
        load_in_4bit=inputs.load_in_4bit,
        load_in_8bit=inputs.load_in_8bit,
        chat_template=inputs.chat_template,
        eos_token=inputs.eos_token,
        revision=inputs.revision,
        trust_remote_code=inputs.trust_remote_code,
    )


def load_feedback(recipe: Recipe) -> Records:
    """The records that a recipe names."""
    inputs = recipe.inputs
    if is_lab(inputs.records):
        for name in ("format", "split"):
            if getattr(inputs, name) is not None:
                raise ConfigError(f"{name} has no effect on records of the lab", found=getattr(inputs, name))
        made = lab_records(inputs.records)
        return made if inputs.limit is None else made.select(range(min(inputs.limit, len(made))))
    return load_records(
        inputs.records,
        format=inputs.format,
        split=inputs.split,
        limit=inputs.limit,
        on_error=inputs.on_error,
    ).materialise()


def split(records: Records, recipe: Recipe, objects: Objects) -> tuple[Records, Records]:
    """Records to train on, and records held out; no prompt stands in both.

    Raises:
        DataError: nothing is left on one side.
    """
    held_out = recipe.inputs.held_out
    if objects.held_out is not None or isinstance(held_out, str):
        other = objects.held_out
        if other is None:
            other = (
                lab_records(str(held_out)) if is_lab(held_out) else load_records(str(held_out)).materialise()
            )
        seen = {record.prompt for record in records if record.prompt}
        shared = sum(record.prompt in seen for record in other)
        if shared:
            log.warning("%d of %d held-out records have a prompt that is trained on", shared, len(other))
        return records, other
    if held_out == 0:
        return records, records.select([])
    if held_out < 0:
        raise ConfigError("held_out is a share, a number of records, or a source", found=held_out)
    rest, out = records.split(held_out, seed=0)
    if len(records) and (not len(rest) or not len(out)):
        raise DataError(
            "the split leaves one side empty",
            where=records.source,
            found=f"{len(rest)} records to train on, {len(out)} held out (held_out={held_out})",
            expected="at least one on each side; records with one prompt stay together",
            remedy="another --held-out (0 evaluates nothing), or held-out records of their own",
        )
    return rest, out


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


def _joined(named: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in named.items() if value is not None}
    for key in options.keys() & given.keys():
        raise ConfigError(f"{key} is given twice", where="align", found=options[key])
    return given | dict(options)


def view_of(objective: Any, records: Records) -> str | None:
    """Which view of the records the objective will be trained on."""
    kind = objective.bundle.kind
    if kind != "unary":
        return kind
    if objective.labels:
        return "unary" if len(thumbs(records)) else "pair"
    return "demonstration" if len(demonstrations(records)) else "pair"


def _say_parallel(recipe: Recipe) -> None:
    kind = recipe.config.parallel
    if kind is None:
        return
    if processes() == 1:
        raise ConfigError(
            "parallel has no effect on one process",
            found=kind,
            remedy="--num-processes N, or start with torchrun or accelerate launch",
        )
    if kind != "ddp" and not torch.cuda.is_available():
        if kind != "fsdp2":
            raise ConfigError(f"{kind} needs GPUs", remedy="--parallel ddp works on CPUs")
        if is_lead():
            log.warning("there is no GPU: Accelerate runs no FSDP on CPUs, this run is plain DDP")


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
