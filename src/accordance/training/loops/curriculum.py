"""Easy pairs first: one stage after the other over a curriculum (Curry-DPO, S124)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accordance.curation import stages
from accordance.training.loops.session import Session
from accordance.training.registry import Loop, loop


@loop("curriculum")
class Curriculum(Loop):
    """Trains on the easiest pairs first, each stage from the policy of the one before and with that as reference.

    The pairs are those of `accordance.curation.stages`: of several rated responses to a prompt the best against
    each other one, the widest gap in the first stage.
    """

    stages: int = Field(3, ge=1, description="how many")
    which: Literal["best_vs_rest", "all", "adjacent"] = Field(
        "best_vs_rest", description="which pairs are made"
    )
    scope: Literal["prompt", "global"] = Field(
        "prompt", description="one pair of each prompt a stage, or all pairs in one order"
    )
    by: str = Field("gap", description="what easy means: gap, agreement, length, extras.NAME")
    reverse: bool = Field(False, description="hard to easy")

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        parts = stages(
            session.records,
            self.stages,
            which=self.which,
            scope=self.scope,
            by=self.by,
            reverse=self.reverse,
            attribute=session.config.attribute,
        )
        for number, part in enumerate(parts, 1):
            session.stage(f"stage-{number}", part)
