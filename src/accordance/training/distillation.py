"""What distillation needs beside examples: the teacher, and the student's own answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from accordance.core import views
from accordance.core.errors import ConfigError
from accordance.core.objective import Objective
from accordance.core.record import Judgment, Record, Records, Response
from accordance.models import Group, LocalPolicy, Reference, StoredTeacher, Teacher, load_policy


class AuxiliaryOptions(BaseModel):
    """What some objectives take beside records: a teacher, a learning rate for parts of their own."""

    teacher: str | None = Field(
        None, description="path or name of the model whose distributions are learned from"
    )
    teacher_reference: str | None = Field(
        None, description="path or name of the model from which the teacher was aligned"
    )
    teacher_top_k: int | None = Field(
        None,
        ge=2,
        description="write the teacher's words down before training, this many entries per token, and let go of it",
    )
    critic_model: str | None = Field(
        None,
        description="path or name of the model that ppo's critic is, a reward model with its head, say; by default "
        "it is a head on the policy",
    )
    auxiliary_learning_rate: float = Field(
        1e-3,
        gt=0,
        description="of what is trained beside the policy: users, spo's head, sparsepo's masks, ppo's critic",
    )
    auxiliary_warmup: int = Field(
        0,
        ge=0,
        description="first steps in which what is trained beside the policy learns and the policy does not",
    )


AUXILIARY_OPTIONS = frozenset(AuxiliaryOptions.model_fields)
#: Options of whatever is trained beside the policy.
TRAINED_PARTS = frozenset({"auxiliary_learning_rate", "auxiliary_warmup"})


def check_auxiliary(
    objective: Objective[Any], given: set[str], options: AuxiliaryOptions, parallel: str
) -> None:
    """Refuse options that the objective has no use for, and an objective that lacks what it needs.

    Args:
        objective: what is trained with.
        given: the names of the options that were set.
        options: their values.
        parallel: how processes share the work, or ``"fp16"``; empty for plainly.

    Raises:
        ConfigError: see above.
    """
    for name in sorted(given & without_effect(objective)):
        raise ConfigError(f"{name} has no effect on {objective.name}", where=name, remedy="leave it out")
    needed = {"teacher"} if needs_teacher(objective) else set()
    needed |= {"teacher_reference"} if "advantage" in objective.whole else set()
    for name in sorted(needed):
        if getattr(options, name) is None:
            raise ConfigError(
                f"{objective.name} learns from a teacher, and no {name} is named",
                where=name,
                expected="a path or a name of a model with the policy's tokenizer",
                remedy="--teacher MODEL"
                + (
                    " --teacher-reference MODEL, the model it was aligned from"
                    if "advantage" in objective.whole
                    else ""
                ),
            )
    if parallel in ("fsdp2", "zero2", "zero3", "fp16") and (objective.module is not None or objective.whole):
        raise ConfigError(
            f"{objective.name} trains parts of its own or reads whole distributions, which takes whole weights "
            "and gradients that are not scaled",
            where="parallel" if parallel != "fp16" else "fp16",
            found=parallel,
            remedy="one process or ddp, in bf16 or fp32",
        )


def without_effect(objective: Objective[Any]) -> set[str]:
    """The names of options here that do nothing for an objective."""
    gone = set() if needs_teacher(objective) else {"teacher", "teacher_top_k"}
    gone |= set() if "advantage" in objective.whole else {"teacher_reference"}
    gone |= {"reference_cache", "cache_dir"} if needs_live_reference(objective) else set()
    gone |= set() if objective.states else {"critic_model"}
    return gone | (set() if objective.module is not None else TRAINED_PARTS)


def needs_teacher(objective: Objective[Any]) -> bool:
    """Whether an objective reads a teacher's distributions."""
    return bool({"teacher_kl", "advantage"} & set(objective.whole))


def needs_live_reference(objective: Objective[Any]) -> bool:
    """Whether an objective reads more of its reference than log-probabilities, so that a cache won't do."""
    return "kl" in objective.whole or objective.layers


def open_up(reference: Any, objective: Objective[Any]) -> None:
    """Ask a live reference for what the objective reads of it."""
    if isinstance(reference, Reference):
        reference.table, reference.layers = "kl" in objective.whole, objective.layers


def load_teacher(
    policy: LocalPolicy,
    objective: Objective[Any],
    options: AuxiliaryOptions,
    max_tokens: int,
    groups: Sequence[Group],
    note: Callable[[str, int, int], object],
) -> Teacher | StoredTeacher | None:
    """The teacher that an objective learns from; None where it needs none.

    Args:
        policy: the student.
        objective: what is trained with.
        options: names the models.
        max_tokens: positions per forward pass.
        groups: what training will ask about, for `teacher_top_k`.
        note: told how far the writing down is.

    Raises:
        ConfigError: a teacher has other tokens than the student.
    """
    if not needs_teacher(objective):
        return None
    names = [options.teacher] + ([options.teacher_reference] if "advantage" in objective.whole else [])
    teacher = Teacher(*(_reference(str(name), policy, max_tokens) for name in names))
    if options.teacher_top_k is None:
        return teacher
    vocabulary = policy.engine.bare.get_output_embeddings().weight.shape[0]
    if options.teacher_top_k >= vocabulary:
        raise ConfigError(
            "teacher_top_k must be below the vocabulary",
            found=options.teacher_top_k,
            expected=f"< {vocabulary}",
        )
    stored = StoredTeacher(teacher, options.teacher_top_k)
    stored.prepare(groups, step=lambda done: note("teacher", done, len(groups)))
    return stored


def _reference(name: str, policy: LocalPolicy, max_tokens: int) -> Reference:
    other = load_policy(name)
    own, theirs = policy.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    sizes = [p.engine.bare.get_output_embeddings().weight.shape[0] for p in (policy, other)]
    if own != theirs or sizes[0] != sizes[1]:
        raise ConfigError(
            "teacher and student must share one vocabulary",
            where=str(Path(name)),
            found=f"{len(own)} and {len(theirs)} tokens, {sizes[0]} and {sizes[1]} scores",
            remedy="take both from one family of models",
        )
    other.model.requires_grad_(False).eval()
    return Reference(other.engine, max_tokens=max_tokens)


def with_own_answers(
    policy: LocalPolicy, records: Records, *, attribute: str | None, seed: int, max_new_tokens: int = 256
) -> Records:
    """Comparisons whose rejected answer is one that the policy writes now.

    Args:
        policy: the student, before training.
        records: with comparisons or ratings.
        attribute: whose judgments count.
        seed: of the sampling.
        max_new_tokens: largest length of an answer.
    """
    wanted = views.which_attribute(records, ("comparison", "rating"), attribute)
    pairs = list(views.pairs(records, attribute=wanted))
    rows = policy.encoder.encode_many([(pair.prompt, (), pair.record.extras) for pair in pairs])
    prompts = [row.prompt_ids for row in rows]
    written = policy.sample_ids(prompts, max_new_tokens=max_new_tokens, seed=seed)
    made: list[Record] = []
    for pair, (completion, *_) in zip(pairs, written):
        answers = (pair.chosen, Response.of(completion.text, role=pair.chosen.messages[-1].role))
        judgment = Judgment("comparison", (0, 1), (1.0, 0.0), attribute=wanted)
        made.append(replace(pair.record, responses=answers, judgments=(judgment,)))
    return Records.of(made, source=records.source)
