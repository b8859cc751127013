"""The Baichuan recipe (S049): a prompt augmenter, then a plan of stages, measured with the augmenter in place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from accordance.core.catalogue import system
from accordance.core.errors import ConfigError
from accordance.core.record import Records
from accordance.models import LocalPolicy
from accordance.training.loops.baichuan_augment import AugmentedPolicy, OfOriginal, worth_it
from accordance.training.loops.probe import Probe
from accordance.training.loops.session import Session
from accordance.training.loops.stages import Plan, Stage, carry_out, check_plan
from accordance.training.registry import loop

#: Where the augmenter lies, below the run's folder.
AUGMENTER = "augmenter"


@loop("baichuan")
@system("S049", "Baichuan Alignment", paper="arXiv:2410.14940")
class Baichuan(Plan):
    """Trains a prompt augmenter first (PAS), then carries out a plan: imitation, merging, preferences.

    The augmenter learns to write complements to prompts, by imitation of those that made the untrained policy's answer
    better in a judge's eyes. It is a model of its own and goes to ``augmenter`` in the run's folder; to answer with
    both, see `AugmentedPolicy`. Every measurement on held-out records is of the policy with the augmenter in front
    (``augmented: false`` leaves it away), each answer scored against the prompt as people wrote it. The evaluation that
    `accord align` does at its end asks the policy alone, with the prompts as they are.

    Reward models and RL of the report are a stage with a reward; its tagging and selection of prompts is curation's.
    """

    complements: str = Field(description="demonstrations of a complement to a prompt, by path or name")
    augmenter: str = Field(description="the model that becomes the augmenter, by path or name")
    augmenter_options: dict[str, Any] = Field(default_factory=dict, description="of its training")
    judge: str | None = Field(None, description="who says whether a complement helps; None keeps all of them")
    answers: int = Field(1, ge=1, description="answers with and without a complement that the judge sees")
    least: float = Field(0.0, ge=0, description="by how much a complement must help")
    augmented: bool = Field(True, description="whether stages are trained and measured on augmented prompts")
    complement_length: int = Field(64, ge=1, description="tokens at which a complement is cut")
    plan: list[Stage] = Field(min_length=1, description="the stages that follow, as in the loop `stages`")

    @model_validator(mode="after")
    def _known(self) -> Baichuan:
        check_plan(self.plan)
        if self.judge is None and {"answers", "least"} & self.model_fields_set:
            raise ValueError("answers and least have no effect without a judge")
        return self

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        small = self._augmenter(session)
        probe = self.probed(session)
        probe.take("plain start")
        front = AugmentedPolicy(session.policy, small, self.complement_length)
        if self.augmented:
            probe = self._behind(front, session)
        carry_out(session, self.plan, probe, prepare=front.records if self.augmented else None)

    def _augmenter(self, session: Session) -> LocalPolicy:
        """The augmenter, trained on complements that help, and saved."""
        small = session.names.policy(self.augmenter)
        if not isinstance(small, LocalPolicy):
            raise ConfigError("an augmenter is trained: it must be local weights", where="loop.augmenter")
        if small.model is session.policy.model:
            raise ConfigError("augmenter and policy are one model", where="loop.augmenter", found=small.name)
        kept = session.keep("complements", lambda: self._worth_it(session))
        options = {"objective": "sft", **self.augmenter_options}
        session.beside(AUGMENTER, small).stage(AUGMENTER, kept, **options)
        small.save(Path(session.config.output_dir) / AUGMENTER)
        return small

    def _worth_it(self, session: Session) -> Records:
        given = session.names.records(self.complements)
        if self.judge is None:
            return given
        judge = session.names.rewards(self.judge)[0]
        sampling: dict[str, Any] = {"max_new_tokens": self.probe_length, "seed": session.config.seed}
        kept = worth_it(given, session.policy, judge, answers=self.answers, least=self.least, **sampling)
        gain = [record.extras["gain"] for record in kept]
        found = {"given": len(given), "kept": len(kept), "mean_gain": sum(gain) / len(gain)}
        session.measure("complements", lambda: found)
        return kept

    def _behind(self, front: AugmentedPolicy, session: Session) -> Probe:
        """A probe that asks with augmented prompts, and has answers scored against the prompts as they were."""
        plain = self.probed(session)
        if not len(plain.records):
            return plain
        asked = front.records(plain.records)
        originals = {after.prompt: before.prompt for after, before in zip(asked, plain.records)}
        rewards: Sequence[Any] = [OfOriginal(one, originals) for one in plain.rewards]
        return plain.asking(asked, rewards)
