"""Scorers: whatever says how good responses are. Reward models, judges, rules, crowds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from accordance.core.errors import DataError
from accordance.core.policy import Prompt


@runtime_checkable
class Scorer(Protocol):
    """Says how good each response is; a larger number is better."""

    name: str

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """One number per (prompt, completion); None where the scorer does not apply.

        Args:
            prompts: one per completion.
            completions: texts of the responses.
            **columns: further columns of the data, one value per completion (condition, group, ...).
        """
        ...


@runtime_checkable
class PairScorer(Protocol):
    """Says which of two responses is better; need not be transitive."""

    name: str

    def prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], **columns: Any
    ) -> list[float]:
        """For each prompt the probability in [0, 1] that `first`, shown first, is preferred to `second`."""
        ...


@runtime_checkable
class StepScorer(Protocol):
    """Says of every step of a solution how likely it is to be right (a process reward model)."""

    name: str

    def score_steps(
        self, prompts: Sequence[Prompt], solutions: Sequence[Sequence[str]], **columns: Any
    ) -> list[list[float]]:
        """For each solution one probability in [0, 1] per step.

        Args:
            prompts: one per solution.
            solutions: the steps of each.
            **columns: further columns of the data, one value per solution.
        """
        ...


@dataclass(frozen=True)
class FunctionScorer:
    """A Scorer from a reward function of the ecosystem: ``f(prompts, completions, **columns)``.

    A function that names the columns it wants, and takes no others, gets these alone.
    """

    function: Callable[..., Sequence[float | None]]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", getattr(self.function, "__name__", "function"))

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """Call the function; see `Scorer.score`.

        Raises:
            DataError: it wants a column that is not there.
        """
        wanted = columns_for(self.function, columns)
        return list(self.function(prompts=prompts, completions=completions, **wanted))


def columns_for(function: Callable[..., Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    """Of the columns of the data those that a reward function takes: all, where it takes ``**columns``.

    Raises:
        DataError: it wants one that is not there.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin does not say
        return dict(columns)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(columns)
    own = ("prompts", "completions")
    named = {p.name: p for p in parameters if p.name not in own and p.kind is not p.VAR_POSITIONAL}
    missing = [name for name, p in named.items() if p.default is p.empty and name not in columns]
    if missing:
        raise DataError(
            f"the reward function {getattr(function, '__name__', 'given')} wants columns that not all records have",
            found=", ".join(sorted(columns)) or "no columns",
            expected=", ".join(missing),
            remedy="extras of these names in every record, or a default value in the function",
        )
    return {name: values for name, values in columns.items() if name in named}
