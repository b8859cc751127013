"""Judgments that pull in different directions, each with a loss of its own: attributes, or groups of people.

A balancer then sees one gradient for each of them (conflict-averse between helpfulness and harmlessness, max-min over
groups); without one, each counts by its weight rather than by how many judgments it happens to have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from accordance.core.errors import ConfigError, DataError, unknown
from accordance.core.objective import Objective
from accordance.core.record import Judgment, Record, Records
from accordance.models import Encoder, LocalPolicy, add_heads, heads_of
from accordance.objectives import SumOfLosses, parts_of
from accordance.training.examples import Examples, examples_for
from accordance.training.order import MEMBER

Over = Literal["objective", "attribute", "group"]
_NOBODY = {"attribute": "overall", "group": "no group"}


def split_records(records: Records, over: Over) -> dict[str, Records]:
    """For each attribute (or group) the records with its judgments alone, by name, sorted.

    Args:
        records: what people said.
        over: ``attribute`` or ``group``; judgments without one are under ``overall`` and ``no group``.
    """
    found: dict[str, list[Record]] = {}
    for record in records:
        apart: dict[str, list[Judgment]] = {}
        for judgment in record.judgments:
            name = (judgment.attribute if over == "attribute" else judgment.group) or _NOBODY[over]
            apart.setdefault(name, []).append(judgment)
        for name, judgments in apart.items():
            found.setdefault(name, []).append(replace(record, judgments=tuple(judgments)))
    return {name: Records.of(found[name], source=f"{records.source}, {name}") for name in sorted(found)}


def member_examples(
    objective: Objective[Any],
    records: Records,
    encoder: Encoder,
    over: Over,
    progress: Callable[[int], object] | None,
    options: Mapping[str, Any],
    names: Sequence[str] | None = None,
) -> tuple[Examples, list[str]]:
    """The examples of all members in one, each with the number of its member in a column.

    Args:
        objective, records, encoder, progress: see `examples_for`.
        over: what makes a member.
        options: of `examples_for`.
        names: of the members where they are known (those of the training records); others are left out and counted.

    Returns:
        The examples, and the names of the members.

    Raises:
        DataError: there is only one member, or one has nothing to learn from.
    """
    apart = split_records(records, over)
    known = list(names or apart)
    if len(known) < 2:
        raise DataError(
            "there is nothing to balance",
            where=records.source,
            found=f"judgments of {', '.join(known) or 'nobody'} alone",
            expected=f"two or more {over}s",
            remedy="leave balance_over out",
        )
    made = Examples(source=f"judgments by {over}: {', '.join(known)}")
    for name, some in apart.items():
        if name not in known:
            made.dropped.setdefault(f"of no known {over}", []).extend(record.origin for record in some)
            continue
        asked: dict[str, Any] = dict(options) | {"annotators": made.annotators}
        if over == "attribute":
            asked["attribute"] = None if name == _NOBODY[over] else name
        part = examples_for(objective, some, encoder, progress=progress, **asked)
        made.items += [replace(e, columns={**e.columns, MEMBER: known.index(name)}) for e in part.items]
        for reason, origins in part.dropped.items():
            made.dropped.setdefault(reason, []).extend(origins)
        made.notes.update(part.notes)
        made.annotators = part.annotators
    return made, known


def give_heads(policy: LocalPolicy, names: Sequence[str], noise: float, seed: int, *data: Examples) -> None:
    """An output head for each member, which scores that member's examples alone (MAH-DPO, S006).

    Args:
        policy: is given the heads, unless it has them already.
        names: of the members.
        noise, seed: see `accordance.models.Heads`.
        *data: examples of these members; each is told its head.

    Raises:
        ConfigError, ModelError: see `accordance.models.add_heads`.
    """
    heads = add_heads(policy.model, names, scale=noise, seed=seed)
    number = [heads.names.index(name) for name in names]
    for some in data:
        some.items = [replace(e, group=replace(e.group, head=number[e.columns[MEMBER]])) for e in some.items]


def same_heads(policy: LocalPolicy, reference: LocalPolicy) -> None:
    """Each head is compared with the reference's head of the same name and number.

    Raises:
        ConfigError: the policy has heads, and the reference not the same.
    """
    own, other = heads_of(policy.model), heads_of(reference.model)
    if own is not None and (other is None or other.names != own.names):
        raise ConfigError(
            "the reference has not the heads that the policy has",
            where="reference",
            found=", ".join(other.names) if other is not None else "one head",
            expected=", ".join(own.names),
            remedy="leave reference out: the policy before training is it, heads included",
        )


def over_members(
    objective: Objective[Any], data: Examples, names: Sequence[str], weights: Mapping[str, float] | None = None
) -> Objective[Any]:
    """The objective as a sum with one term for each member: the mean loss of its own examples.

    Args:
        objective: what each member's loss is.
        data: how many examples each member has: a term is scaled so that it is a mean over them.
        names: of the members.
        weights: of the terms by name, brought to a sum of 1; all equal by default.

    Raises:
        ConfigError: it keeps running values, is a sum itself, or a weight is of nobody or not above 0.
    """
    reasons = (
        (len(parts_of(objective)) > 1, "it is a sum"),
        (objective.ranked, "it sorts the pairs of a batch"),
        (bool(objective.state), "it keeps running values"),
        (objective.module is not None, "it has trained parts of its own"),
        (objective.unit == "tokens", "its loss is a mean over tokens, not examples"),
        (objective.arrange is not None, "it arranges examples of its own"),
    )
    for holds, reason in reasons:
        if holds:
            raise ConfigError(
                f"{objective.name} can't have a loss of its own for each of {', '.join(names)}",
                where="balance_over",
                found=reason,
                remedy="use a plain objective such as dpo, or leave balance_over out",
            )
    chosen = dict(weights or dict.fromkeys(names, 1.0))
    for name in chosen:
        if name not in names:
            raise unknown("member", name, names, where="balance_weights")
    if set(chosen) != set(names) or min(chosen.values()) <= 0:
        raise ConfigError(
            "every member has a weight above 0",
            where="balance_weights",
            found=chosen,
            expected=", ".join(names),
        )
    total = sum(chosen.values())
    counts = torch.bincount(torch.tensor([e.columns[MEMBER] for e in data.items]), minlength=len(names))
    parts = tuple(
        (_of_member(objective, name, number, float(counts[number]) / len(data)), chosen[name] / total)
        for number, name in enumerate(names)
    )
    return replace(objective, function=SumOfLosses(parts))


def _of_member(objective: Objective[Any], name: str, number: int, share: float) -> Objective[Any]:
    def function(bundle: Any) -> Tensor:
        mine = bundle.extras[MEMBER] == number
        return torch.where(mine, objective.function(bundle) / share, 0.0)

    return replace(objective, name=name, function=function)
