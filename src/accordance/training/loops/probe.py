"""What a stage gained: likelihoods, accuracy and rewards on held-out records, around every stage of a loop."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from accordance.core.errors import ConfigError
from accordance.core.record import Record, Records
from accordance.core.views import demonstrations, pairs, which_attribute
from accordance.training.loops.iterate import summary
from accordance.training.loops.session import Session

#: Answers sampled to each held-out prompt; a mean of two has less noise than one, and costs the prompt once.
_ANSWERS = 2


class Probe:
    """Measures the policy of a session on its held-out records; nothing where there are none.

    Args:
        session: whose policy, whose held-out records.
        most: at most so many records; 0 measures nothing.
        rewards: who scores sampled answers; by default those of the session's rewards that score one by one.
        length: tokens at which these answers are cut.

    Attributes:
        held_out: all records that no stage may see, whether they are measured on or not.

    Raises:
        ConfigError: a reward only compares, which says nothing of one policy alone.
    """

    def __init__(self, session: Session, most: int, rewards: Sequence[Any] | None, length: int) -> None:
        self.session, self.length = session, length
        self.held_out = session.held_out
        some = self.held_out if self.held_out is not None and most else Records.of([])
        self.records = some.select(range(min(most, len(some))))
        for one in rewards or ():
            if not hasattr(one, "score"):
                raise ConfigError(
                    "a probe needs a score for each answer, and this only compares two",
                    where="loop.probe_reward",
                    found=str(getattr(one, "name", type(one).__name__)),
                )
        self.rewards = (
            list(rewards) if rewards is not None else [r for r in session.rewards if hasattr(r, "score")]
        )
        self._last: dict[str, Any] | None = None

    def asking(self, records: Records, rewards: Sequence[Any]) -> Probe:
        """The same with other records (prompts that were rewritten, say) and other rewards; held out is what was."""
        other = copy(self)
        other.records, other.rewards = records, list(rewards)
        return other

    def before(self) -> None:
        """Measure the policy as the loop finds it."""
        self.take("start")

    def after(self, stage: str) -> None:
        """Measure it after a stage, and what the stage gained."""
        self.take(f"after {stage}")

    def take(self, name: str) -> None:
        """Measure it under a name, and what was gained since the measurement before."""
        if not len(self.records):
            return
        last = self._last or {}

        def find() -> dict[str, Any]:
            found = likelihoods(self.session, self.records)
            prompts = self.records.where(lambda record: bool(record.prompt), "no prompt")
            if self.rewards and len(prompts):
                found |= self._rewarded(prompts)
            gains = {
                f"gain_{key}": found[key] - last[key] for key in ("logp", "accuracy", "reward") if key in last
            }
            return found | {key: value for key, value in gains.items() if key.removeprefix("gain_") in found}

        self._last = self.session.measure(name, find)

    def _rewarded(self, prompts: Records) -> dict[str, float]:
        drawn = self.session.sample(
            prompts,
            seed=0,
            rewards=self.rewards,
            num_generations=_ANSWERS,
            max_completion_length=self.length,
            reward_weights=None,
            win_rates=False,
        )
        return summary(drawn)


def likelihoods(session: Session, records: Records) -> dict[str, float]:
    """How likely a policy finds what people would have it say.

    Args:
        session: whose policy, and whose attribute.
        records: demonstrations, comparisons, or both.

    Returns:
        ``logp``: mean log-probability per token of demonstrated (or else chosen) responses, in nats; ``accuracy``:
        share of pairs whose chosen response is the likelier one per token, ties a half. Each where there is any.
    """
    shown = demonstrations(records)
    kinds = {judgment.kind for record in records for judgment in record.judgments}
    found: dict[str, float] = {}
    compared: list[Record] = []
    if kinds & {"comparison", "rating"}:
        wanted = which_attribute(records, ("comparison", "rating"), session.config.attribute)
        compared = [
            Record(pair.prompt, (pair.chosen, pair.rejected), extras=pair.record.extras)
            for pair in pairs(records, attribute=wanted)
        ]
    if compared:
        table = session.policy.logprobs(compared)
        sums, sizes = (table[name].to_numpy().reshape(-1, 2) for name in ("logprob", "tokens"))
        gap = np.asarray(sums[:, 0] / sizes[:, 0] - sums[:, 1] / sizes[:, 1])
        found["accuracy"] = float(np.mean((gap > 0) + 0.5 * (gap == 0)))
        if not len(shown):
            found["logp"] = float(sums[:, 0].sum() / sizes[:, 0].sum())
    if len(shown):
        table = session.policy.logprobs(
            [Record(d.prompt, (d.response,), extras=d.record.extras) for d in shown]
        )
        found["logp"] = float(table["logprob"].to_numpy().sum() / table["tokens"].to_numpy().sum())
    return found
