"""Imitate structured answers, then reinforce what can be checked in them (OncoReason, S114)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from accordance.core.errors import ConfigError, DataError
from accordance.core.record import Judgment, Record, Records, Response
from accordance.training.loops.session import Session
from accordance.training.registry import Loop, loop
from accordance.training.structured import StructuredReward, prediction_metrics, reasoning_metrics


@loop("structured")
class Structured(Loop):
    """Three ways to teach structured answers: imitate the answers, or reasoning and answers, and reinforce on top.

    The reward that is named is a `StructuredReward`; the records' extras hold the true values and the expert's
    steps under the columns that it names. The objective is that of the online stage (``grpo``); its KL is from the
    imitating policy. Unreadable answers count as wrong in every measure.
    """

    needs_reward = True

    imitate: Literal["reasoning", "answers", "none"] = Field("reasoning", description="what is imitated first")
    reinforce: bool = Field(True, description="learn online from the reward afterwards")
    test: float = Field(0.1, gt=0, lt=1, description="share of the prompts to measure on")

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        reward = session.rewards[0]
        if len(session.rewards) != 1 or not isinstance(reward, StructuredReward):
            raise ConfigError(
                "the loop structured learns from a StructuredReward",
                where="reward",
                found=", ".join(type(one).__name__ for one in session.rewards),
                expected="accordance.training.structured:survival, or file.py:name of your own",
            )
        if self.imitate == "none" and not self.reinforce:
            raise ConfigError("neither to imitate nor to reinforce teaches nothing", where="loop.imitate")
        needed = [name for name in reward.columns if name != reward.steps or self.imitate == "reasoning"]
        for record in session.records:
            missing = [name for name in needed if record.extras.get(name) is None]
            if missing:
                raise DataError(
                    "a record lacks what its answer is compared with",
                    where=record.origin or record.id,
                    found=f"nothing under {', '.join(missing)}",
                    expected=f"extras {', '.join(needed)}",
                )
        some, test = session.records.split(self.test, session.config.seed)
        if self.imitate != "none":
            shown = Records.of([self._demonstration(reward, record) for record in some])
            session.stage("imitate", shown, objective="sft")
            session.measure("imitated", lambda: measured(session, reward, test))
        if self.reinforce:
            session.stage("reinforce", some, online=True)
            session.measure("reinforced", lambda: measured(session, reward, test))

    def _demonstration(self, reward: StructuredReward, record: Record) -> Record:
        steps = record.extras.get(reward.steps) if self.imitate == "reasoning" else None
        lines = steps.splitlines() if isinstance(steps, str) else steps
        text = reward.form.write(record.extras, lines)
        return replace(record, responses=(Response.of(text),), judgments=(Judgment("demonstration", (0,)),))


def measured(session: Session, reward: StructuredReward, test: Records) -> dict[str, float]:
    """Reward, predictions, parse failures and reasoning of sampled answers to the test prompts."""
    texts: list[str] = []
    rows: list[dict[str, Any]] = []
    prompts: list[str] = []
    scores = []
    for drawn in session.sample(test, seed=1):
        scores.append(drawn.scores.mean())
        texts += [completion.text for completion in drawn.completions]
        rows += [dict(drawn.record.extras)] * len(drawn.completions)
        prompts += [drawn.record.prompt_text] * len(drawn.completions)
    found = {"reward": float(np.mean(scores))} | prediction_metrics(reward.form, texts, rows)
    chains = [reasoning_metrics(reward.form.parse(t).steps, prompt) for t, prompt in zip(texts, prompts)]
    for name in chains[0]:
        values = np.array([chain[name] for chain in chains])
        found[name] = float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
    return found
