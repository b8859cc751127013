"""ChatGLM's recipe (S099): prompts that can teach, clean pairs, rewards above the start's, old skills kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Record, Records
from accordance.curation import Curated, Pipeline
from accordance.training.loops.iterate import summary
from accordance.training.loops.session import Session, best_and_worst
from accordance.training.registry import Loop, loop
from accordance.training.rollouts import Rollout

#: ChatGLM normalises neither rewards nor advantages: the baseline takes out what belongs to the prompt.
_PLAIN = {"normalise": "none", "clip_reward": None, "whiten": False}


@loop("chatglm")
@system("S099", "ChatGLM", paper="arXiv:2406.12793")
class ChatGLM(Loop):
    """Filters prompts, keeps those whose answers differ in reward, and trains by reinforcement or on labelled pairs.

    A prompt has to be long enough and, where a `judge` is named, clear and answerable; of those that are left, the
    ones whose sampled answers all score alike teach nothing. Reinforcement takes the score of an answer of the policy
    before training off each reward and adds `skill_weight` times -log pi of the demonstrations in `skills`, so that
    what they show is not forgotten. The alternative is DPO on the best and worst samples, labelled by the reward.

    Human pairs teach the reward model: see `clean_pairs`, and `accordance.objectives.pairwise_reward_loss` for its
    loss. For tools, name a `Toolbox` as the reward. Which objective reinforces is open: ``ppo`` with a critic, without
    any normalisation, or one over groups such as ``grpo``.
    """

    needs_reward = True

    method: Literal["reinforce", "prefer"] = Field(
        "reinforce", description="online, or DPO on labelled samples"
    )
    objective: str = Field("ppo", description="of reinforcement")
    least_words: int = Field(3, ge=0, description="shorter prompts are left out")
    judge: str | None = Field(
        None,
        description="scores prompts from 0 to 1 (an empty answer to each): clear intent and meaning, answerable",
    )
    least_clear: float = Field(0.5, description="what the judge has to give a prompt")
    least_variance: float = Field(1e-4, ge=0, description="of the rewards of a prompt's samples, to be kept")
    baseline: bool = Field(True, description="rewards are taken above those of the policy before training")
    skills: str | None = Field(None, description="demonstrations to keep up, by path or name")
    skill_weight: float = Field(0.1, gt=0, description="of their likelihood, beside the reinforcement")

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        if self.skills is None and "skill_weight" in self.model_fields_set:
            raise ConfigError("skill_weight has no effect without skills", where="loop.skill_weight")
        if self.method == "prefer" and {"objective", "baseline", "skills"} & self.model_fields_set:
            raise ConfigError("objective, baseline and skills are of method=reinforce", where="loop.method")
        asked = session.keep("prompts", lambda: self._filtered(session))

        def varied() -> Records:
            drawn = session.sample(asked, seed=0)
            kept = vary(drawn, self.least_variance)
            told = {"asked": len(drawn), "varied": len(kept)} | summary(drawn)
            session.measure("selection", lambda: told)
            if not kept:
                raise DataError("no prompt's answers differ in reward", found=f"{len(drawn)} prompts")
            return Records.of([rollout.record for rollout in kept])

        prompts = session.keep("varied", varied)
        if self.method == "prefer":
            pairs = session.keep("pairs", lambda: best_and_worst(session.sample(prompts, seed=1)))
            session.stage("prefer", pairs, objective="dpo")
            return
        options: dict[str, Any] = {"objective": self.objective, "reference_baseline": self.baseline}
        if self.objective == "ppo":
            given = (session.config.model_extra or {}) if session.config.objective == "ppo" else {}
            options |= {name: value for name, value in _PLAIN.items() if name not in given}
        if self.skills is not None:
            name = self.skills
            session.keep("skills", lambda: session.names.records(name))
            options |= {"ptx_coef": self.skill_weight, "ptx_data": str(session.folder / "skills.jsonl")}
        session.stage("reinforce", prompts, online=True, **options)

    def _filtered(self, session: Session) -> Records:
        """The records whose prompts are worth asking."""
        records = list(session.records)
        long = [record for record in records if _words(record) >= self.least_words]
        kept = long
        if self.judge is not None:
            (judge,) = session.names.rewards(self.judge)
            scores = judge.score([record.prompt for record in long], [""] * len(long))
            kept = [
                record for record, score in zip(long, scores) if score is not None and score >= self.least_clear
            ]
        told = {"asked": len(records), "short": len(records) - len(long), "unclear": len(long) - len(kept)}
        session.measure("prompts", lambda: told)
        if not kept:
            raise DataError("no prompt is left", found=told, remedy="a smaller least_words or least_clear")
        return Records.of(kept)


def clean_pairs(records: Records, buckets: int = 6) -> Curated:
    """Comparisons fit for a reward model: no ties, nobody in a circle, length balanced within buckets of difference."""
    return Pipeline.of("drop_ties", "drop_cycles", {"length_balance": {"buckets": buckets}}).run(records)


def vary(rollouts: Sequence[Rollout], least: float) -> list[Rollout]:
    """The rollouts whose scores have a variance of at least `least`; equal ones teach nothing."""
    return [rollout for rollout in rollouts if float(np.var(rollout.scores)) >= max(least, 1e-12)]


def _words(record: Record) -> int:
    return len(record.prompt[-1].content.split()) if record.prompt else 0
