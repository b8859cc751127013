"""The plan of a run: everything loaded and looked at, before anything is written or trained."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import torch

from accordance.app.folder import check_folder, run_in
from accordance.app.recipe import IN_MEMORY, Recipe, versions
from accordance.app.sources import model_source, read_records
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Records
from accordance.core.report import Report
from accordance.core.views import demonstrations, thumbs
from accordance.feedback import preflight
from accordance.models import LocalPolicy, load_policy
from accordance.training import last_complete_checkpoint

log = logging.getLogger("accordance")


@dataclass
class Objects:
    """Things that were given as objects rather than by name; None where a recipe's name counts."""

    policy: LocalPolicy | None = None
    records: Records | None = None
    held_out: Records | None = None
    scorer: Any = None
    reward: Any = None


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


def is_lead() -> bool:
    """Whether this process writes: the first of those that a launcher started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def processes() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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
    named = (("model", recipe.inputs.model), ("records", recipe.inputs.records), ("reward", config.reward))
    for name, value in named:
        if str(value).startswith(IN_MEMORY) and recipe.source is not None:
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
        policy,  # type: ignore[arg-type]  # encode() names its extras more narrowly than Encodes
        max_length=recipe.config.max_length,
        objective_kind=None if recipe.config.online else view_of(objective, records),
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
    reading = {"format": inputs.format, "split": inputs.split, "on_error": inputs.on_error}
    return read_records(inputs.records, limit=inputs.limit, **reading).materialise()


def split(records: Records, recipe: Recipe, objects: Objects) -> tuple[Records, Records]:
    """Records to train on, and records held out; no prompt stands in both.

    Raises:
        DataError: nothing is left on one side.
    """
    held_out = recipe.inputs.held_out
    if objects.held_out is not None or isinstance(held_out, str):
        other = objects.held_out
        if other is None:
            other = read_records(str(held_out)).materialise()
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


def view_of(objective: Any, records: Records) -> str | None:
    """Which view of the records the objective will be trained on."""
    kind = objective.bundle.kind
    if getattr(objective, "arrange", None) is not None:
        return None
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
