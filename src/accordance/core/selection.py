"""Choosing among several solutions to one problem: what steps make a solution worth, best of n, votes."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from accordance.core.errors import DataError
from accordance.core.policy import Prompt
from accordance.core.scorer import StepScorer

How = Literal["product", "min"]
Answer = TypeVar("Answer", bound=Hashable)

#: A line that says the answer; the answer is the group.
ANSWER = r"(?i)^\W*(?:the )?(?:final )?answer(?: is)?\s*[:=]?\s*(\S.*?)\W*$"


def split_steps(text: str) -> tuple[str, ...]:
    """The steps of a solution: its paragraphs, parted by blank lines; one empty step where there is nothing."""
    return tuple(part.strip() for part in re.split(r"\n\s*\n", text.strip())) or ("",)


def find_answer(text: str, pattern: str = ANSWER) -> str | None:
    """The answer in the last line that says one (the pattern's first group), or None."""
    found = [
        match.group(1).strip() for line in text.splitlines() if (match := re.search(pattern, line.strip()))
    ]
    return found[-1] if found else None


def solution_score(steps: Sequence[float], how: How = "product") -> float:
    """What a solution is worth: the product, or the minimum, of its steps' probabilities to be right.

    Raises:
        DataError: there are no steps, or a number outside [0, 1].
    """
    if not len(steps) or not all(0 <= p <= 1 for p in steps):
        raise DataError(
            "steps are scored by probabilities", where="solution_score", found=list(steps), expected="in [0, 1]"
        )
    return math.prod(steps) if how == "product" else min(steps)


def best_of(scores: Sequence[float]) -> int:
    """The index of the highest score; the first of several.

    Raises:
        DataError: there is none, or one is no number.
    """
    if not len(scores) or any(math.isnan(score) for score in scores):
        raise DataError("there is nothing to choose from", where="best_of", found=list(scores))
    return max(range(len(scores)), key=lambda index: scores[index])


def vote(answers: Sequence[Answer | None], scores: Sequence[float] | None = None) -> Answer | None:
    """The answer with the largest sum of scores; a majority vote without scores. Ties go to the first.

    Args:
        answers: what each solution arrives at, shape [n]; None abstains.
        scores: the weight of each, not below 0.

    Returns:
        None where all abstain.

    Raises:
        DataError: not one score for each answer, or one that is no weight.
    """
    weights = [1.0] * len(answers) if scores is None else list(scores)
    if len(weights) != len(answers) or not all(weight >= 0 for weight in weights):
        raise DataError("a vote needs one weight for each answer", where="vote", found=weights)
    total: dict[Answer, float] = defaultdict(float)
    for answer, weight in zip(answers, weights):
        if answer is not None:
            total[answer] += weight
    return max(total, key=lambda answer: total[answer]) if total else None


@dataclass(frozen=True)
class SolutionScorer:
    """A step scorer as a Scorer of whole solutions, so that it can be named as a `reward`.

    Attributes:
        steps: scores single steps.
        how: what they make of the solution.
        name: what reports call it.
    """

    steps: StepScorer
    how: How = "product"
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.steps.name)

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """See `accordance.core.scorer.Scorer.score`."""
        found = self.score_steps(prompts, [split_steps(text) for text in completions], **columns)
        return [solution_score(row, self.how) for row in found]

    def score_steps(
        self, prompts: Sequence[Prompt], solutions: Sequence[Sequence[str]], **columns: Any
    ) -> list[list[float]]:
        """See `accordance.core.scorer.StepScorer.score_steps`."""
        return self.steps.score_steps(prompts, solutions, **columns)
