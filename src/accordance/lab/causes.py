"""The true cause of a simulated person's judgment: what each attribute weighed, and what was not taste at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["taste", "principle", "position", "tie", "noise"]


@dataclass(frozen=True)
class Cause:
    """Why one of two responses was put before the other.

    Attributes:
        terms: attribute -> what it weighs for the first of them, in logits of this person.
        position: what its place in the order shown weighs for it.
        tie: differences up to this were called ties.
        flips: how often this person says the contrary.
        outcome: 1 where the first came out better, -1 where the second did, 0 for a tie.
        principle: what it was judged by, where that was not the person's own taste.
    """

    terms: Mapping[str, float]
    position: float
    tie: float
    flips: float
    outcome: int
    principle: str | None = None

    @property
    def gap(self) -> float:
        """What speaks for the first response, in logits, its place left out."""
        return sum(self.terms.values())

    @property
    def kind(self) -> Kind:
        """What decided: ``taste`` or a ``principle``, the ``position``, a ``tie``, or ``noise``.

        Noise is what goes against taste and position together: a flip, or the chance of a Bradley-Terry choice.
        """
        if not self.outcome:
            return "tie"
        if self.outcome * self.gap > 0:
            return "principle" if self.principle else "taste"
        return "position" if self.outcome * (self.gap + self.position) > 0 else "noise"

    @property
    def decisive(self) -> str | None:
        """The attribute that weighed most for the outcome; None where it was neither taste nor a principle."""
        if self.kind not in ("taste", "principle"):
            return None
        return max(self.terms, key=lambda name: self.outcome * self.terms[name])

    @property
    def chance(self) -> float:
        """How likely this person was to say just this, in [0, 1]."""
        felt = self.gap + self.position
        ahead, behind = _sigmoid(felt - self.tie), _sigmoid(-felt - self.tie)
        if not self.outcome:
            return 1 - ahead - behind
        said, contrary = (ahead, behind) if self.outcome > 0 else (behind, ahead)
        return (1 - self.flips) * said + self.flips * contrary


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))
