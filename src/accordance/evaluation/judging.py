"""Who wins: answers after against answers before, as any Scorer, PairScorer or set of groups sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from accordance.core.errors import ConfigError, DataError
from accordance.core.scorer import PairScorer, Scorer
from accordance.core.stats import Interval, bootstrap, proportion
from accordance.evaluation.sampling import Answers

Judge = Scorer | PairScorer
Judges = Judge | Mapping[str, Judge]


@dataclass(frozen=True)
class Verdicts:
    """What one scorer thinks of the answers; arrays have shape [rows], NaN where it had no opinion.

    Attributes:
        name: of the scorer.
        win: 1 where `after` is better, 0 where `before` is, 0.5 for a tie; a PairScorer's probability that
            `after` is better, averaged over both orders.
        keys: the prompt of each row.
        before, after: the scores; None for what is only a PairScorer.
        first, second: a PairScorer's probability that `after` is better when shown first and when shown
            second; None for a Scorer.
        flips: 1 where the verdict turns with the order, a share where several judged; None for a Scorer.
        groups: the verdicts of each group of people.
    """

    name: str
    win: np.ndarray
    keys: list[str]
    before: np.ndarray | None = None
    after: np.ndarray | None = None
    first: np.ndarray | None = None
    second: np.ndarray | None = None
    flips: np.ndarray | None = None
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
        return None if self.flips is None else self._share(self.flips, None, seed, share=True)

    def score_win_rate(self, seed: int = 0) -> Interval | None:
        """Share of answers whose score is higher than before, equal ones half; None without scores."""
        if self.before is None or self.after is None:
            return None
        return self._share(_wins(self.before, self.after), None, seed, share=True)

    def first_advantage(self, seed: int = 0) -> Interval | None:
        """How much likelier an answer is to win when shown first than when shown second; None for a Scorer."""
        if self.first is None or self.second is None:
            return None
        return self._share(self.first - self.second, None, seed, share=False)

    def _share(self, values: np.ndarray, mask: np.ndarray | None, seed: int, *, share: bool) -> Interval:
        use = ~np.isnan(values) if mask is None else mask & ~np.isnan(values)
        keys = [key for key, used in zip(self.keys, use) if used]
        return (proportion if share else bootstrap)(values[use], clusters=keys, seed=seed)


def judge(answers: Answers, scorer: Judges, by_group: Mapping[str, Judge] | None = None) -> Verdicts:
    """Compare `answers.after` with `answers.before`.

    Args:
        answers: with both sides.
        scorer: a Scorer (higher wins, equal is a tie), a PairScorer (shown both orders, averaged; what is both
            is asked as a PairScorer, and its scores are noted), or one of these for each group of people: then
            every group judges every answer, and the overall verdict is the mean over groups, each counting
            the same.
        by_group: one scorer for each group beside an overall `scorer`.

    Raises:
        ConfigError: it is no scorer, or a mapping without groups.
        DataError: it returns another number of scores than answers, or probabilities outside [0, 1].
    """
    if isinstance(scorer, Mapping):
        if not scorer or by_group is not None:
            raise ConfigError(
                "groups are given twice" if scorer else "no groups to judge",
                where="scorer",
                expected="either a mapping from group to scorer, or an overall scorer and by_group",
            )
        return _over_groups(
            answers, {name: _judge_one(answers, one, str(name)) for name, one in scorer.items()}
        )
    overall = _judge_one(answers, scorer, str(getattr(scorer, "name", type(scorer).__name__)))
    groups = {str(name): _judge_one(answers, one, str(name)) for name, one in (by_group or {}).items()}
    return replace(overall, groups=groups)


def _over_groups(answers: Answers, groups: dict[str, Verdicts]) -> Verdicts:
    def mean(column: str) -> np.ndarray | None:
        there = [getattr(verdicts, column) for verdicts in groups.values()]
        return None if any(values is None for values in there) else _mean(there)

    return Verdicts(
        name=f"{len(groups)} groups ({', '.join(groups)})",
        win=_mean([verdicts.win for verdicts in groups.values()]),
        keys=answers.keys,
        before=mean("before"),
        after=mean("after"),
        first=mean("first"),
        second=mean("second"),
        flips=mean("flips"),
        groups=groups,
    )


def _judge_one(answers: Answers, scorer: Any, name: str) -> Verdicts:
    prompts = answers.prompts
    after = [c.text for c in answers.after]
    before = [c.text for c in answers.before or []]
    scores, compares = callable(getattr(scorer, "score", None)), callable(getattr(scorer, "prob", None))
    if not scores and not compares:
        raise ConfigError(
            "this is no scorer",
            where="scorer",
            found=type(scorer).__name__,
            expected="an object with score(prompts, completions) or prob(prompts, first, second)",
            remedy="wrap a function in accordance.core.FunctionScorer",
        )
    low = high = None
    if scores:
        # One call for both sides: a scorer that samples or normalises sees them under the same conditions.
        both = _numbers(scorer.score([*prompts, *prompts], [*before, *after]), 2 * len(after), name)
        low, high = both[: len(after)], both[len(after) :]
    if not compares:
        assert low is not None and high is not None
        return Verdicts(name, _wins(low, high), answers.keys, before=low, after=high)
    first = _numbers(scorer.prob(prompts, after, before), len(after), name)
    second = 1 - _numbers(scorer.prob(prompts, before, after), len(after), name)
    if any(np.nanmin(p, initial=0) < 0 or np.nanmax(p, initial=1) > 1 for p in (first, second)):
        raise DataError("a probability lies outside [0, 1]", where=f"scorer {name}")
    win = (first + second) / 2
    flips = np.where(np.isnan(win), np.nan, np.sign(first - 0.5) != np.sign(second - 0.5))
    return Verdicts(name, win, answers.keys, low, high, first, second, flips)


def _wins(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.sign(after - before))


def _numbers(scores: Sequence[float | None], expected: int, name: str) -> np.ndarray:
    if len(scores) != expected:
        raise DataError(
            "the scorer returned another number of scores than there are answers",
            where=f"scorer {name}",
            found=len(scores),
            expected=str(expected),
        )
    return np.array([np.nan if s is None else float(s) for s in scores], dtype=np.float64)


def _mean(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over groups of what each said, leaving out those without an opinion; shape [rows]."""
    stack = np.stack(columns)
    given = ~np.isnan(stack)
    total = np.where(given, stack, 0).sum(axis=0)
    return np.divide(total, given.sum(axis=0), out=np.full(stack.shape[1], np.nan), where=given.any(axis=0))
