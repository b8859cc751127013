"""Process rewards that can't be farmed by length: they telescope to the worst step (easy-to-hard, S156)."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from accordance.core.catalogue import system
from accordance.core.errors import DataError
from accordance.core.policy import Prompt
from accordance.core.scorer import StepScorer
from accordance.core.selection import ANSWER, find_answer, split_steps

Scheme = Literal["min", "prod"]
#: Probability of a step that ends too early to say anything: logit -4.44.
_TOO_EARLY = 1 / (1 + math.exp(4.44))


def process_rewards(
    probs: Sequence[float], scheme: Scheme = "min", upper: float = 0.5, bonus: float = 0.25
) -> list[float]:
    """A reward for each step, adding up to min(upper, worst) - upper + bonus.

    The worst is the least probability of a step (``min``) or the product of all (``prod``). Each step pays for how
    much it lowers what was the worst so far; further steps can't make up for it, and cost nothing by themselves.

    Args:
        probs: of each step to be right.
        scheme: see above.
        upper: probabilities above this cost nothing.
        bonus: shared equally by the steps.

    Raises:
        DataError: there are no steps, or a number outside [0, 1].
    """
    if not len(probs) or not all(0 <= p <= 1 for p in probs):
        raise DataError("steps are scored by probabilities", found=list(probs), expected="in [0, 1]")
    lowest, product, rewards = upper, 1.0, []
    for p in probs:
        product *= p
        now = min(lowest, p if scheme == "min" else product)
        rewards.append(now - lowest + bonus / len(probs))
        lowest = now
    return rewards


def stop_penalty(text: str, pattern: str = ANSWER) -> float:
    """How badly a solution ends: 0 with the answer in its last line, 0.5 with something behind it, 0.75 where the
    last line speaks of an answer and gives none, 1 with no answer at all. The steps are the paper's, which ending
    gets which is our reading.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and find_answer(lines[-1], pattern) is not None:
        return 0.0
    if find_answer(text, pattern) is not None:
        return 0.5
    return 0.75 if lines and re.search(r"(?i)\banswer\b", lines[-1]) else 1.0


@system("S156", "Easy-to-hard generalisation", paper="arXiv:2403.09472")
@dataclass(frozen=True)
class ProcessReward:
    """A Scorer for problems of which only the easy ones have known answers.

    Right answers to easy problems are worth 1, wrong ones 0; hard ones, whose answers nobody knows, `unknown`.
    Added to that are the `process_rewards` of the steps, by an evaluator that was trained on easy problems, and the
    penalty for a missing answer. Departs from the paper: the rewards of the steps are given for the whole response,
    not at the places of the separators, since rollouts carry one reward per response; they telescope either way.

    Attributes:
        steps: the evaluator.
        scheme, upper, bonus: see `process_rewards`.
        unknown: the terminal reward of problems without an answer.
        stop: weight of the `stop_penalty`.
        early: characters from the beginning within which a step that ends counts as almost surely wrong, so that
            empty steps do not pay; 0 for none.
        pattern: finds the answer in a line, as its first group.
        column: the column of the data that holds answers; None for unknown.
        name: what reports call it.
    """

    steps: StepScorer
    scheme: Scheme = "min"
    upper: float = 0.5
    bonus: float = 0.25
    unknown: float = 0.25
    stop: float = 1.0
    early: int = 0
    pattern: str = ANSWER
    column: str = "answer"
    name: str = "process reward"

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any
    ) -> list[float | None]:
        """See `accordance.core.scorer.Scorer.score`; reads the column of answers, where there is one."""
        solutions = [split_steps(text) for text in completions]
        answers = columns.pop(self.column, None) or [None] * len(completions)
        found = self.steps.score_steps(prompts, solutions, **columns)
        if len(found) != len(solutions) or any(len(row) != len(steps) for row, steps in zip(found, solutions)):
            raise DataError("a step scorer gives one number for each step", where=self.steps.name)
        return [
            sum(process_rewards(self._without_early(row, steps), self.scheme, self.upper, self.bonus))
            + self._terminal(text, answer)
            - self.stop * stop_penalty(text, self.pattern)
            for row, steps, text, answer in zip(found, solutions, completions, answers)
        ]

    def _terminal(self, text: str, answer: object) -> float:
        if answer is None:
            return self.unknown
        return float(find_answer(text, self.pattern) == str(answer).strip())

    def _without_early(self, probs: Sequence[float], steps: Sequence[str]) -> list[float]:
        ends, seen = [], 0
        for step in steps:
            seen += len(step)
            ends.append(seen)
        last = len(probs) - 1  # the end of the response is no separator
        return [
            min(p, _TOO_EARLY) if end <= self.early and place < last else p
            for place, (p, end) in enumerate(zip(probs, ends))
        ]
