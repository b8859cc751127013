"""Policies of earlier rounds, for objectives that look back to them (mnpo, inpo): how likely they find an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from accordance.core.objective import Objective
from accordance.models import Group, LocalPolicy, Reference
from accordance.training.lookahead import take_weights, trainable_weights

_COLUMN = re.compile(r"(history(\d+))_(?:chosen|rejected)")


def history_columns(objective: Objective[Any]) -> list[str]:
    """The columns of an objective that hold log-probabilities under past policies, without which side they are of."""
    found = {match[1]: int(match[2]) for name in objective.columns if (match := _COLUMN.fullmatch(name))}
    return sorted(found, key=lambda name: found[name])


class PastPolicies:
    """The latest of a policy's past, its present one first; the one before training stands for those before it.

    Holds one copy of the trainable weights for each; an answer is scored under one by putting its weights in the
    policy's place for as long as that takes.

    Args:
        policy: whose past.
        names: one for each policy to remember.
        max_tokens: positions per forward pass.
    """

    def __init__(self, policy: LocalPolicy, names: Sequence[str], max_tokens: int) -> None:
        self.policy, self.names = policy, list(names)
        self.reference = Reference(policy.engine, max_tokens=max_tokens)
        self.kept = [trainable_weights(policy.model)] * len(self.names)

    def remember(self) -> None:
        """The policy as it stands is the latest now, and the oldest is forgotten."""
        self.kept = [trainable_weights(self.policy.model), *self.kept[:-1]]

    def __call__(self, groups: Sequence[Group]) -> dict[str, Tensor]:
        """Log-probability of each token of the groups' responses under each of them, by name, shape [tokens]."""
        found: dict[str, Tensor] = {}
        for name, weights in zip(self.names, self.kept):
            with self._as_it_was(weights):
                found[name] = self.reference(groups).tokens.cpu()
        return found

    @contextmanager
    def _as_it_was(self, weights: dict[str, Tensor]) -> Iterator[None]:
        now = trainable_weights(self.policy.model)
        take_weights(self.policy.model, weights)
        try:
            yield
        finally:
            take_weights(self.policy.model, now)

    def state(self) -> list[dict[str, Tensor]]:
        """For a checkpoint."""
        return self.kept

    def restore(self, state: list[dict[str, Tensor]]) -> None:
        """Take what a checkpoint holds."""
        self.kept = state
