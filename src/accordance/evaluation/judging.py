"""Who wins: answers after against answers before, as any Scorer, PairScorer or set of groups sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from accordance.core.errors import ConfigError, DataError
from accordance.core.scorer import PairScorer, Scorer
from accordance.core.stats import Interval, bootstrap, proportion
from accordance.evaluation.sampling import Answers

Judges = Scorer | PairScorer | Mapping[str, Scorer | PairScorer]


@dataclass(frozen=True)
class Verdicts:
    """What one scorer thinks of the answers; arrays have shape [rows], NaN where it had no opinion.

    Attributes:
        name: of the scorer.
        win: 1 where `after` is better, 0 where `before` is, 0.5 for a tie; a PairScorer's probability that
            `after` is better, averaged over both orders.
        before, after: the scores; None for a PairScorer.
        first, second: a PairScorer's probability that `after` is better when shown first and when shown
            second; None for a Scorer.
        keys: the prompt of each row.
    """

    name: str
    win: np.ndarray
    keys: list[str]
    before: np.ndarray | None = None
    after: np.ndarray | None = None
    first: np.ndarray | None = None
    second: np.ndarray | None = None
    groups: dict[str, Verdicts] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Rows without an opinion."""
        return int(np.isnan(self.win).sum())

    def win_rate(self, mask: np.ndarray | None = None, seed: int = 0) -> Interval:
        """Share of wins with an interval by prompt, over the rows of `mask` that were judged."""
        return self._share(self.win, mask, seed, share=True)

    def order_inconsistency(self, seed: int = 0) -> Interval | None:
        """Share of pairs whose verdict turns when the order is turned; None for a Scorer."""
        flips = self._flips()
        return None if flips is None else self._share(flips, None, seed, share=True)

    def first_advantage(self, seed: int = 0) -> Interval | None:
        """How much likelier an answer is to win when shown first than when shown second; None for a Scorer."""
        if self.first is None or self.second is None:
            return None
        return self._share(self.first - self.second, None, seed, share=False)

    def _flips(self) -> np.ndarray | None:
        """1 where the verdict turns with the order; over groups, the share of those who judged."""
        if self.groups:
            return _mean_or_none([verdicts._flips() for verdicts in self.groups.values()])
        if self.first is None or self.second is None:
            return None
        flips = (np.sign(self.first - 0.5) != np.sign(self.second - 0.5)).astype(float)
        return np.where(np.isnan(self.win), np.nan, flips)

    def _share(self, values: np.ndarray, mask: np.ndarray | None, seed: int, *, share: bool) -> Interval:
        use = ~np.isnan(values) if mask is None else mask & ~np.isnan(values)
        keys = [key for key, used in zip(self.keys, use) if used]
        return (proportion if share else bootstrap)(values[use], clusters=keys, seed=seed)


def judge(answers: Answers, scorer: Judges) -> Verdicts:
    """Compare `answers.after` with `answers.before`.

    Args:
        answers: with both sides.
        scorer: a Scorer (higher wins, equal is a tie), a PairScorer (shown both orders, averaged), or one of
            these for each group of people: then every group judges every answer, and the overall verdict
            is the mean over groups, each counting the same.

    Raises:
        ConfigError: it is no scorer, or a mapping without groups.
        DataError: it returns another number of scores than answers, or probabilities outside [0, 1].
    """
    if not isinstance(scorer, Mapping):
        return _judge_one(answers, scorer, str(getattr(scorer, "name", type(scorer).__name__)))
    if not scorer:
        raise ConfigError("no groups to judge", where="scorer", expected="at least one group and its scorer")
    groups = {str(name): _judge_one(answers, one, str(name)) for name, one in scorer.items()}
    return Verdicts(
        name=f"{len(groups)} groups: {', '.join(groups)}",
        win=_mean_over_groups([v.win for v in groups.values()]),
        keys=answers.keys,
        before=_mean_or_none([v.before for v in groups.values()]),
        after=_mean_or_none([v.after for v in groups.values()]),
        first=_mean_or_none([v.first for v in groups.values()]),
        second=_mean_or_none([v.second for v in groups.values()]),
        groups=groups,
    )


def _judge_one(answers: Answers, scorer: Any, name: str) -> Verdicts:
    prompts = answers.prompts
    after = [c.text for c in answers.after]
    before = [c.text for c in answers.before or []]
    if callable(getattr(scorer, "prob", None)):
        first = _numbers(scorer.prob(prompts, after, before), len(after), name)
        second = 1 - _numbers(scorer.prob(prompts, before, after), len(after), name)
        if any(np.nanmin(p, initial=0) < 0 or np.nanmax(p, initial=1) > 1 for p in (first, second)):
            raise DataError("a probability lies outside [0, 1]", where=f"scorer {name}")
        return Verdicts(name, (first + second) / 2, answers.keys, first=first, second=second)
    if not callable(getattr(scorer, "score", None)):
        raise ConfigError(
            "this is no scorer",
            where="scorer",
            found=type(scorer).__name__,
            expected="an object with score(prompts, completions) or prob(prompts, first, second)",
            remedy="wrap a function in accordance.core.FunctionScorer",
        )
    # One call for both sides: a scorer that samples or normalises sees them under the same conditions.
    scores = _numbers(scorer.score([*prompts, *prompts], [*before, *after]), 2 * len(after), name)
    low, high = scores[: len(after)], scores[len(after) :]
    win = np.where(np.isnan(low) | np.isnan(high), np.nan, 0.5 * (1 + np.sign(high - low)))
    return Verdicts(name, win, answers.keys, before=low, after=high)


def _numbers(scores: Sequence[float | None], expected: int, name: str) -> np.ndarray:
    if len(scores) != expected:
        raise DataError(
            "the scorer returned another number of scores than there are answers",
            where=f"scorer {name}",
            found=len(scores),
            expected=str(expected),
        )
    return np.array([np.nan if s is None else float(s) for s in scores], dtype=np.float64)


def _mean_over_groups(columns: Sequence[np.ndarray]) -> np.ndarray:
    stack = np.stack(columns)
    given = ~np.isnan(stack)
    total = np.where(given, stack, 0).sum(axis=0)
    return np.divide(total, given.sum(axis=0), out=np.full(stack.shape[1], np.nan), where=given.any(axis=0))


def _mean_or_none(columns: Sequence[np.ndarray | None]) -> np.ndarray | None:
    there = [column for column in columns if column is not None]
    return _mean_over_groups(there) if len(there) == len(columns) else None
