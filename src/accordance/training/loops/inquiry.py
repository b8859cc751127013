"""Learn to ask: dialogues in which every turn is a group of candidate questions with a reward each (Nous, S160)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from accordance.core.errors import ConfigError
from accordance.core.record import Record, Records
from accordance.training.inquiry import Inquiry
from accordance.training.loops.session import Session
from accordance.training.registry import Loop, loop


@loop("inquiry")
class InquiryLoop(Loop):
    """Each round holds dialogues, then learns to ask better in the situations that came up in them.

    The reward that is named is an `Inquiry`; each record opens a dialogue, and its extras hold the user's intent.
    In a dialogue every turn samples `num_generations` candidate questions; the dialogue goes on with one of them,
    drawn at random, until little is left to know or it has had its turns. The objective (``grpo``) then learns
    online from new samples in every situation. Learning from the logged groups themselves takes log-probabilities
    under the policy that wrote them; here the current policy writes anew, so that none are stale.
    """

    needs_reward = True

    rounds: int = Field(3, ge=1, description="how many")
    turns: int = Field(4, ge=1, description="questions of a dialogue at most")
    enough: float = Field(0.5, ge=0, description="bits below which a dialogue ends")

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        inquiry = session.rewards[0]
        if len(session.rewards) != 1 or not isinstance(inquiry, Inquiry):
            raise ConfigError(
                "the loop inquiry learns from an Inquiry",
                where="reward",
                found=", ".join(type(reward).__name__ for reward in session.rewards),
                expected="file.py:name of an accordance.training.inquiry.Inquiry",
            )
        openings = session.records.where(
            lambda record: bool(record.prompt) and record.extras.get(inquiry.column) is not None,
            f"no {inquiry.column} in the extras",
        )
        for number in range(self.rounds + 1):
            last = number == self.rounds
            bits: list[float] = []

            def hold(number: int = number, bits: list[float] = bits) -> Records:
                states, found = self._hold(session, inquiry, openings, number)
                bits.extend(found)
                session.measure(f"round {number}", lambda: summary(bits))
                return states

            states = session.keep(f"dialogues-{number}", hold)
            if not last:
                session.stage(f"round-{number + 1}", states, online=True)

    def _hold(
        self, session: Session, inquiry: Inquiry, openings: Records, number: int
    ) -> tuple[Records, list[float]]:
        """Every situation in which a question was asked, and the bits that each dialogue brought."""
        draw = np.random.default_rng((session.config.seed, number))
        start = inquiry.schema.belief().entropy
        states: list[Record] = []
        running, ended = list(openings), []
        for turn in range(self.turns):
            running = [r for r in running if inquiry.schema.after(r.prompt).entropy > self.enough]
            if not running:
                break
            states += running
            following = []
            for drawn in session.sample(Records.of(running), seed=1000 * number + turn):
                question = drawn.completions[int(draw.integers(len(drawn.completions)))].text
                intent = drawn.record.extras[inquiry.column]
                following.append(
                    replace(drawn.record, prompt=inquiry.goes_on(drawn.record.prompt, question, intent))
                )
            ended += [r for r in following if inquiry.schema.after(r.prompt).entropy <= self.enough]
            running = following
        ended += [r for r in running if inquiry.schema.after(r.prompt).entropy > self.enough]
        return Records.of(states), [start - inquiry.schema.after(r.prompt).entropy for r in ended]


def summary(bits: list[float]) -> dict[str, float]:
    """Mean bits that dialogues brought, and how many there were."""
    return {"bits": float(np.mean(bits)) if bits else 0.0, "dialogues": float(len(bits))}
