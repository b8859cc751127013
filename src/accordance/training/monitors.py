"""Watching a run that learns from a reward: reward alone does not tell progress from exploitation.

The pattern of collapse (Secrets of RLHF, arXiv:2307.04964): the KL from the reference grows and answers drift, in
length or in how odd the reference finds them, while the reward still rises.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

#: What is logged where the alarm went off, in the line of that step.
ALARM = "alarm/collapse"


class CollapseAlarm:
    """Says when reward, KL, length and perplexity show the pattern of collapse; once.

    Values are smoothed over the last few observations and compared with the first few.

    Args:
        kl: nats per token from the reference, from which on an alarm is possible.
        length: relative drift of the mean length that counts.
        surprise: relative growth of the perplexity under the reference that counts.
        window: observations that are averaged.

    Attributes:
        raised: why, once it went off; else empty.
    """

    def __init__(
        self, *, kl: float = 0.25, length: float = 0.25, surprise: float = 1.0, window: int = 5
    ) -> None:
        self.kl, self.length, self.surprise, self.window = kl, length, surprise, window
        self.raised = ""
        self._first: list[Sequence[float]] = []
        self._last: deque[Sequence[float]] = deque(maxlen=window)

    def observe(self, *, reward: float, kl: float, length: float, surprise: float) -> str:
        """Take in one step's means.

        Args:
            reward: mean reward of the samples.
            kl: mean KL of a whole response from the reference, in nats.
            length: mean number of tokens.
            surprise: mean -log reference per token, in nats.

        Returns:
            Why the alarm goes off now; empty where it does not, or has before.
        """
        now = (reward, kl / max(length, 1.0), length, surprise)
        if len(self._first) < self.window:
            self._first.append(now)
        self._last.append(now)
        if self.raised or len(self._last) < self.window:
            return ""
        (reward0, kl0, length0, surprise0), (reward1, kl1, length1, surprise1) = map(
            _means, (self._first, self._last)
        )
        drift, odder = length1 / length0 - 1, math.expm1(surprise1 - surprise0)
        drifted = abs(drift) > self.length or odder > self.surprise
        if kl1 > self.kl and kl1 > kl0 and drifted and reward1 > reward0:
            self.raised = (
                f"the policy may be exploiting its reward: reward {reward0:.3g} -> {reward1:.3g}, "
                f"KL {kl1:.2g} nats per token, length {drift:+.0%}, perplexity under the reference {odder:+.0%}"
            )
            return self.raised
        return ""


class CollapseCallback(TrainerCallback):
    """Watches the log of an online run; what it finds is a warning, and stands in the run's history.

    Args:
        alarm: what decides.
    """

    def __init__(self, alarm: CollapseAlarm | None = None) -> None:
        self.alarm = alarm or CollapseAlarm()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take in a log line that tells of rollouts and their reference."""
        names = ("reward", "kl", "completions/mean_length", "surprise/reference")
        if logs is None or any(name not in logs for name in names):
            return
        reward, kl, length, surprise = (float(logs[name]) for name in names)
        why = self.alarm.observe(reward=reward, kl=kl, length=length, surprise=surprise)
        if why:
            warnings.warn(f"step {state.global_step}: {why}", stacklevel=2)
            state.log_history[-1][ALARM] = why  # type: ignore[assignment]


def _means(rows: Sequence[Sequence[float]] | deque[Sequence[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows)]
