"""A strong policy learns from what a weaker one makes of people's labels (weak-to-strong, S161, S167)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from accordance.core.errors import ConfigError
from accordance.core.record import Judgment, Record, Records, Response
from accordance.models import LocalPolicy, load_policy
from accordance.objectives import get_objective, known_options
from accordance.training.debate import Debate, PolicySpeaker, show_records
from accordance.training.loops.session import Session
from accordance.training.preference_learner import PreferenceLearner, truth, two_sided
from accordance.training.registry import Loop, loop
from accordance.training.weak_to_strong import METRICS, Splits, Transfer, WeakToStrong, recovered_gap


@loop("weak_to_strong")
class WeakToStrongLoop(Loop):
    """The records' prompts are cut in three: people's labels teach the weak policy, it teaches the strong one.

    With ``teacher: labels`` the weak policy learns people's comparisons by the loop's objective and its beliefs
    about the second part are the soft labels from which the policy learns by ``soft(objective)``. With ``texts``
    (objective ``sft``) it learns to write as people's best answers, and the policy learns from what it writes.
    Measured on the third part: weak, student and ceiling, and the share of the gap recovered (`WeakToStrong`).
    """

    weak: str = Field(description="the weak policy: a path or hub name")
    middle: str | None = Field(None, description="a policy between the two that learns and labels in turn")
    teacher: Literal["labels", "texts"] = Field("labels", description="what the weak policy supervises with")
    share: float = Field(0.5, gt=0, lt=1, description="of the prompts, for the weak policy to learn from")
    test: float = Field(0.2, gt=0, lt=1, description="share of the prompts to measure on")
    ceiling: bool = Field(True, description="train the policy on people's labels, too, to know the gap")
    threshold: float = Field(0.5, ge=0.5, lt=1, description="least probability of a label that is learned from")
    confidence: float = Field(0.0, ge=0, le=1, description="weight of the policy's own hard labels")
    ensemble: int = Field(1, ge=1, description="weak policies whose labels are averaged")
    advice: Literal["none", "debate", "consultancy"] = Field(
        "none", description="help for the weak policy, written by the strong one before it is trained"
    )
    turns: int = Field(2, ge=1, description="statements of each side of a debate")
    statement_length: int = Field(128, ge=1, description="tokens at which a statement is cut")
    candidates: int = Field(4, ge=1, description="texts of the weak policy, of which the reward keeps the best")

    def run(self, session: Session) -> None:
        """See `Loop.run`."""
        self._check(session)
        if self.teacher == "texts":
            self._texts(session)
        else:
            self._labels(session)

    def _check(self, session: Session) -> None:
        labels = ("middle", "threshold", "confidence", "ensemble", "advice")
        without = labels if self.teacher == "texts" else ("candidates",)
        without += () if self.advice != "none" and self.teacher == "labels" else ("turns", "statement_length")
        for name in without:
            if name in self.model_fields_set:
                raise ConfigError(f"{name} has no effect with teacher={self.teacher}", where=f"loop.{name}")
        if self.teacher == "texts":
            session.need_rewards("loop weak_to_strong with a teacher of texts")
            if session.config.objective.strip() != "sft":
                raise ConfigError(
                    "texts are learned by imitation",
                    where="objective",
                    found=session.config.objective,
                    expected="sft",
                )

    def _parts(self, records: Records, seed: int) -> tuple[Records, Records, Records]:
        """For the teacher, for the student, for the test; no prompt stands in two of them."""
        rest, test = records.split(self.test, seed)
        student, teacher = rest.split(self.share, seed + 1)
        return teacher, student, test

    # A teacher of labels

    def _labels(self, session: Session) -> None:
        config = session.config
        objective = f"soft({config.objective})"
        known = known_options(config.objective)
        options = {name: value for name, value in (config.model_extra or {}).items() if name in known}
        beliefs = get_objective(config.objective, **options)

        def learner(own: Session, seed: int, name: str, **more: Any) -> PreferenceLearner:
            def train(records: Records) -> object:
                return own.stage(name, records, objective=objective, seed=config.seed + seed, **more)

            return PreferenceLearner(own.policy, train, beliefs, max_tokens=config.max_tokens)

        def other(path: str, kind: str) -> Callable[[int], PreferenceLearner]:
            return lambda seed: learner(session.beside(f"{kind}-{seed}", load_policy(path)), seed, kind)

        back = restorer(session.policy)

        def student(seed: int) -> PreferenceLearner:
            back()
            own: dict[str, Any] = {"soft.confidence": self.confidence} if self.confidence else {}
            return learner(session, seed, "student", **own)

        items = two_sided(session.records, attribute=config.attribute, seed=config.seed)
        parts = self._parts(items, config.seed)
        speaker = PolicySpeaker(session.policy, self.statement_length, config.temperature)
        helped = Debate(speaker, show_records, self.turns, self.advice) if self.advice != "none" else None
        kept = None if helped is None else kept_advice(session, helped)
        found = WeakToStrong(
            other(self.weak, "weak"),
            student,
            other(self.middle, "middle") if self.middle is not None else None,
            lambda seed: learner(session.beside("ceiling", session.policy), seed, "ceiling"),
            advisor=kept,
            ensemble=self.ensemble,
            threshold=self.threshold,
        ).run(
            Splits(
                (parts[0], truth(parts[0])),
                (parts[1], truth(parts[1]) if self.ceiling else None),
                (parts[2], truth(parts[2])),
            )
        )
        session.measure("weak_to_strong", lambda: summary(found))

    # A teacher of texts

    def _texts(self, session: Session) -> None:
        teacher, some, test = self._parts(session.records, session.config.seed)
        weak = session.beside("weak", load_policy(self.weak))
        weak.stage("weak", teacher, objective="sft")
        written = session.keep("texts", lambda: best_texts(weak, some, self.candidates))
        measured = {"weak": _measured(weak, test)}
        back = restorer(session.policy)
        if self.ceiling:
            own = session.beside("ceiling", session.policy)
            own.stage("ceiling", some, objective="sft")
            measured["ceiling"] = _measured(own, test)
        back()
        session.stage("student", written, objective="sft")
        measured["student"] = _measured(session, test)
        gaps = {}
        if self.ceiling:
            three = [measured[who] for who in ("weak", "student", "ceiling")]
            gaps = {f"recovered_gap/{name}": recovered_gap(*(one[name] for one in three)) for name in three[0]}
        table = {f"{name}/{who}": value for who, one in measured.items() for name, value in one.items()}
        session.measure("weak_to_strong", lambda: table | gaps)


def kept_advice(session: Session, debate: Debate) -> Callable[[Records, int], Records]:
    """A debate whose outcome stays in the run's folder."""

    def advise(items: Records, seed: int) -> Records:
        return session.keep(f"advice-{seed}", lambda: debate(items, seed))

    return advise


def restorer(policy: LocalPolicy) -> Callable[[], None]:
    """What puts the policy's trainable weights back to what they are now."""
    start = {name: p.detach().cpu().clone() for name, p in policy.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def back() -> None:
        for name, parameter in policy.model.named_parameters():
            if name in start:
                parameter.copy_(start[name])

    return back


def best_texts(weak: Session, records: Records, candidates: int) -> Records:
    """What the weak policy writes to the records' prompts; of several texts the one that the reward likes best."""
    made = []
    for drawn in weak.sample(records, num_generations=candidates):
        best = drawn.completions[int(drawn.scores.argmax())].text
        record = Record(
            drawn.record.prompt,
            (Response.of(best, source=weak.policy.name),),
            (Judgment("demonstration", (0,)),),
            id=drawn.record.id,
            origin=drawn.record.origin,
        )
        made.append(record)
    return Records.of(made)


def _measured(session: Session, test: Records) -> dict[str, float]:
    """Mean reward of a policy's answers to the test prompts, and that of its worst to each."""
    scores = np.array([drawn.scores for drawn in session.sample(test, seed=1)])
    return {"reward": float(scores.mean()), "worst": float(scores.min(-1).mean())}


def summary(found: Transfer) -> dict[str, float]:
    """An experiment's numbers for the report."""
    numbers = {"labelled": float(len(found.labels)), "kept": float(found.kept.sum())}
    if found.truth is not None:
        numbers["label_accuracy"], numbers["label_accuracy_kept"] = found.label_accuracy
    for name, metric in METRICS.items():
        numbers |= {f"{name}/{who}": value for who, value in found.scores(metric).items()}
        if "ceiling" in found.predictions:
            numbers[f"recovered_gap/{name}"] = found.recovered(metric)
    return numbers
