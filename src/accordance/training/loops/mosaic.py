"""Plan, check, then act or refuse: trajectories learned from how often a judge prefers them (MOSAIC, S106)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.policy import Prompt
from accordance.core.record import Record, Records
from accordance.core.views import demonstrations
from accordance.training.loops.mosaic_grammar import GrammarScorer, turns_of
from accordance.training.loops.session import Session
from accordance.training.registry import Loop, loop
from accordance.training.rollouts import Rollout
from accordance.training.trajectories import Environment


@loop("mosaic")
@system("S106", "MOSAIC", paper="arXiv:2603.03205")
class Mosaic(Loop):
    """Makes safety a visible step of an agent, and learns from which of several trajectories a judge prefers.

    What a trajectory is worth is its win rate against the others to the same task, every two of them compared in both
    orders, plus a bonus where every turn keeps to the grammar (`parse_turn`), less a penalty where an action can't be
    carried out. The objective is an online one (``grpo``); what an environment says is not learned. Where the policy
    rarely keeps to the grammar and the records hold demonstrations of it, it imitates these first.

    The run's reward judges transcripts, by pairs or by scores that are compared; if it is an `Environment`, too, the
    trajectories are played in it. Records say in an extra whether their task is harmful. That extra is not shown to
    the judge: it serves to measure, and to see to it that at least half of the tasks are benign, since otherwise
    refusing everything pays.
    """

    needs_reward = True

    harmful: str = Field("harmful", description="extra of the records that says whether a task is harmful")
    least_benign: float = Field(0.5, ge=0, le=1, description="share of benign tasks that there must be")
    bonus: float = Field(0.2, ge=0, description="for a trajectory whose every turn is well formed")
    penalty: float = Field(0.2, ge=0, description="taken off where an action can't be carried out")
    tools: list[str] | None = Field(None, description="names that may be called; by default any")
    least_valid: float = Field(
        0.8, ge=0, le=1, description="imitate demonstrations first below this share of well-formed ones"
    )
    measured: int = Field(
        64, ge=1, description="tasks that are measured on before and after, of each kind at most"
    )

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        if not session.config.build_objective().online:
            raise ConfigError(
                "loop mosaic learns from samples",
                where="objective",
                found=session.config.objective,
                expected="an online objective such as grpo",
            )
        tasks = list(session.records)
        harmful = [self._is_harmful(record) for record in tasks]
        if 1 - np.mean(harmful) < self.least_benign:
            raise DataError(
                "too few tasks are benign: refusing everything would pay",
                where=session.records.source,
                found=f"{len(harmful) - sum(harmful)} of {len(harmful)}",
                expected=f"a share of {self.least_benign} or more",
                remedy="add benign tasks, or lower --loop.least_benign",
            )
        bare = [
            replace(record, extras={key: value for key, value in record.extras.items() if key != self.harmful})
            for record in tasks
        ]
        rewards = [*map(compared, session.rewards), GrammarScorer(self.bonus, self.penalty, self.tools)]
        kinds = {
            "harmful": [record for record, bad in zip(bare, harmful) if bad][: self.measured],
            "benign": [record for record, bad in zip(bare, harmful) if not bad][: self.measured],
        }
        before = session.measure("before", lambda: self._measure(session, kinds, rewards, 0))
        shown = Records.of(bare, source=session.records.source)
        if before["well_formed"] < self.least_valid and len(demonstrations(shown)):
            session.stage("grammar", shown, objective="sft")
        weights = [*(session.config.reward_weights or [1.0] * len(session.rewards)), 1.0]
        session.stage("act-or-refuse", shown, online=True, rewards=rewards, reward_weights=weights)
        session.measure("after", lambda: self._measure(session, kinds, rewards, 1))

    def _is_harmful(self, record: Record) -> bool:
        value = record.extras.get(self.harmful)
        if not isinstance(value, bool):
            raise DataError(
                "a task does not say whether it is harmful",
                where=record.origin or record.id,
                found=value,
                expected=f"true or false in the extra {self.harmful!r}",
            )
        return value

    def _measure(
        self, session: Session, kinds: dict[str, list[Record]], rewards: Sequence[Any], seed: int
    ) -> dict[str, float]:
        """What the policy does on tasks of each kind."""
        grammar = [r for r in rewards if isinstance(r, Environment)] or rewards[-1:]
        found: dict[str, float] = {}
        every: list[Rollout] = []
        for kind, records in kinds.items():
            if not records:
                continue
            drawn = session.sample(
                Records.of(records), seed=seed, rewards=[*grammar, *rewards[-1:]], reward_weights=None
            )
            found |= {f"{kind}_{name}": value for name, value in behaviour(drawn, self.tools).items()}
            every += drawn
        return found | {"well_formed": behaviour(every, self.tools)["well_formed"]}


def behaviour(rollouts: Sequence[Rollout], tools: Sequence[str] | None = None) -> dict[str, float]:
    """What trajectories do: shares that refuse, that answer, that check at least once, and that are well formed.

    Also ``tokens``, the mean number that the policy wrote.
    """
    made = [(turns_of(c.text, tools), c) for rollout in rollouts for c in rollout.completions]
    last = [turns[-1].action.kind if turns and turns[-1].action else None for turns, _ in made]
    return {
        "refused": float(np.mean([kind == "refuse" for kind in last])),
        "answered": float(np.mean([kind == "answer" for kind in last])),
        "checked": float(np.mean([any(turn.check for turn in turns) for turns, _ in made])),
        "well_formed": float(
            np.mean([bool(turns) and not any(t.malformed for t in turns) for turns, _ in made])
        ),
        "tokens": float(np.mean([sum(not np.isnan(logp) for logp in c.logprobs) for _, c in made])),
    }


def compared(reward: Any) -> Compared:
    """A reward that compares two transcripts, whatever it does otherwise; an environment if it is one."""
    return Played(reward) if isinstance(reward, Environment) else Compared(reward)


class Compared:
    """A reward as a `PairScorer`: as it compares, or by which of two it scores higher."""

    def __init__(self, reward: Any) -> None:
        self.reward = reward
        self.name = str(getattr(reward, "name", type(reward).__name__))

    def prob(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], **columns: Any
    ) -> list[float]:
        """See `accordance.core.scorer.PairScorer.prob`."""
        if hasattr(self.reward, "prob"):
            return self.reward.prob(prompts, first, second, **columns)
        one, other = (self.reward.score(prompts, texts, **columns) for texts in (first, second))
        return [0.5 + 0.5 * ((a > b) - (a < b)) for a, b in zip(one, other)]


class Played(Compared):
    """The same, for a reward that is an environment."""

    def begin(self, record: Record) -> Any:
        """See `Environment.begin`."""
        return self.reward.begin(record)

    def step(self, state: Any, text: str) -> str | None:
        """See `Environment.step`."""
        return self.reward.step(state, text)
