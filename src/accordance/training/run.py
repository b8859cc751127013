"""One training run: examples, adapter, reference, trainer, checkpoints; interrupted or resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PrinterCallback, TrainingArguments
from transformers import set_seed as seed_everything

from accordance.core.errors import ConfigError, TrainingError
from accordance.core.objective import Objective
from accordance.core.record import Records
from accordance.core.scorer import PairScorer, Scorer
from accordance.feedback import load_records
from accordance.models import (
    CachedReference,
    CopiedReference,
    LocalPolicy,
    Reference,
    load_policy,
    weights_hash,
)
from accordance.objectives import get_objective
from accordance.training.callbacks import Progress, ProgressCallback, StopOnSignal
from accordance.training.config import TrainingConfig
from accordance.training.critic import load_critic
from accordance.training.distillation import load_teacher, needs_live_reference, open_up, with_own_answers
from accordance.training.examples import Examples, examples_for
from accordance.training.members import give_heads, member_examples, over_members, same_heads
from accordance.training.monitors import CollapseCallback
from accordance.training.online import RolloutTrainer
from accordance.training.order import order_seed, sampler_of
from accordance.training.rollouts import RolloutSource, distinct_columns, prompts_for, reference_answers
from accordance.training.trainer import PreferenceTrainer, ReferenceFn, last_complete_checkpoint
from accordance.training.users import KINDS, blind, personal_examples, room_for_users, without_users


@dataclass
class TrainingRun:
    """What a run leaves behind.

    Attributes:
        policy: the trained policy (the one that was passed in).
        metrics: transformers' summary (runtime, steps per second, mean loss).
        history: what was logged, one mapping per log line.
        examples: what was trained on, with what was left out and why.
        steps: optimiser steps taken in all, resumed ones included.
        interrupted: whether it was stopped by Ctrl-C; a checkpoint is in the folder.
        reference: where reference log-probabilities came from.
        timings: seconds spent on tokenising, on the reference and on training.
        stages: of a loop: what each stage learned from, its steps and seconds.
        measures: of a loop: what it measured on the way, by name.
    """

    policy: LocalPolicy
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    examples: Examples
    steps: int
    interrupted: bool = False
    reference: str = "none"
    timings: dict[str, float] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    measures: dict[str, Any] = field(default_factory=dict)


def train(
    policy: LocalPolicy,
    records: Records,
    config: TrainingConfig,
    *,
    held_out: Records | None = None,
    reward: Sequence[Scorer | PairScorer] | Scorer | PairScorer | None = None,
    reference: Reference | None = None,
    progress: Progress | None = None,
    callbacks: tuple[Any, ...] = (),
    card: Callable[[], str] | None = None,
) -> TrainingRun:
    """Train a policy; checkpoints and the final model go to `config.output_dir`.

    Without a reward it learns from the judgments in the records, with one from its own answers to their prompts.

    Args:
        policy: is changed in place (and wrapped in an adapter with `use_peft`).
        records: what people said.
        config: everything else.
        held_out: records for the held-out loss, where `eval_strategy` asks for it.
        reward: who scores what the policy samples, where `config.reward` names somebody.
        reference: in the place of the policy before training.
        progress: called as the run goes on.
        callbacks: transformers callbacks, to probe the policy on the way.
        card: writes the model card's text.

    Raises:
        ConfigError, DataError, TrainingError: see `TrainingConfig`, `examples_for`, `PreferenceTrainer`.
    """
    note = progress or (lambda stage, done, total: None)
    timings: dict[str, float] = {}
    objective = config.build_objective()
    if policy.users is not None and config.users is None:
        raise ConfigError(
            "the policy has users, and without them what it learned of everybody would drift apart",
            where="users",
            found=f"{policy.name} knows {len(policy.users.names)} users",
            remedy="name users, annotator or group",
        )
    arguments = config.arguments()
    resume = _resume_from(config)
    seed_everything(config.seed)
    if config.disable_dropout:
        disable_dropout(policy.model)
    stop = StopOnSignal()
    shared: dict[str, Any] = {
        "balancer": config.build_balancer(),
        "max_tokens": config.max_tokens,
        "check": config.check,
        "starts_at_reference": config.reference is None and config.users is None,
        "auxiliary_rate": config.auxiliary_learning_rate,
        "auxiliary_warmup": config.auxiliary_warmup,
        "card": card,
        "callbacks": (*callbacks, ProgressCallback(note), stop),
        "reference": reference,
    }
    kind: Any = _online if config.online else _offline
    given: Any = reward if config.online else held_out
    trainer, data, described = kind(policy, objective, config, arguments, records, given, note, timings, shared)
    if progress is not None:  # whoever shows progress does not want a dictionary on stdout beside it
        trainer.remove_callback(PrinterCallback)
    clock = time.perf_counter()
    with stop:
        try:
            outcome = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        except OSError as error:
            raise TrainingError(
                f"the run's folder can't be written: {error.strerror or error}",
                where=str(error.filename or config.output_dir),
                remedy="free some space or choose another --output-dir; the last whole checkpoint is kept, "
                "and --resume goes on from it",
            ) from error
    timings["train"] = time.perf_counter() - clock
    if not stop.stopped:
        trainer.save_model()
        trainer.create_model_card()
        if config.model_extra and config.model_extra.get("push_to_hub"):
            trainer.push_to_hub()
    return TrainingRun(
        policy,
        {key: float(value) for key, value in outcome.metrics.items() if isinstance(value, int | float)},
        list(trainer.state.log_history),
        data,
        trainer.state.global_step,
        interrupted=stop.stopped,
        reference=described,
        timings=timings,
    )


def _offline(
    policy: LocalPolicy,
    objective: Objective[Any],
    config: TrainingConfig,
    arguments: TrainingArguments,
    records: Records,
    held_out: Records | None,
    note: Progress,
    timings: dict[str, float],
    shared: dict[str, Any],
) -> tuple[PreferenceTrainer, Examples, str]:
    """The trainer over what records say, its examples, and where its reference comes from."""
    clock = time.perf_counter()
    done = 0

    def tokenised(count: int) -> None:
        nonlocal done
        done += count
        note("tokenise", done, max(done, len(records)))

    policy.encoder = policy.for_nobody().encoder
    longest = None if config.max_length is None else config.max_length - room_for_users(policy, config)
    how = {"max_length": longest, "attribute": config.attribute, "seed": config.seed, "users": config.users}
    if objective.own_answers:
        asked = {"attribute": config.attribute, "seed": config.seed}
        records = with_own_answers(policy, records, **asked)
        held_out = with_own_answers(policy, held_out, **asked) if held_out is not None else None
    held: Examples | None = None
    if held_out is not None and (not len(held_out) or config.eval_strategy == "no"):
        held_out = None
    if config.balance_over == "objective":
        data = examples_for(objective, records, policy.encoder, progress=tokenised, **how)
        if held_out is not None:
            held = examples_for(objective, held_out, policy.encoder, annotators=data.annotators, **how)
    else:
        data, names = member_examples(objective, records, policy.encoder, config.balance_over, tokenised, how)
        if held_out is not None:
            held, _ = member_examples(
                objective, held_out, policy.encoder, config.balance_over, None, how, names
            )
        if config.heads is not None:
            give_heads(policy, names, config.head_noise, config.seed, *filter(None, (data, held)))
        shared["members"] = names
    if config.users is not None:
        data, held = personal_examples(policy, config, data, held)
        shared.setdefault("members", KINDS)
    if config.balance_over != "objective":
        objective = over_members(objective, data, shared["members"], config.balance_weights)
    plain, plain_held = data, held
    if policy.users is not None:
        objective = replace(objective, module=policy.users)
        plain = without_users(data, policy.users.vocabulary)
        plain_held = without_users(held, policy.users.vocabulary) if held is not None else None
    timings["tokenise"] = time.perf_counter() - clock
    if config.use_peft:
        add_adapter(policy, config)
    clock = time.perf_counter()
    if needs_live_reference(objective):
        shared["reference"], described = _live_reference(policy, objective, config, shared["reference"])
        open_up(shared["reference"], objective)
    else:
        shared["reference"], described = _reference(
            policy, objective, config, arguments, plain, plain_held, note, shared["reference"]
        )
    wanted = [*_needed(arguments, plain), *(plain_held.items if plain_held is not None else ())]
    groups = [example.group for example in wanted]
    shared["teacher"] = load_teacher(policy, objective, config, config.max_tokens, groups, note)
    if policy.users is not None:
        for name in ("reference", "teacher"):
            shared[name] = blind(shared[name], policy.users.vocabulary)
    timings["reference"] = time.perf_counter() - clock
    return (
        PreferenceTrainer(policy, objective, arguments, data, held, **shared),
        data,
        described,
    )


def _online(
    policy: LocalPolicy,
    objective: Objective[Any],
    config: TrainingConfig,
    arguments: TrainingArguments,
    records: Records,
    reward: Any,
    note: Progress,
    timings: dict[str, float],
    shared: dict[str, Any],
) -> tuple[PreferenceTrainer, Examples, str]:
    """The trainer over what the policy samples, its prompts, and where its reference comes from."""
    if reward is None:
        raise ConfigError(
            "the reward is a name, and nobody has found out who it is",
            where="reward",
            found=config.reward,
            remedy="train(..., reward=scorer); accord align and align() look names up",
        )
    clock = time.perf_counter()
    note("tokenise", 0, len(records))
    rewards = reward if isinstance(reward, Sequence) else [reward]
    prompts, kept = prompts_for(
        records,
        policy.encoder,
        max_length=config.max_length,
        max_completion_length=config.max_completion_length,
        distinct=distinct_columns(rewards),
    )
    answers = reference_answers(Records.of(kept), config.attribute) if "answer" in objective.columns else None
    note("tokenise", len(records), len(records))
    timings["tokenise"] = time.perf_counter() - clock
    if config.use_peft:
        add_adapter(policy, config)
    shared["reference"], described = _live_reference(policy, objective, config, shared["reference"])
    open_up(shared["reference"], objective)
    source = RolloutSource(policy, rewards, config, answers)
    if config.reference_baseline or config.reward_calibration is not None:
        asked = [(record, example.group.prompt) for record, example in zip(kept, prompts.items)]
        source.fit_baselines(asked, config.seed)
    shared["callbacks"] = (*shared["callbacks"], CollapseCallback())
    shared["critic"] = load_critic(config.critic_model, policy) if config.critic_model else None
    shared["ptx"] = demonstrated(policy, config, records) if config.ptx_coef else None
    return (
        RolloutTrainer(
            policy,
            objective,
            arguments,
            source=source,
            prompts=prompts,
            records=kept,
            options=config,
            **shared,
        ),
        prompts,
        described,
    )


def demonstrated(policy: LocalPolicy, config: TrainingConfig, records: Records) -> Examples:
    """Demonstrations whose likelihood is kept up while the policy learns from samples."""
    some = records if config.ptx_data is None else load_records(config.ptx_data).materialise()
    return examples_for(
        get_objective("sft"), some, policy.encoder, max_length=config.max_length, attribute=config.attribute
    )


def _live_reference(
    policy: LocalPolicy, objective: Objective[Any], config: TrainingConfig, given: Reference | None
) -> tuple[Reference | None, str]:
    """A reference that answers while the policy moves."""
    if not objective.reference:
        return None, "none needed"
    found, described = _apart(policy, config, given)
    if found is None:
        every = config.ref_model_sync_steps
        moves = f", renewed every {every} steps" if every else ""
        return CopiedReference(policy.engine, max_tokens=config.max_tokens), f"{described}{moves}"
    if given is None and config.ref_model_sync_steps is not None:
        return CopiedReference(found.engine, max_tokens=config.max_tokens), f"{described}, then the policy"
    return found, described


def _apart(
    policy: LocalPolicy, config: TrainingConfig, given: Reference | None
) -> tuple[Reference | None, str]:
    """The reference where it is something else than the policy as it stands, and in any case what it is."""
    if given is not None:
        return given, "a model that was passed in"
    if config.reference is not None:
        other = load_policy(config.reference, tokenizer=policy.tokenizer, dtype=policy.engine.bare.dtype)
        same_heads(policy, other)
        return Reference(other.engine, max_tokens=config.max_tokens), config.reference
    if policy.has_adapter:
        off = Reference(policy.engine, context=policy.adapter_off, max_tokens=config.max_tokens)
        return off, "the policy with its adapter switched off"
    return None, "the policy before training"


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of a model to 0: a policy under dropout is not the policy that the reference is."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "activation_dropout", "hidden_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def add_adapter(policy: LocalPolicy, config: TrainingConfig) -> None:
    """Wrap the policy's model in a LoRA adapter; the base weights are frozen."""
    if policy.has_adapter:
        return
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

    model: Any = policy.model
    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        model = prepare_model_for_kbit_training(model)
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
    )
    try:
        policy.model = policy.engine.model = get_peft_model(model, lora)
    except ValueError as error:
        raise ConfigError(
            f"the adapter can't be put on: {error}",
            where="lora_target_modules",
            found=config.lora_target_modules,
            remedy="name layers that the model has, or 'all-linear'",
        ) from error


def _reference(
    policy: LocalPolicy,
    objective: Objective[Any],
    config: TrainingConfig,
    arguments: TrainingArguments,
    data: Examples,
    held: Examples | None,
    note: Progress,
    given: Reference | None,
) -> tuple[ReferenceFn | None, str]:
    """Where reference log-probabilities come from, made ready before the policy moves."""
    if not objective.reference:
        return None, "none needed"
    source, described = _apart(policy, config, given)
    own = given is None and (source is None or source.engine is policy.engine)
    if source is None:
        source = Reference(policy.engine, max_tokens=config.max_tokens)
    digest = weights_hash(policy.model) if own else weights_hash(source.engine.model, adapter=True)
    if not config.reference_cache:
        if config.reference is None and not policy.has_adapter:
            raise ConfigError(
                "reference_cache=False needs a reference that outlives training",
                remedy="name a reference model, train an adapter, or leave the cache on",
            )
        return source, described
    cached = CachedReference(source, digest, config.cache_dir)
    wanted = [example.group for example in _needed(arguments, data)] + [
        e.group for e in (held or Examples()).items
    ]
    rank, world = arguments.process_index, arguments.world_size
    total = len(wanted[rank::world])
    missing = cached.prepare(wanted[rank::world], step=lambda done: note("reference", done, total))
    if world > 1:
        torch.distributed.barrier()
    return cached, f"{described} (cache: {missing} of {cached.hits + cached.misses} responses computed)"


def _needed(arguments: TrainingArguments, data: Examples) -> list[Any]:
    """The examples that a run will touch: all, or those that its first steps draw."""
    step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    touched = arguments.max_steps * step if arguments.max_steps > 0 else len(data)
    if touched >= len(data):
        return data.items
    order = list(sampler_of(data, order_seed(arguments)))
    return [data.items[index] for index in order[:touched]]


def _resume_from(config: TrainingConfig) -> Path | None:
    """The checkpoint to go on from; refuses a folder that holds another run."""
    folder = Path(config.output_dir)
    newest = last_complete_checkpoint(folder)
    if isinstance(config.resume_from_checkpoint, str):
        path = Path(config.resume_from_checkpoint)
        if not path.is_dir():
            raise ConfigError("no such checkpoint", where="resume_from_checkpoint", found=str(path))
        return path
    if config.resume_from_checkpoint:
        return newest
    return None
