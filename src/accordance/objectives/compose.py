"""Objectives by name, sums and wrappers of them: ``get_objective("lcpo(dpo+0.1*sft)", beta=0.2)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from accordance.core.errors import ConfigError, unknown
from accordance.core.objective import Auxiliary, Bundle, ListLogps, Objective, PairLogps, UnaryLogps
from accordance.objectives.expression import Term, parse_objective, term_names
from accordance.objectives.listwise import best
from accordance.objectives.registry import build_objective, objective_options, qualified_options


def get_objective(name: str, **options: Any) -> Objective[Any]:
    """The objective that a recipe names.

    Args:
        name: one of `objective_names`, a weighted sum of several such as ``dpo+0.1*sft``, or a wrapper around one
            such as ``lcpo(dpo)``.
        **options: its options. One that several members have is written ``member.option``.

    Raises:
        ConfigError: a name or an option is unknown, a value can't be used, an option would have no effect, or
            the members do not go together.
    """
    terms = parse_objective(name)
    if terms == (Term(name),):
        return build_objective(name, options)
    return _build(terms, _share_options(term_names(terms), options))


def _build(terms: Sequence[Term], options: Mapping[str, Mapping[str, Any]]) -> Objective[Any]:
    members = []
    for term in terms:
        base = _build(term.inner, options) if term.inner else None
        members.append((build_objective(term.name, options[term.name], base), term.weight))
    return members[0][0] if len(members) == 1 and members[0][1] == 1 else weighted_sum(members)


def weighted_sum(members: Sequence[tuple[Objective[Any], float]]) -> Objective[Any]:
    """The sum of several objectives on the same examples, each times its weight.

    All must take the same kind of bundle, except that one for demonstrations (`sft`) goes with pairs and lists:
    it is applied to the chosen or best response. Where units differ, losses in tokens are divided by each
    response's length, so that the batch loss is a mean over examples. Rewards are those of the first member
    that has any; states are shared, under the members' names.

    Args:
        members: (objective, weight above 0).

    Raises:
        ConfigError: there are no members, a weight is not above 0, or the members do not go together.
    """
    if not members:
        raise ConfigError("a sum of no objectives", where="objective")
    for member, weight in members:
        if not weight > 0:
            raise ConfigError("the weight must be above 0", where=f"objective {member.name}", found=weight)
    bundle = _common_bundle([member for member, _ in members])
    parts = [
        (member if member.bundle is bundle else _lifted(member, bundle), weight) for member, weight in members
    ]
    unit = "tokens" if all(part.unit == "tokens" for part, _ in parts) else "examples"
    if unit == "examples":
        parts = [(_per_example(part), weight) for part, weight in parts]

    names = [part.name for part, _ in parts]
    if len(set(names)) != len(names):
        raise ConfigError("two members have one name", where="objective", found=names, remedy="rename one")
    return Objective(
        name="+".join(part.name if weight == 1 else f"{weight:g}*{part.name}" for part, weight in parts),
        bundle=bundle,
        function=SumOfLosses(tuple(parts)),
        options={key: value for part, _ in parts for key, value in qualified_options(part).items()},
        reference=any(part.reference for part, _ in parts),
        tokens=any(part.tokens for part, _ in parts),
        mismatched=any(part.mismatched for part, _ in parts),
        labels=any(part.labels for part, _ in parts),
        columns=tuple(dict.fromkeys(column for part, _ in parts for column in part.columns)),
        online=any(part.online for part, _ in parts),
        arrange=parts[0][0].arrange,
        unit=unit,
        rewards=next((part.rewards for part, _ in parts if part.rewards), None),
        state={f"{part.name}.{key}": value for part, _ in parts for key, value in part.state.items()},
        advantages=_one_advantages(parts),
        whole=tuple(dict.fromkeys(name for part, _ in parts for name in part.whole)),
        ranked=any(part.ranked for part, _ in parts),
        hidden=any(part.hidden for part, _ in parts),
        layers=any(part.layers for part, _ in parts),
        module=_one_module(parts),
        own_answers=any(part.own_answers for part, _ in parts),
        states=any(part.states for part, _ in parts),
        credit=_one_credit(parts),
        metrics=_all_metrics(parts),
    )


@dataclass(frozen=True)
class SumOfLosses:
    """The function of a sum, open to those who want its parts one by one.

    Attributes:
        parts: the members, made to take the same bundle in the same unit, with their weights.
    """

    parts: tuple[tuple[Objective[Any], float], ...]

    def __call__(self, examples: Bundle) -> Tensor:
        """One loss per example, shape [n]."""
        first, *rest = (weight * part(examples) for part, weight in self.parts)
        return sum(rest, start=first)


def parts_of(objective: Objective[Any]) -> tuple[tuple[Objective[Any], float], ...]:
    """The members of a sum with their weights; the objective itself where it is none (or wrapped as a whole)."""
    function = objective.function
    return function.parts if isinstance(function, SumOfLosses) else ((objective, 1.0),)


def _share_options(names: Sequence[str], options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Which member of a sum each option goes to."""
    share: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in options.items():
        member, dot, option = key.rpartition(".")
        having = [member] if dot else [name for name in names if option in objective_options(name)]
        if len(having) > 1:
            raise ConfigError(
                f"several members of the sum have the option {option!r}",
                where="objective",
                found=key,
                remedy=f"write {' or '.join(f'{name}.{option}' for name in having)}",
            )
        if dot and member not in share:
            raise unknown("member of the sum", member, share, where=f"option {key}")
        if not having or option not in objective_options(having[0]):
            known = [f"{name}.{option}" for name in names for option in objective_options(name)]
            raise unknown("option", key, known, where=f"objective {'+'.join(names)}")
        if option in share[having[0]]:
            raise ConfigError(f"{having[0]}.{option} is given twice", where="objective", found=value)
        share[having[0]][option] = value
    return share


def _one_advantages(parts: Sequence[tuple[Objective[Any], float]]) -> Callable[[Any], Tensor] | None:
    having = [part for part, _ in parts if part.advantages is not None]
    if len(having) > 1:
        raise _mismatch(having, "each has advantages of its own over a whole batch")
    return having[0].advantages if having else None


def _one_credit(
    parts: Sequence[tuple[Objective[Any], float]],
) -> Callable[[Any], Mapping[str, Tensor]] | None:
    having = [part for part, _ in parts if part.credit is not None]
    if len(having) > 1:
        raise _mismatch(having, "each gives credit to tokens in its own way")
    return having[0].credit if having else None


def _all_metrics(
    parts: Sequence[tuple[Objective[Any], float]],
) -> Callable[[Any], Mapping[str, Tensor]] | None:
    having = [part.metrics for part, _ in parts if part.metrics is not None]
    if not having:
        return None
    return lambda bundle: {name: values for read in having for name, values in read(bundle).items()}


def _one_module(parts: Sequence[tuple[Objective[Any], float]]) -> Auxiliary | None:
    having = [part for part, _ in parts if part.module is not None]
    if len(having) > 1:
        raise _mismatch(having, "each trains parts of its own")
    return having[0].module if having else None


def _common_bundle(members: Sequence[Objective[Any]]) -> type[Bundle]:
    writing = [m.name for m in members if m.own_answers]
    if writing and any(m.bundle is not UnaryLogps and not m.own_answers for m in members):
        raise _mismatch(
            members, f"{', '.join(writing)} puts the policy's own answers in the rejected ones' place"
        )
    if len(members) > 1 and (own := [m.name for m in members if m.arrange is not None]):
        raise _mismatch(members, f"{', '.join(own)} arranges examples of its own")
    kinds = {member.bundle for member in members}
    larger = kinds - {UnaryLogps}
    if len(larger) > 1 or (larger and not larger <= {PairLogps, ListLogps} and len(kinds) > 1):
        raise _mismatch(members, "they learn from different kinds of feedback")
    if larger and (learners := [m.name for m in members if m.bundle is UnaryLogps and m.labels]):
        raise _mismatch(members, f"{', '.join(learners)} learns from thumbs on single responses")
    return larger.pop() if larger else UnaryLogps


def _mismatch(members: Sequence[Objective[Any]], reason: str) -> ConfigError:
    return ConfigError(
        f"these objectives can't be summed: {reason}",
        where="objective",
        found=", ".join(f"{member.name} takes {member.bundle.kind}" for member in members),
        expected="one kind of feedback; sft goes with pairs and lists too",
    )


def _lifted(member: Objective[Any], bundle: type[Bundle]) -> Objective[Any]:
    """An objective for demonstrations, applied to the chosen or best response of each example."""
    read: Callable[[Any], UnaryLogps] = _chosen if bundle is PairLogps else _top
    return replace(
        member,
        bundle=bundle,
        function=lambda examples: _per_example(member).function(read(examples)),
        unit="examples",
        rewards=None,
    )


def _per_example(member: Objective[Any]) -> Objective[Any]:
    """A loss in tokens as one per example: divided by its number of tokens."""
    if member.unit == "examples":
        return member

    def function(examples: Any) -> Tensor:
        length = examples.length
        if isinstance(examples, ListLogps):
            length = length.masked_fill(~examples.mask, 0).sum(-1).clamp(min=1)
        return member.function(examples) / length

    return replace(member, function=function, unit="examples")


def _chosen(pairs: PairLogps) -> UnaryLogps:
    return UnaryLogps(pairs.chosen, pairs.chosen_length, ref=pairs.ref_chosen, extras=pairs.extras)


def _top(lists: ListLogps) -> UnaryLogps:
    index = best(lists)[:, None]

    def pick(values: Tensor) -> Tensor:
        return values.gather(-1, index)[:, 0]

    return UnaryLogps(
        pick(lists.logp),
        pick(lists.length),
        ref=None if lists.ref is None else pick(lists.ref),
        extras=lists.extras,
    )
