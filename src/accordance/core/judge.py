"""Judge: whoever is asked about responses in words. A language model, a scripted assistant, a person behind a screen.

A judge compares, rates, ranks, criticises and proposes principles. Adapters make a `Scorer` or a `PairScorer` of
it. The judge that asks a text model is `accordance.core.policy_judge.PolicyJudge`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Policy, Prompt
from accordance.core.record import Record, Response, as_prompt
from accordance.core.scorer import FunctionScorer

Notes = Sequence[str | None] | None


@dataclass(frozen=True)
class Verdict:
    """Which of two responses is better.

    Attributes:
        votes: every vote that could be read, from the first response's side: 1 won, 0.5 tie, 0 lost.
        first_shown: for each vote, whether the first response was shown first.
        failures: answers that could not be read.
        log_odds: mean over orders of log P(first wins) - log P(second wins), where the judge tells.
        reason: what the judge said, of the first vote that could be read.
        flags: kinds of hostile text found in the two responses.
    """

    votes: tuple[float, ...] = ()
    first_shown: tuple[bool, ...] = ()
    failures: int = 0
    log_odds: float | None = None
    reason: str = ""
    flags: tuple[str, ...] = ()

    @property
    def prob(self) -> float | None:
        """How surely the first is better, in [0, 1]: from log-odds where there are any, else the share of votes.

        None where nothing could be read.
        """
        if self.log_odds is not None:
            return 0.5 * (1 + math.tanh(self.log_odds / 2))
        return sum(self.votes) / len(self.votes) if self.votes else None

    @property
    def winner(self) -> int | None:
        """1 the first, -1 the second, 0 a tie of the votes, None where nothing could be read."""
        prob = self.prob
        return None if prob is None else (prob > 0.5) - (prob < 0.5)

    @property
    def consistent(self) -> bool | None:
        """Whether both orders came out alike; None where they were not both asked (or read)."""
        sides = [
            [v for v, shown in zip(self.votes, self.first_shown) if shown is side] for side in (True, False)
        ]
        if not all(sides):
            return None
        one, other = (sum(side) / len(side) - 0.5 for side in sides)
        return (one > 0) - (one < 0) == (other > 0) - (other < 0)


@dataclass(frozen=True)
class Rating:
    """How good one response is on the judge's scale; `value` is None where nothing could be read."""

    value: float | None = None
    reason: str = ""
    failures: int = 0
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranked:
    """How good the responses to one prompt are, seen side by side; `values` is None where not all could be read."""

    values: tuple[float, ...] | None = None
    reason: str = ""
    failures: int = 0
    flags: tuple[tuple[str, ...], ...] = ()


@runtime_checkable
class Judge(Protocol):
    """Says what it thinks of responses.

    `rubric` says what to look for, in our own words. `notes` is what the judge may rely on, one text per item
    (reference answers, evidence from tools), or None.
    """

    name: str

    def compare(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        *,
        rubric: str | None = None,
        notes: Notes = None,
        swap: bool = True,
    ) -> list[Verdict]:
        """One verdict per item; with `swap` in both orders."""
        ...

    def rate(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        *,
        rubric: str | None = None,
        notes: Notes = None,
    ) -> list[Rating]:
        """One rating per completion, each seen alone."""
        ...

    def rank(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Sequence[str]],
        *,
        rubric: str | None = None,
        notes: Notes = None,
    ) -> list[Ranked]:
        """One number for each of the responses to a prompt, all shown together."""
        ...

    def critique(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[str],
        *,
        rubric: str | None = None,
        notes: Notes = None,
    ) -> list[str | None]:
        """What is wrong with each completion; None where nothing could be read."""
        ...

    def propose(self, prompt: Prompt, preferred: str, other: str, many: int) -> list[str]:
        """At most `many` principles that would explain why `preferred` was preferred."""
        ...


@runtime_checkable
class OptionPolicy(Protocol):
    """A policy that tells how likely it finds given responses."""

    def option_logps(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[float]]:
        """For each prompt the natural-log probability of each of its options, summed over its tokens."""
        ...


def option_logps(
    policy: Policy, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Log-probabilities of given responses, from whatever a policy offers: `option_logps`, or local weights.

    Raises:
        ConfigError: the policy says nothing of probabilities.
    """
    if isinstance(policy, OptionPolicy):
        return policy.option_logps(prompts, options)
    measure = getattr(policy, "logprobs", None)
    if not callable(measure):
        raise ConfigError(
            "this policy tells no probabilities of given responses",
            where=policy.name,
            expected="option_logps(prompts, options), or a policy with local weights",
            remedy="ask it for votes instead",
        )
    asked = [
        Record(as_prompt(prompt), tuple(Response.of(text) for text in row))
        for prompt, row in zip(prompts, options, strict=True)
    ]
    table: Any = measure(asked)
    rows: list[list[float]] = [[] for _ in asked]
    for record, logp in zip(table["record"].tolist(), table["logprob"].tolist()):
        rows[record].append(float(logp))
    return rows


def judge_scorer(judge: Judge, *, rubric: str | None = None, name: str | None = None) -> FunctionScorer:
    """A Scorer: each response rated alone; None (does not apply) where the judge could not be read.

    A column ``notes`` of the data, where there is one, is what the judge may rely on.
    """

    def score(*, prompts: Sequence[Prompt], completions: Sequence[str], **columns: Any) -> list[float | None]:
        ratings = judge.rate(prompts, completions, rubric=rubric, notes=columns.get("notes"))
        return [rating.value for rating in _as_many(ratings, len(completions), judge)]

    return FunctionScorer(score, name or judge.name)


@dataclass(frozen=True)
class JudgePairScorer:
    """A judge as a PairScorer: the responses are shown in the order given, so that a bias for it can be seen.

    Attributes:
        judge: who is asked.
        rubric: what to look for.
        name: what reports call it.
    """

    judge: Judge
    rubric: str | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.judge.name)

    def prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], **columns: Any
    ) -> list[float]:
        """See `accordance.core.scorer.PairScorer.prob`; NaN where the judge could not be read."""
        notes = columns.get("notes")
        verdicts = self.judge.compare(prompts, first, second, rubric=self.rubric, notes=notes, swap=False)
        probs = [verdict.prob for verdict in _as_many(verdicts, len(first), self.judge)]
        return [math.nan if prob is None else prob for prob in probs]


def _as_many(found: Sequence[Any], expected: int, judge: Judge) -> Sequence[Any]:
    if len(found) != expected:
        raise DataError(
            "the judge answered another number of questions",
            where=f"judge {judge.name}",
            found=len(found),
            expected=str(expected),
        )
    return found
