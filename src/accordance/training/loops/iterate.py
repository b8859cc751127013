"""Rounds of sampling, judging and training: online methods a round at a time (iterative DPO, SPPO, Nash play)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from accordance.core.record import Records
from accordance.training.loops.session import Session, best_and_worst
from accordance.training.registry import Loop, loop
from accordance.training.rollouts import Rollout


@loop("iterate")
class Iterate(Loop):
    """Each round answers some of the prompts, has the answers scored, and trains on the best against the worst.

    Every round has prompts of its own: the records' prompts are dealt out to them, and dealt again when they run
    out. The reference of a round is the policy as the round finds it (as self-play has it), or the start.
    """

    needs_reward = True

    rounds: int = Field(3, ge=1, description="how many")
    prompts: int | None = Field(None, ge=1, description="prompts of a round; by default an equal share of all")
    reference: Literal["previous", "start"] = Field("previous", description="of each round")
    least_gap: float = Field(0.0, ge=0, description="pairs whose scores differ by no more are left out")

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        for number in range(self.rounds):
            some = deal(session.records, number, self.prompts or -(-len(session.records) // self.rounds))
            drawn: list[Rollout] = []

            def pairs(some: Records = some, number: int = number, drawn: list[Rollout] = drawn) -> Records:
                drawn += session.sample(some, seed=number)
                session.measure(f"round {number + 1}", lambda: summary(drawn))
                return best_and_worst(drawn, least=self.least_gap)

            kept = session.keep(f"pairs-{number + 1}", pairs)
            session.stage(f"round-{number + 1}", kept, reference=self.reference)


def deal(records: Records, turn: int, size: int) -> Records:
    """The records of one turn: `size` of them, going round where there are not enough."""
    total = len(records)
    return records.select([(turn * size + place) % total for place in range(min(size, total))])


def summary(rollouts: list[Rollout]) -> dict[str, float]:
    """Mean reward, spread within prompts, length and share cut of some rollouts."""
    scores = np.array([r.scores for r in rollouts])
    written = [c for r in rollouts for c in r.completions]
    return {
        "reward": float(scores.mean()),
        "reward_std": float(scores.std(axis=1).mean()),
        "length": float(np.mean([len(c.token_ids) for c in written])),
        "clipped_ratio": float(np.mean([not c.finished for c in written])),
    }
