"""From examples and the log-probabilities of a batch to the bundle that an objective takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from accordance.core.objective import ListLogps, Objective, PairLogps, Tokens, UnaryLogps, Whole
from accordance.models import GroupLogps, ReferenceLogps
from accordance.training.examples import Example


def bundle_for(
    objective: Objective[Any],
    logps: GroupLogps,
    reference: ReferenceLogps | None,
    columns: dict[str, Tensor],
    sampled: Tensor | None = None,
    credit: Mapping[str, Tensor] | None = None,
    learned: Tensor | None = None,
) -> Any:
    """The bundle of log-probabilities that an objective takes, for one batch.

    Args:
        objective: decides the kind of bundle.
        logps: what the engine returned, responses in the order of the examples' groups.
        reference: the same responses under the reference, or None.
        columns: per-example columns, each of shape [n] (`scores`: [n, K] with NaN where there is no response).
        sampled: log-probability of each token when it was sampled, shape [tokens], or None.
        credit: what each token is worth, by name, shape [tokens] each.
        learned: which tokens count, shape [tokens]; None for all of them.
    """
    if learned is not None and not bool(learned.all()):
        keep = learned.to(logps.row.device)
        logps, reference = _only(logps, reference, keep)
        sampled = None if sampled is None else sampled.to(keep.device)[keep]
        credit = {name: values.to(keep.device)[keep] for name, values in (credit or {}).items()}
    if "starts" in columns:
        columns = dict(columns)
        logps, reference = _after_starts(logps, reference, columns.pop("starts"))
    ref = None if reference is None else reference.logp.to(logps.logp)
    tokens = None
    if objective.tokens:
        ref_tokens = None if reference is None else reference.tokens.to(logps.tokens)
        layers = None if reference is None or reference.layers is None else reference.layers.to(logps.tokens)
        compared = {name: getattr(logps, name) for name in get_args(Whole)}
        tokens = Tokens(
            logps.tokens,
            logps.row,
            ref_tokens,
            **compared,
            layers=layers,
            states=logps.states,
            extras={name: values.to(logps.tokens) for name, values in (credit or {}).items()},
        )
    rest = {name: value for name, value in columns.items() if name not in ("gap", "label", "scores", "weight")}
    shared = {"weight": columns.get("weight"), "extras": rest, "hidden": logps.hidden}
    if objective.bundle.kind == "pair":
        first, second = slice(0, None, 2), slice(1, None, 2)
        return PairLogps(
            logps.logp[first],
            logps.logp[second],
            logps.lengths[first],
            logps.lengths[second],
            None if ref is None else ref[first],
            None if ref is None else ref[second],
            columns.get("gap"),
            tokens=tokens,
            **shared,
        )
    if objective.bundle.kind == "unary":
        own = slice(0, None, 2 if objective.mismatched else 1)
        other = slice(1, None, 2)
        mismatched = objective.mismatched
        if tokens is not None and mismatched:
            tokens = tokens.select(tokens.row % 2 == 0, tokens.row[tokens.row % 2 == 0] // 2)
        if logps.hidden is not None:
            shared["hidden"] = logps.hidden[own]
        return UnaryLogps(
            logps.logp[own],
            logps.lengths[own],
            columns.get("label"),
            None if ref is None else ref[own],
            logps.logp[other].detach() if mismatched else None,
            ref[other] if mismatched and ref is not None else None,
            tokens=tokens,
            **shared,
        )
    return _list_bundle(logps, ref, tokens, columns, shared, sampled)


def _after_starts(
    logps: GroupLogps, reference: ReferenceLogps | None, starts: Tensor
) -> tuple[GroupLogps, ReferenceLogps | None]:
    """Without the tokens at the beginning of each response that belong to its prompt; `starts` of shape [n, K]."""
    skip = starts[~starts.isnan()].long()
    first = logps.lengths.cumsum(0) - logps.lengths
    place = torch.arange(len(logps.row), device=logps.row.device) - first[logps.row]
    return _only(logps, reference, place >= skip[logps.row])


def _only(
    logps: GroupLogps, reference: ReferenceLogps | None, keep: Tensor
) -> tuple[GroupLogps, ReferenceLogps | None]:
    """With some of the tokens alone; `keep` of shape [tokens]."""
    row = logps.row[keep]

    def trimmed(values: Any) -> Any:
        tokens = values.tokens.to(logps.tokens)[keep]
        sums = torch.zeros_like(logps.logp).index_add(0, row, tokens)
        others = {
            name: found.to(keep.device)[keep]
            for name in (*get_args(Whole), "entropy", "layers", "states")
            if (found := getattr(values, name, None)) is not None
        }
        return replace(values, tokens=tokens, logp=sums, **others)

    own = replace(trimmed(logps), row=row, lengths=torch.bincount(row, minlength=len(logps.lengths)))
    return own, None if reference is None else trimmed(reference)


def _list_bundle(
    logps: GroupLogps,
    ref: Tensor | None,
    tokens: Tokens | None,
    columns: dict[str, Tensor],
    shared: dict[str, Any],
    sampled: Tensor | None,
) -> ListLogps:
    sizes = torch.bincount(logps.group)
    n, width = len(sizes), int(sizes.max())
    place = torch.arange(len(logps.group), device=logps.group.device)
    place = place - (sizes.cumsum(0) - sizes)[logps.group]
    flat = logps.group * width + place

    def grid(values: Tensor, fill: float) -> Tensor:
        empty = values.new_full((n * width,), fill)
        return empty.scatter(0, flat, values).view(n, width)

    if tokens is not None:
        tokens = replace(tokens, row=flat[tokens.row])
    if logps.hidden is not None:
        empty = logps.hidden.new_zeros(n * width, logps.hidden.shape[1])
        shared = shared | {"hidden": empty.index_copy(0, flat, logps.hidden)}
    old = None
    if sampled is not None:
        sampled = sampled.to(logps.tokens)
        old = grid(torch.zeros_like(logps.logp).index_add(0, logps.row, sampled), 0.0)
    return ListLogps(
        grid(logps.logp, 0.0),
        grid(logps.lengths, 1),
        grid(torch.ones_like(logps.lengths), 0).bool(),
        columns.get("scores"),
        None if ref is None else grid(ref, 0.0),
        old,
        tokens=tokens,
        old_tokens=sampled if tokens is not None else None,
        **shared,
    )


def joined(values: Iterable[Tensor | None]) -> Tensor | None:
    """One value per token of some examples, end to end; None where they carry none."""
    there = [value for value in values if value is not None]
    return torch.cat(there) if there else None


def columns_of(examples: Sequence[Example]) -> dict[str, Tensor]:
    """The columns of some examples as tensors; lists of values are padded with NaN."""
    columns: dict[str, Tensor] = {}
    for name in examples[0].columns:
        values = [example.columns[name] for example in examples]
        if isinstance(values[0], tuple | list):
            width = max(map(len, values))
            values = [[*row, *[math.nan] * (width - len(row))] for row in values]
        columns[name] = torch.tensor(values)
    return columns
