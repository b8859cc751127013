"""Learn hard problems from an evaluator that knows easy ones (easy-to-hard, S156)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Record, Records
from accordance.core.selection import ANSWER, best_of, find_answer, solution_score, split_steps, vote
from accordance.training.loops.session import Session
from accordance.training.process_rewards import ProcessReward
from accordance.training.registry import Loop, loop
from accordance.training.rollouts import Rollout


@loop("easy_to_hard")
class EasyToHard(Loop):
    """Imitates solutions to easy problems, then learns online on easy and hard ones from `ProcessReward`.

    The reward that is named scores steps (`accordance.core.scorer.StepScorer`; `core.selection.SolutionScorer` makes
    a reward of one). A record's answer stands in its extras; one without, or marked as hard there, is hard: its
    answer is kept from the reward and serves the measurements alone. Measured on the hard problems before and
    after: how often a sample is right, what majority, best of n and weighted vote make of the samples (an answer's
    weight is what the evaluator thinks of it), and the reward, so that reward without accuracy shows.
    """

    needs_reward = True

    imitate: bool = Field(False, description="learn the easy records' demonstrations first")
    scheme: Literal["min", "prod"] = Field("min", description="what counts of the steps: the worst, or all")
    upper: float = Field(0.5, gt=0, le=1, description="probability of a step from which on it costs nothing")
    bonus: float = Field(0.25, ge=0, description="shared by the steps of a solution")
    unknown: float = Field(0.25, ge=0, le=1, description="terminal reward where no answer is known")
    stop: float = Field(1.0, ge=0, description="weight of the penalty for ending without an answer")
    early: int = Field(0, ge=0, description="characters within which the end of a step counts as wrong")
    pattern: str = Field(ANSWER, description="regular expression: the answer in a line, as its first group")
    answer: str = Field("answer", description="name of the answer in the records' extras")
    hard: str = Field("hard", description="name of what marks a record as hard in its extras")
    measured: int | None = Field(
        None, ge=1, description="hard problems that are measured on, the first so many; by default all"
    )

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        evaluator = session.rewards[0]
        if len(session.rewards) != 1 or not callable(getattr(evaluator, "score_steps", None)):
            raise ConfigError(
                "easy_to_hard needs one reward that scores steps",
                where="reward",
                found=", ".join(str(getattr(r, "name", r)) for r in session.rewards),
                expected="an object with score_steps(prompts, solutions), such as SolutionScorer(steps)",
            )
        if session.config.win_rates:
            raise ConfigError("win_rates has no effect on a reward of steps", where="win_rates")
        easy = [record for record in session.records if not self._is_hard(record)]
        hard = [record for record in session.records if self._is_hard(record)]
        if not hard or not easy:
            raise DataError(
                "easy_to_hard needs easy and hard records",
                where=session.records.source,
                found=f"{len(easy)} easy, {len(hard)} hard",
                expected=f"an answer in the extras under {self.answer!r}; hard ones marked under {self.hard!r}",
            )
        names = ("scheme", "upper", "bonus", "unknown", "stop", "early", "pattern")
        own = {name: getattr(self, name) for name in names}
        session.rewards = [ProcessReward(evaluator, **own, column=self.answer)]
        if self.imitate:
            session.stage("imitate", Records.of(easy), objective="sft")
        known = [self._as_asked(record) for record in (*easy, *hard)]
        some = hard[: self.measured]
        session.measure("hard before", lambda: self._measured(session, evaluator, some))
        session.stage("reinforce", Records.of(known), online=True)
        session.measure("hard after", lambda: self._measured(session, evaluator, some))

    def _is_hard(self, record: Record) -> bool:
        return bool(record.extras.get(self.hard)) or record.extras.get(self.answer) is None

    def _as_asked(self, record: Record) -> Record:
        """The record as the reward may see it: without the answer where it is hard."""
        answer = None if self._is_hard(record) else record.extras[self.answer]
        rest = {key: value for key, value in record.extras.items() if key != self.hard}
        return replace(record, extras=rest | {self.answer: answer})

    def _measured(self, session: Session, evaluator: object, hard: list[Record]) -> dict[str, float]:
        rollouts = session.sample(Records.of([self._as_asked(record) for record in hard]), seed=1)
        truth = {record.prompt: record.extras.get(self.answer) for record in hard}
        graded = [r for r in rollouts if truth[r.record.prompt] is not None]
        found = {"reward": float(np.mean([r.scores.mean() for r in rollouts]))}
        rows = [choices(r, evaluator, self.pattern, str(truth[r.record.prompt]).strip()) for r in graded]
        return found | {name: float(np.mean([row[name] for row in rows])) for name in (rows[0] if rows else {})}


def choices(rollout: Rollout, evaluator: object, pattern: str, truth: str) -> dict[str, float]:
    """Whether each way to choose among the samples to a problem gives its answer: 1 or 0, `pass@1` a share."""
    texts = [completion.text for completion in rollout.completions]
    answers = [find_answer(text, pattern) for text in texts]
    score_steps = evaluator.score_steps  # type: ignore[attr-defined]
    steps = score_steps([rollout.record.prompt] * len(texts), [split_steps(text) for text in texts])
    scores = [solution_score(row) for row in steps]
    return {
        "pass@1": float(np.mean([answer == truth for answer in answers])),
        "majority": float(vote(answers) == truth),
        "best_of_n": float(answers[best_of(scores)] == truth),
        "weighted_vote": float(vote(answers, scores) == truth),
    }
